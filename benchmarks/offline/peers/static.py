"""`generate` over a file, in batches in input order, padded on the left: each runs until its longest output ends."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

COLUMN = "text"
MAX_TOKENS = 256


def start(folder: Path, threads: int, dtype: str) -> Callable[[Path, Path, int], None]:
    """Loads the model and warms up."""
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True).eval()

    def generate(prompts: list[str], max_tokens: int) -> list[str]:
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        outputs = model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        texts: list[str] = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return texts

    generate(["Once upon a time"] * 4, 4)

    def work(source: Path, out: Path, batch: int) -> None:
        table = parquet.read_table(source)
        prompts = table.column(COLUMN).to_pylist()
        texts = [text for first in range(0, len(prompts), batch) for text in generate(prompts[first : first + batch], MAX_TOKENS)]
        parquet.write_table(table.append_column("output", pa.array(texts)), out)

    return work
