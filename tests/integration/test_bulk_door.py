"""Rows of datasets through the door of a worker process."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.offline.conftest import outcome
from tests.worker_process import PENSTOCK, WorkerProcess

pytestmark = pytest.mark.integration

ROWS = 500


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until it holds."""
    until_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_a_job_outlives_its_worker(tmp_path: Path):
    """Killed amid the rows, and another one started on the same data folder: every row once, and nobody is convicted."""
    source, out = tmp_path / "rows.parquet", tmp_path / "out"
    parquet.write_table(pa.table({"id": range(ROWS), "text": [f"row {n}" for n in range(ROWS)]}), source)
    settings = {"PENSTOCK_TRANSPORT": "embedded", "PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])}
    with WorkerProcess(tmp_path / "d", settings | {"PENSTOCK_ENGINE__MAX_SEQUENCES": "4"}) as worker:
        job = ("--task", "generate", "--column", "text", "--max-tokens", "200", "--ignore-eos", "--worker", "auto", "--data-dir", worker.data_dir)
        process = subprocess.Popen([PENSTOCK, "score", source, "-o", out, *job], stderr=subprocess.PIPE, env=worker._environment)
        wait_for(lambda: worker.metrics().get('penstock_bulk_rows_total{outcome="ok"}', 0) > 20)
        worker.kill()
        worker.start()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert "The worker died" in said.decode() or "the worker died" in said.decode()
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))
