"""What does a job over a dataset gain beside what one would write by hand, and what does the way through background jobs cost?

    python -m venv .cache/peers/embeddings && .cache/peers/embeddings/bin/pip install sentence-transformers datasets
    python -m benchmarks.offline [--tasks embed,generate,jobs] [--dtype float32] [--rows N] [--rounds 3] [--peer .cache/peers/embeddings/bin/python]

embed: `penstock score` beside sentence-transformers' `encode` at several batch sizes, and beside `datasets.Dataset.map`, which embeds
batch by batch in input order. generate: beside transformers' text-generation pipeline at several batch sizes, and beside static
batches of 16 with `generate`. jobs: `penstock jobs submit` (Redis, Celery, the door of a running worker) beside `penstock score`.

Everybody reads the same Parquet file and writes one with all its columns and the results, in float32; embeddings in bfloat16 on demand,
beside the peers in that and `encode` as it comes, which is float32 in batches of 32. Results are held against one another: where
embeddings or texts differ, the benchmark fails in the end. Generation is greedy, and ends where the model ends it: the shipped one answers
questions in a few tokens and tells stories in hundreds, so outputs are of mixed lengths by themselves, and all contenders have to make
the same tokens. Every round has rows of its own, and the order turns from round to round.

"scoring" is from the first row taken to the results written, without the start of a process and the loading of a model; ratios are of
that. "process" is all of it. Ours starts anew each round; the peers stay loaded and warm, and their process times are that of their
one start and of the round. The first round tries all batch sizes of a peer, the later ones its default and its best.
"""
