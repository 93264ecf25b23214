"""When a request counts as arrived: what the engine is told decides who still makes the target."""

import time

import pytest

from pipeline.engine.base import Job, RequestKey
from pipeline.engine.fake import FakeEngine
from pipeline.scheduling.sequence import Lane


class Listening(FakeEngine):
    """Remembers what it was told of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived_s: list[float] = []
        self.jobs: list[Job] = []

    def add(self, key: RequestKey, job: Job, lane: Lane, now_s: float) -> None:
        self.arrived_s.append(now_s)
        self.jobs.append(job)
        super().add(key, job, lane, now_s)


def clocked(bench, monkeypatch, *, age_s: float, inbound_s: float = 0.0):
    """A worker 100 s after its start, at whose last poll, half a second ago, nothing had arrived; by its clock records are `age_s` old."""
    worker = bench(Listening())
    worker.run_until(lambda: worker.loop.is_ready)
    clock = {"now_s": 1_000.0}
    intake = worker.loop.intake
    intake.transit.observe_inbound(inbound_s, 0.0)
    monkeypatch.setattr(intake, "clock_s", lambda: clock["now_s"])
    worker.loop.step(time.monotonic())
    poll = intake.consumer.poll

    def watched(wait_s: float, most: int):
        records = poll(wait_s, most)
        if records:  # not before: a poll that finds nothing yet would be the last one
            clock["now_s"] = 1_000.5
            monkeypatch.setattr(intake, "wall_ms", lambda: records[0].timestamp_ms + int(age_s * 1000))
        return records

    monkeypatch.setattr(intake.consumer, "poll", watched)
    worker.publish("a", prompt="x", max_tokens=2, headers={"deadline": str(time.time_ns() // 1_000_000 + 60_000)})
    worker.run_until(lambda: bool(worker.engine.arrived_s))
    return worker.engine


@pytest.mark.parametrize(("age_s", "arrived_s"), [(0.2, 1_000.3), (0.0, 1_000.5), (3_600.0, 1_000.0), (-3_600.0, 1_000.5)])
def test_a_request_arrived_while_the_step_before_ran(bench, monkeypatch, age_s, arrived_s):
    """It counts from its record's time; a foreign clock that is wrong, or a record that was held back, cannot move it before the last poll."""
    engine = clocked(bench, monkeypatch, age_s=age_s)
    assert engine.arrived_s[0] == pytest.approx(arrived_s, abs=1e-3)


def test_what_records_take_on_their_way_is_no_waiting(bench, monkeypatch):
    """Of the time since it was written, the request waited here for what is left of it."""
    engine = clocked(bench, monkeypatch, age_s=0.2, inbound_s=0.05)
    assert engine.arrived_s[0] == pytest.approx(1_000.35, abs=1e-3)


def test_the_engine_knows_the_deadline(bench, monkeypatch):
    """On the monotonic clock."""
    engine = clocked(bench, monkeypatch, age_s=0.0)
    left_s = engine.jobs[0].deadline_s - time.monotonic()
    assert 50.0 < left_s < 60.1
