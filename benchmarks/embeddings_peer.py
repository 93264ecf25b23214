"""The other side of `benchmarks.embeddings`: sentence-transformers' `encode`, in an interpreter that has it.

Started by path, with nothing of the project: model folder, dtype and threads as arguments. It says once that it is ready; then lines of
JSON come in: first the texts, then batch sizes, each answered with the wall and processor seconds that `encode` took. What libraries
print goes to standard error.
"""

import json
import os
import sys
import time
from typing import Any

import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Answers line by line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    folder, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": getattr(torch, dtype)})
    say(ready=True)
    texts = json.loads(sys.stdin.readline())["texts"]
    model.encode(texts[:64])
    say(texts=len(texts))
    for line in sys.stdin:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        model.encode(texts, batch_size=json.loads(line)["batch"])
        say(wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s)


if __name__ == "__main__":
    main()
