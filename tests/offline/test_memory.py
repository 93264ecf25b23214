"""What a job holds at a time, whatever the size of its input."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

pytestmark = pytest.mark.integration

PENSTOCK = Path(sys.executable).with_name("penstock")
WIDE_BYTES = 100_000
BOUND_MIB = {None: 400, 8: 120}
"""By rows of a page: beyond what the process takes for one row, with a model that takes nothing.

Unless told otherwise pyarrow looks at a page's size after 1,024 rows: these pages have a hundred MB, and its reader holds three of them,
the dictionary, the page and the next one. Eight rows make pages of a MB, as most files have.
"""
JOB = ("--task", "generate", "--column", "text", "--max-tokens", "4")


def write(path: Path, rows: int, page_rows: int | None = None) -> None:
    """One row group with a wide column that cannot be packed, so that pages are as large as their writer makes them."""
    blob = np.random.default_rng(0).integers(0, 256, rows * WIDE_BYTES, dtype=np.uint8).tobytes()
    wide = pa.array([blob[row * WIDE_BYTES : (row + 1) * WIDE_BYTES] for row in range(rows)], pa.binary())
    texts = [f"Tell me about number {row}" for row in range(rows)]
    table = pa.table({"id": range(rows), "text": texts, "wide": wide})
    parquet.write_table(table, path, row_group_size=rows, compression="none", write_batch_size=page_rows)


def peak_mib(*arguments: object) -> float:
    """Runs a job and returns the most memory that its process had."""
    models = json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])
    process = subprocess.Popen(
        [PENSTOCK, "score", *map(str, arguments)], env=os.environ | {"PENSTOCK_MODELS": models}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    status, peak_kib = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        seen = re.search(r"VmHWM:\s+(\d+)", status.read_text())  # what the process that started it had does not count, as it does in rusage
        peak_kib = max(peak_kib, int(seen[1])) if seen else peak_kib
        time.sleep(0.02)
    assert process.returncode == 0
    return peak_kib / 1024


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("rows", "page_rows"),
    [(2_000, None), (2_000, 8), pytest.param(20_000, None, marks=SLOW), pytest.param(20_000, 8, marks=SLOW)],
)
def test_wide_rows_pass_through_without_being_held(tmp_path: Path, rows: int, page_rows: int | None):
    """Neither the rows of a shard nor those of a row group are ever there together: 200 MB and 2 GB take the same."""
    write(tmp_path / "in.parquet", rows, page_rows)
    write(tmp_path / "one.parquet", 1)
    out = tmp_path / "out"
    alone_mib = peak_mib(tmp_path / "one.parquet", "-o", tmp_path / "one", *JOB)
    assert peak_mib(tmp_path / "in.parquet", "-o", out, *JOB) - alone_mib < BOUND_MIB[page_rows]
    written = [parquet.ParquetFile(path) for path in sorted(out.glob("data-*"))]
    assert sum(file.metadata.num_rows for file in written) == rows
    first = next(written[0].iter_batches(batch_size=1, columns=["wide"])).column(0)[0].as_py()
    assert first == next(parquet.ParquetFile(tmp_path / "in.parquet").iter_batches(batch_size=1, columns=["wide"])).column(0)[0].as_py()
