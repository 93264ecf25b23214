"""Commands that compute on a worker which others use too: a dry run of a background job, and `penstock score --worker`."""

import json
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.wire import Served, Welcome
from pipeline.offline.jobs.registry import Registry
from pipeline.offline.jobs.rooms import room_of
from pipeline.offline.turnstile import Turnstile
from schemas.job import ModelSpec
from tests.jobs.conftest import Command
from tests.offline.conftest import outcome
from tests.offline.flight.conftest import DEPTH, house
from tests.waiting import wait_for

__all__ = ["house"]

ROWS = 300
FAKE = ModelSpec(name="fake", source="fake", fingerprint="fake", dtype="auto")
JOB = ("--task", "generate", "--column", "text", "--max-tokens", 4, "--ignore-eos")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Rows of which each hundredth has no prompt."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": range(ROWS), "text": [None if row % 100 == 0 else f"row {row}" for row in range(ROWS)]}), path)
    return path


@pytest.fixture
def worker(house):
    """A worker that serves the model `fake`."""
    served = house(FakeEngine("fake", max_sequences=8), starts=False)
    served.welcome = Welcome(instance="one", depth=2 * DEPTH, models=(Served(spec=FAKE, dtype="none"),))
    return served.start()


def config(tmp_path: Path, worker: str, more: str = "") -> Path:
    """Settings of a submitter."""
    path = tmp_path / "penstock.toml"
    model = '[[models]]\nname = "fake"\nsource = "fake"\nengine = "fake"\n'
    path.write_text(f'data_dir = "{tmp_path}"\n{model}[offline]\nshard_rows = 50\n[jobs]\nworker = "{worker}"\nworker_wait_s = 0.1\n{more}')
    return path


def test_a_dry_run_computes_a_sample_on_the_jobs_worker(command: Command, worker, rows: Path, tmp_path: Path):
    """It tells rows, tokens, time and cost; nothing is submitted and nothing written."""
    out = tmp_path / "out"
    settings = config(tmp_path, worker.address().uri)
    done = command("jobs", "submit", rows, "-o", out, *JOB, "--dry-run", "--cost-per-hour", 3600, "--json", "--config", settings)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["rows"], found["shards"], found["sampled_rows"]) == (ROWS, 6, 6 * 32)
    assert found["output_tokens"] == round((6 * 32 - 3) * 4 * ROWS / (6 * 32))
    assert found["cost"] == pytest.approx(found["seconds"])
    assert worker.metrics.bulk_rows.labels("ok")._value.get() == 6 * 32 - 3 + 1  # and a probe
    assert not out.exists()
    assert list(Registry(tmp_path / "jobs").homes()) == []
    shown = command("jobs", "submit", rows, "-o", out, *JOB, "--dry-run", "--config", settings)
    assert "300 rows in 6 shards" in shown.out


def test_a_dry_run_without_a_worker_says_so(command: Command, rows: Path, tmp_path: Path):
    """In one line, with the exit code that says that later may be another time."""
    done = command("jobs", "submit", rows, "-o", tmp_path / "out", *JOB, "--dry-run", "--config", config(tmp_path, f"unix://{tmp_path}/none"))
    assert done.code == 75
    assert "nothing was submitted" in done.err


def test_a_dry_run_stays_where_jobs_may_read(command: Command, rows: Path, tmp_path: Path):
    """As the job itself would."""
    settings = config(tmp_path, "auto", f'roots = ["{tmp_path / "elsewhere"}"]\n')
    done = command("jobs", "submit", rows, "-o", tmp_path / "out", *JOB, "--dry-run", "--config", settings)
    assert done.code == 1
    assert "jobs.roots" in done.err


def test_scoring_on_a_worker_waits_while_a_suspect_has_it_alone(command: Command, worker, rows: Path, tmp_path: Path):
    """A row of a background job that may kill the worker would otherwise take the blame with it, or leave it to others."""
    settings = config(tmp_path, "auto")
    suspect = Turnstile(tmp_path / "jobs" / "rooms", room_of("auto", tmp_path))
    assert suspect.admits(is_alone=True)
    seen = []

    def leave() -> None:
        answered = worker.metrics.bulk_rows.labels("ok")._value
        wait_for(lambda: answered.get() == 1)  # the probe
        time.sleep(0.2)
        seen.append(answered.get())
        suspect.close()

    leaving = threading.Thread(target=leave)
    leaving.start()
    done = command("score", rows, "-o", tmp_path / "out", *JOB, "--worker", worker.address().uri, "--config", settings)
    leaving.join()
    assert seen == [1]
    assert done.code == 3, done.err
    assert len(outcome((tmp_path / "out").glob("data-*"))) == ROWS - 3


def test_a_worker_has_one_room_whatever_it_is_called(tmp_path: Path):
    """`auto` finds the socket in the data folder, also after the worker has come back with another process id."""
    here = {room_of(name, tmp_path) for name in ("auto", f"unix://{tmp_path}/bulk-1.sock", f"unix://{tmp_path}/bulk-2.sock")}
    assert len(here | {room_of("unix:///run/door", tmp_path), room_of("auto", tmp_path / "other")}) == 3
