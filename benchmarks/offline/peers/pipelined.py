"""transformers' text-generation pipeline over a file."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from transformers import pipeline

from benchmarks.offline.peers.static import COLUMN, MAX_TOKENS


def start(folder: Path, threads: int, dtype: str) -> Callable[[Path, Path, int], None]:
    """Loads the model and warms up."""
    torch.set_num_threads(threads)
    generate = pipeline("text-generation", model=str(folder), dtype=getattr(torch, dtype), device="cpu")
    generate.tokenizer.padding_side = "left"
    generate(["Once upon a time"] * 4, batch_size=4, max_new_tokens=4, do_sample=False)

    def work(source: Path, out: Path, batch: int) -> None:
        table = parquet.read_table(source)
        prompts = table.column(COLUMN).to_pylist()
        answers = generate(prompts, batch_size=batch, max_new_tokens=MAX_TOKENS, do_sample=False, return_full_text=False)
        texts = [answer[0]["generated_text"] for answer in answers]
        parquet.write_table(table.append_column("output", pa.array(texts)), out)

    return work
