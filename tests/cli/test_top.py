"""`penstock top`, and the page that it reads."""

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from pipeline.batches import SHOWN_BATCHES, WINDOW_S, report
from pipeline.engine.base import EngineStats
from pipeline.engine.fake import FakeEngine
from pipeline.scheduling.explanation import Closed, ClosedBatch, LaneShare
from pipeline.scheduling.sequence import Lane
from tests.cli.conftest import Command, Terminal
from workers.health import HealthServer


def closed(number: int, started_s: float, *, predicted_s: float | None = 0.009) -> ClosedBatch:
    """A step of ten milliseconds: three decodes, one of them flex, and 20 tokens of a prompt."""
    lanes = {
        Lane.PRIORITY: LaneShare(decodes=2),
        Lane.DEFAULT: LaneShare(prefill_chunks=1, prefill_tokens=20, waiting=4),
        Lane.FLEX: LaneShare(decodes=1),
    }
    return ClosedBatch(
        number=number,
        started_s=started_s,
        reason=Closed.MAX_SEQUENCES if number % 4 else Closed.BUDGET,
        lanes=lanes,
        tenants={"default": 23},
        kv_blocks_used=30,
        kv_blocks_total=40,
        token_budget=1_024,
        predicted_s=predicted_s,
        measured_s=0.01,
    )


class Explained(FakeEngine):
    """An engine that has run 400 steps, the last of them just now."""

    def __init__(self) -> None:
        super().__init__("tiny")
        self.batches = [closed(number, time.monotonic() - (400 - number) * 0.02) for number in range(400)]

    def closed_batches(self) -> list[ClosedBatch]:
        return self.batches


STATS = EngineStats(running=4, waiting=4, waiting_tokens=99, kv_blocks_used=30, kv_blocks_total=40, preemptions_total=2, deferrals_total=3)


def test_a_report_sums_up_what_is_recent():
    """Rates over the window alone, why steps closed, and the prediction beside what was measured; a page of bounded length."""
    engine = Explained()
    now_s = engine.batches[-1].started_s
    (model,) = report({"tiny": engine}, {"tiny": STATS}, now_s)["models"]
    recent = model["recent"]
    steps = sum(now_s - batch.started_s <= WINDOW_S for batch in engine.batches)
    assert 245 <= recent["steps"] == steps <= 251
    assert recent["decode_tokens_per_s"] == pytest.approx(3 * steps / recent["seconds"], rel=0.01)
    assert recent["prefill_tokens_per_s"] == pytest.approx(20 * steps / recent["seconds"], rel=0.01)
    assert (recent["measured_ms"], recent["predicted_ms"], recent["mean_sequences"]) == (10.0, 9.0, 4.0)
    assert set(recent["closed"]) == {"max_sequences", "budget"}
    assert sum(recent["closed"].values()) == steps
    assert len(model["batches"]) == SHOWN_BATCHES
    assert model["batches"][-1]["lanes"]["default"] == {"decodes": 0, "prefill_chunks": 1, "prefill_tokens": 20, "waiting": 4}
    assert (model["running"], model["waiting"], model["waiting_tokens"], model["kv_blocks_used"]) == (4, 4, 99, 30)


def test_a_model_that_has_done_nothing_is_reported_as_such():
    """No batches, no means, nothing divided by nothing."""
    (model,) = report({"fake": FakeEngine()}, {}, 100.0)["models"]
    assert (model["batches"], model["recent"]["steps"], model["recent"]["measured_ms"]) == ([], 0, None)
    assert json.loads(json.dumps(model)) == model


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[str]:
    """A worker's door, with its card in the folder that `top` is told."""
    engine = Explained()
    server = HealthServer(
        "127.0.0.1",
        0,
        live=lambda: None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        batches=lambda: report({"tiny": engine}, {"tiny": STATS}, engine.batches[-1].started_s),
    )
    url = server.start()
    (tmp_path / f"worker-{os.getpid()}.json").write_text(json.dumps({"pid": os.getpid(), "http": url}))
    yield url
    server.close()


def test_the_page_is_json_at_the_workers_door(worker: str):
    """`/debug/batches` on the health server."""
    with urllib.request.urlopen(worker + "/debug/batches?x=1", timeout=5) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert json.loads(answer.read())["models"][0]["model"] == "tiny"


@pytest.mark.usefixtures("worker")
def test_top_once_is_a_table(command: Command, tmp_path: Path):
    """Composition by lane, reasons, KV use, step times and rates; without a terminal it leaves after one look."""
    for flags in ([], ["--once"]):
        done = command("top", *flags, "--data-dir", tmp_path)
        assert done.code == 0
        assert f"worker {os.getpid()}" in done.out
        for told in ("running 4  waiting 4 (99 tokens)", "step 10.0 ms, predicted 9.0 ms", "30/40", "max_sequences 7", "preempted 2", "deferred 3"):
            assert told in done.out
        rows = [line.split() for line in done.out.splitlines()]
        assert ["default", "0", "1", "20", "4"] in rows
        assert ["flex", "1", "0", "0", "0"] in rows
        assert any(row[:1] == ["399"] and row[-1] == "max_sequences" for row in rows)


def test_top_as_json_is_one_line_a_worker(command: Command, worker: str, tmp_path: Path):
    """The page as it is, with whose it is."""
    (line,) = command("top", "--json", "--once", "--data-dir", tmp_path).out.splitlines()
    page = json.loads(line)
    assert (page["pid"], page["url"]) == (os.getpid(), worker)
    assert page["models"][0]["batches"][-1]["closed"] == "max_sequences"


def test_top_without_a_worker_says_how_to_start_one(command: Command, tmp_path: Path):
    """Nothing on stdout, exit code 1."""
    done = command("top", "--once", "--data-dir", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "penstock up" in done.err


@pytest.mark.integration
@pytest.mark.usefixtures("worker")
def test_top_on_a_terminal_goes_on_until_it_is_stopped(terminal: Callable[..., Terminal], tmp_path: Path):
    """It draws again and again, and ends with Ctrl-C."""
    screen = terminal("top", "--every", "0.1", "--data-dir", tmp_path, environment={"COLUMNS": "120", "LINES": "50"})
    screen.read_until("max_sequences")
    (tmp_path / f"worker-{os.getpid()}.json").unlink()
    screen.read_until("no worker runs here any more")
    screen.interrupt()
    assert screen.finish()[0] == 130
