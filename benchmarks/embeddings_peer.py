"""The other side of `benchmarks.embeddings`: sentence-transformers' `encode`, in an interpreter that has it.

Started by path, with nothing of the project: model folder, dtype and threads as arguments; the first line of input is a JSON list of
texts, each further one a batch size, answered with the wall and processor seconds that `encode` took.
"""

import json
import sys
import time

import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Answers line by line."""
    folder, dtype, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"torch_dtype": getattr(torch, dtype)})
    texts = json.loads(sys.stdin.readline())
    model.encode(texts[:64])
    print("ready", flush=True)
    for line in sys.stdin:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        model.encode(texts, batch_size=int(line))
        print(time.perf_counter() - wall_s, time.process_time() - cpu_s, flush=True)


if __name__ == "__main__":
    main()
