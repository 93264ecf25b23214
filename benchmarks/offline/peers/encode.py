"""sentence-transformers' `encode` over a file: it sorts all texts by length, and pads each batch to its longest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import parquet
from sentence_transformers import SentenceTransformer

COLUMN = "text"


def start(folder: Path, threads: int, dtype: str) -> Callable[[Path, Path, int], None]:
    """Loads the model and warms up."""
    model = load(folder, threads, dtype)

    def work(source: Path, out: Path, batch: int) -> None:
        table = parquet.read_table(source)
        vectors = model.encode(table.column(COLUMN).to_pylist(), batch_size=batch)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        parquet.write_table(table.append_column("embedding", column), out)

    return work


def load(folder: Path, threads: int, dtype: str) -> Any:
    """The model, after a batch."""
    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}, local_files_only=True)
    model.encode(["a few words to begin with"] * 64)
    return model
