"""Background jobs on real Redis, real Celery workers and a real GPU worker, each of them killed."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from schemas.outcome import Manifest
from tests.jobs.processes import DTYPE, commits, is_free_of_torch, plant
from tests.offline.conftest import outcome
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

ROWS, SHARD_ROWS = 360, 30
TASK = ("--task", "generate", "--column", "text", "--max-tokens", "24", "--ignore-eos", *DTYPE)


def is_bad(row: int) -> bool:
    """Rows without a prompt."""
    return row % 61 == 7


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A Parquet file in row groups that are no multiple of shards."""
    path = tmp_path / "rows.parquet"
    text = [None if is_bad(row) else f"Tell me about {row % 300} boats" for row in range(ROWS)]
    parquet.write_table(pa.table({"id": range(ROWS), "text": text}), path, row_group_size=100)
    return path


def test_a_job_survives_the_death_of_everything_it_runs_on(rows: Path, tmp_path: Path):
    """A Celery child, the GPU worker, Redis and the Celery parent get SIGKILL; every row is there exactly once, in order, and nobody had to help."""
    out = tmp_path / "out"
    with plant(tmp_path / "plant", shard_rows=SHARD_ROWS) as running:
        running.worker.spawn()
        running.celery.start()
        job = running.submit(rows, "-o", out, *TASK)

        def done(shards: int) -> None:
            wait_for(lambda: commits(out) >= shards, why=running.logs)

        done(1)
        assert all(map(is_free_of_torch, [running.celery.process.pid, *running.celery.children()]))
        assert running.celery.kill_child()
        done(3)
        running.worker.kill()
        running.worker.spawn()
        done(5)
        running.redis.kill()
        running.redis.start()
        done(7)
        running.celery.kill()
        running.celery.start()
        wait_for((out / "manifest.json").exists, why=running.logs)
        ended = running.penstock("jobs", "watch", job, "--json")
        assert ended.returncode == 3, ended.stderr
        listed = running.penstock("jobs", "results", job).stdout.split()
        assert running.celery.stop() == 0
    assert [row["id"] for path in listed for row in parquet.read_table(path).to_pylist()] == [row for row in range(ROWS) if not is_bad(row)]
    errors = outcome(out.glob("errors-*"))
    assert [(row["id"], row["error_code"]) for row in errors] == [(row, "invalid_request") for row in range(ROWS) if is_bad(row)]
    manifest = Manifest.model_validate_json((out / "manifest.json").read_bytes())
    assert (manifest.planned_rows, manifest.data_rows + manifest.error_rows, manifest.shards) == (ROWS, ROWS, ROWS // SHARD_ROWS)
    answers = {row["text"]: row["output_token_ids"] for row in outcome(out.glob("data-*"))}
    assert all(answers[row["text"]] == row["output_token_ids"] for row in outcome(out.glob("data-*")))
