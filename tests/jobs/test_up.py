"""Background jobs on one machine with nothing installed: `penstock up` looks after them."""

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from schemas.outcome import Manifest
from tests.jobs.processes import WAIT_S, commits
from tests.offline.conftest import outcome
from tests.waiting import wait_for
from tests.worker_process import PENSTOCK

pytestmark = pytest.mark.integration

ROWS = 400
FAKE = {"PENSTOCK_MODELS": json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}]), "PENSTOCK_OFFLINE__SHARD_ROWS": "20"}


def test_up_works_on_jobs_and_goes_on_after_it_was_killed(tmp_path: Path):
    """Without any broker a job runs beside the worker; after SIGKILL of `up` its child is gone too, and the next `up` finishes the job."""
    parquet.write_table(pa.table({"id": range(ROWS), "text": [f"row {row}" for row in range(ROWS)]}), tmp_path / "rows.parquet")
    out, data_dir = tmp_path / "out", tmp_path / "data"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")} | FAKE | {"PENSTOCK_HTTP__PORT": "0"}
    shared = {"env": environment, "stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    submit = [PENSTOCK, "jobs", "submit", tmp_path / "rows.parquet", "-o", out, "--task", "generate", "--column", "text", "--max-tokens", "200"]
    up = [PENSTOCK, "up", "--data-dir", data_dir]
    first = subprocess.Popen(up, **shared)
    assert subprocess.run([*submit, "--ignore-eos", "--data-dir", data_dir], **shared, timeout=WAIT_S, check=False).returncode == 0
    wait_for(lambda: commits(out) >= 1)
    children = Path(f"/proc/{first.pid}/task").glob("*/children")
    child = next(int(pid) for path in children for pid in path.read_text().split() if b"celery" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert b"MIMALLOC" not in Path(f"/proc/{child}/environ").read_bytes()  # what bounds the worker's Arrow is not for the child
    first.kill()
    first.communicate()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text())
    assert not (out / "manifest.json").exists()
    second = subprocess.Popen(up, **shared)
    wait_for((out / "manifest.json").exists)
    second.terminate()
    _, said = second.communicate(timeout=WAIT_S)
    assert second.returncode == 0, said.decode()
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))
    assert Manifest.model_validate_json((out / "manifest.json").read_bytes()).data_rows == ROWS
