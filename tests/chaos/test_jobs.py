"""The long form: a job of 20,000 rows while everything that it runs on is killed at random, by the test and by some of its rows."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from schemas.outcome import Manifest
from tests.chaos.deadly_worker import DEADLY, RAISING
from tests.jobs.processes import Plant, commits, plant
from tests.offline.conftest import outcome

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

ROWS, SHARD_ROWS = 20_000, 1_000
KILLERS, RAISERS = (1_234, 7_777, 15_001), (42, 5_000, 7_778, 12_345, 19_999)
KILLS_OF_EACH = 4
GAP_S = (1.0, 3.0)
LIMIT_S = 600.0
TASK = ("--task", "generate", "--column", "text", "--max-tokens", "12")
ROOT = Path(__file__).parents[2]


class Keeper:
    """Does what a service manager does: starts what has ended."""

    def __init__(self, running: Plant):
        self._running = running
        self._log = (running.folder / "worker.log").open("ab")
        self.worker: subprocess.Popen[bytes] | None = None
        self.deaths = Counter[str]()

    def keep(self) -> None:
        """Looks once."""
        if self.worker is None or self.worker.poll() is not None:
            self.deaths["worker"] += self.worker is not None
            environment = self._running.environment | {"PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-m", "tests.chaos.deadly_worker"]
            self.worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        celery = self._running.celery
        if celery._process is None or celery.process.poll() is not None:
            celery.start()

    def kill(self, what: str) -> None:
        """Ends one of the four."""
        match what:
            case "worker":
                assert self.worker is not None
                self.worker.kill()
                self.worker.wait()
            case "redis":
                self._running.redis.kill()
                self._running.redis.start()
            case "parent":
                self._running.celery.kill()
            case "child":
                self._running.celery.kill_child(random.randrange(2))
        self.deaths[what] += what != "worker"

    def close(self) -> None:
        """Leaves no process behind."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.wait()
        self._log.close()


def text_of(row: int) -> str:
    """What a row says."""
    return f"row {row} " + (DEADLY if row in KILLERS else RAISING if row in RAISERS else "plain")


def test_every_row_ends_once_whatever_is_killed(tmp_path: Path):
    """Each row is in the data or the errors, exactly once and in order; the rows that kill are named, and nobody else is blamed."""
    seed = random.randrange(2**32)
    random.seed(seed)
    parquet.write_table(pa.table({"id": range(ROWS), "text": map(text_of, range(ROWS))}), tmp_path / "rows.parquet", row_group_size=3_000)
    out = tmp_path / "out"
    models = json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])
    settings = {"PENSTOCK_MODELS": models, "PENSTOCK_HTTP__PORT": "0", "PENSTOCK_ENGINE__MAX_SEQUENCES": "16"}
    kills = ["worker", "redis", "parent", "child"] * KILLS_OF_EACH
    random.shuffle(kills)
    with plant(tmp_path / "plant", shard_rows=SHARD_ROWS, **settings) as running:
        keeper = Keeper(running)
        try:
            keeper.keep()
            running.submit(tmp_path / "rows.parquet", "-o", out, *TASK)
            began_s = time.monotonic()
            next_s = began_s + GAP_S[1]
            while not (out / "manifest.json").exists():
                now_s = time.monotonic()
                assert now_s - began_s < LIMIT_S, f"seed {seed}, {commits(out)} commits, {keeper.deaths}\n{running.celery.log()[-5_000:]}"
                if kills and now_s >= next_s:
                    keeper.kill(kills.pop())
                    next_s = now_s + random.uniform(*GAP_S)
                keeper.keep()
                time.sleep(0.05)
        finally:
            keeper.close()
        sys.stderr.write(f"seed {seed}: {time.monotonic() - began_s:.0f} s, {len(kills)} kills left, deaths {dict(keeper.deaths)}\n")
    rows, errors = outcome(out.glob("data-*")), outcome(out.glob("errors-*"))
    bad = sorted((*KILLERS, *RAISERS))
    assert [row["id"] for row in errors] == bad, seed
    assert [row["id"] for row in rows] == [row for row in range(ROWS) if row not in bad], seed
    blamed = [row["id"] for row in errors if "died of it" in row["error_message"]]
    assert blamed == list(KILLERS), seed
    manifest = Manifest.model_validate_json((out / "manifest.json").read_bytes())
    assert (manifest.planned_rows, manifest.data_rows, manifest.error_rows) == (ROWS, ROWS - len(bad), len(bad))
    assert manifest.shards == ROWS // SHARD_ROWS
    assert not kills, f"the job was over before all kills were made: {kills}"
