"""The way of a first token: what holds it up, and how that is told."""

import time
from collections.abc import Sequence

import pytest

from pipeline.engine.base import StepOutput
from pipeline.engine.fake import FakeEngine
from pipeline.first_tokens import Leg
from pipeline.scheduling.sequence import Lane

WAIT_S = 5.0


class Slow(FakeEngine):
    """Takes as long for its first step as the log takes to acknowledge the attempt."""

    def step(self, now_s: float) -> Sequence[StepOutput]:
        give_up_s = time.monotonic() + WAIT_S
        while self.outbox._acknowledgements.empty() and time.monotonic() < give_up_s:
            time.sleep(0.001)
        return super().step(now_s)


def test_an_attempt_that_opens_during_a_step_speaks_right_after_it(bench):
    """Not a step later: on a busy engine that would be as long again."""
    worker = bench(Slow())
    worker.engine.outbox = worker.loop.outbox
    worker.run_until(lambda: worker.loop.is_ready and not worker.loop.outbox.unacknowledged_records)
    worker.publish("a", prompt="x", max_tokens=50, ignore_eos=True)
    worker.run_until(lambda: len(worker.loop.answers.requests) == 1)
    (inflight,) = worker.loop.answers.requests
    assert inflight.output_tokens == 1
    assert inflight.answer.first is not None


def test_live_streams_speak_before_flex_work(bench, monkeypatch):
    """Of what one step gave, their events are the first to leave."""
    worker = bench(stream={"flush_interval_ms": 0})
    outbox, answers = worker.loop.outbox, worker.loop.answers
    flush, post = answers.flush, outbox.post
    posts: list[int] = []
    flushes: list[list[Lane]] = []

    def flushing(now_s: float) -> None:
        lanes = {id(inflight.channel): inflight.lane for inflight in answers.requests}
        posts.clear()
        flush(now_s)
        flushes.append([lanes[channel] for channel in posts])

    def posting(channel, *rest):
        posts.append(id(channel))
        return post(channel, *rest)

    monkeypatch.setattr(type(answers), "flush", lambda _, now_s: flushing(now_s))
    monkeypatch.setattr(outbox, "post", posting)
    for name, tier in (("f1", "flex"), ("d", "default"), ("f2", "flex"), ("p", "priority")):
        worker.publish(name, prompt=name, service_tier=tier, max_tokens=100, ignore_eos=True)
    worker.run_until_closed("f1", "d", "f2", "p")
    together = [posted for posted in flushes if {Lane.PRIORITY, Lane.DEFAULT, Lane.FLEX} <= set(posted)]
    assert together
    assert all(posted == sorted(posted) for posted in together)


def test_every_leg_is_told_by_lane(bench):
    """In the report and in the metrics; what comes before and after the engine is told to the policy for live requests alone."""
    worker = bench()
    worker.publish("f", prompt="x", service_tier="flex", max_tokens=5)
    worker.run_until(lambda: worker.closing("f") is not None and not worker.loop.outbox.unacknowledged_records)
    first_tokens = worker.loop.answers.first_tokens
    before = first_tokens.report(time.monotonic())
    assert before["inbound_median_ms"] == before["outbound_median_ms"] == 0.0
    worker.publish("d", prompt="x", max_tokens=5)
    worker.publish("r", prompt="x", max_tokens=5, stream=False)
    worker.run_until(lambda: worker.closing("d") is not None and "r" in worker.results() and not worker.loop.outbox.unacknowledged_records)
    report = first_tokens.report(time.monotonic())
    assert report["lanes"]["priority"] == {"legs": {}, "last": []}
    for lane in ("default", "flex"):
        told = report["lanes"][lane]
        (one,) = told["last"]
        assert [told["legs"][leg]["p95_ms"] for leg in Leg] == one["legs_ms"]
        assert min(one["legs_ms"]) >= 0.0
        counted = [worker.metrics.registry.get_sample_value("penstock_first_token_leg_seconds_count", {"leg": leg, "lane": lane}) for leg in Leg]
        assert counted == [1.0] * len(Leg)
    log_ms, *_, attempt_ms, produce_ms = report["lanes"]["default"]["last"][0]["legs_ms"]
    assert 0.0 <= report["inbound_median_ms"] <= log_ms
    assert report["outbound_median_ms"] == pytest.approx(attempt_ms + produce_ms, abs=0.2)
