"""`datasets.Dataset.map` over a file: `encode` for one batch after the other, in input order."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets

from benchmarks.offline.peers.encode import COLUMN, load


def start(folder: Path, threads: int, dtype: str) -> Callable[[Path, Path, int], None]:
    """Loads the model and warms up."""
    model = load(folder, threads, dtype)
    datasets.disable_progress_bars()

    def work(source: Path, out: Path, batch: int) -> None:
        with TemporaryDirectory() as cache:
            rows = datasets.Dataset.from_parquet(str(source), cache_dir=cache)
            done = rows.map(
                lambda part: {"embedding": model.encode(part[COLUMN], batch_size=batch)}, batched=True, batch_size=batch, load_from_cache_file=False
            )
            done.to_parquet(str(out))

    return work
