"""More than can be served: what waits, what is refused, and what the prediction says."""

import time

import pytest

from pipeline.engine.base import EngineStats, Job
from pipeline.engine.fake import FakeEngine
from pipeline.overload import Bounds, Overload, Throughput
from pipeline.settings import Overflow
from schemas.errors import Overloaded
from schemas.events import End, Error

LONG = {"max_tokens": 400, "ignore_eos": True}


class Queued:
    """An engine of which only the queue is seen."""

    def __init__(self, waiting: int = 0, waiting_tokens: int = 0):
        self.info = FakeEngine("m").info
        self._stats = EngineStats(waiting=waiting, waiting_tokens=waiting_tokens, batch_tokens=100)

    def stats(self) -> EngineStats:
        return self._stats


def overload(engine: Queued, policy: Overflow = Overflow.REFUSE, wait_s: float | None = None) -> Overload:
    """Bounds of ten requests and a thousand tokens; the engine makes a hundred tokens per second."""
    watched = Overload(bounds=Bounds(waiting_requests=10, waiting_tokens=1_000, wait_s=wait_s), policy=policy)
    watched.note_step("m", engine.stats(), 1.0)
    watched.survey([engine])
    return watched


def test_the_throughput_is_that_of_late():
    """Tokens per second while computing, known from the first step on, and soon another when the machine slows down."""
    rate = Throughput()
    assert rate.tokens_per_s is None
    rate.note(100, 0.1)
    assert rate.tokens_per_s == pytest.approx(1_000)
    for _ in range(1_000):
        rate.note(10, 0.1)
    assert rate.tokens_per_s == pytest.approx(100, rel=0.01)


def test_the_predicted_wait_is_what_waits_over_what_is_made():
    """500 tokens at 100 per second, and 200 more once a request of this poll is in."""
    watched = overload(Queued(1, 500))
    assert watched.wait_s("m") == pytest.approx(5.0)
    watched.note_admitted("m", Job(prompt_tokens=200, max_output_tokens=1, choices=1, work=None))
    assert watched.wait_s("m") == pytest.approx(7.0)


@pytest.mark.parametrize(("engine", "wait_s"), [(Queued(10, 10), None), (Queued(1, 1_000), None), (Queued(1, 300), 2.9)])
def test_a_full_queue_pauses_or_refuses_as_the_policy_says(engine, wait_s):
    """Full by requests, by tokens, by the predicted wait: held back under one policy, refused with a time under the other."""
    assert overload(engine, Overflow.PAUSE, wait_s).holds_back()
    assert overload(engine, Overflow.PAUSE, wait_s).refusal("m", None) is None
    assert not overload(engine, Overflow.REFUSE, wait_s).holds_back()
    reason, error = overload(engine, Overflow.REFUSE, wait_s).refusal("m", None)
    assert reason == "queue"
    assert isinstance(error, Overloaded)
    assert error.retry_after_s >= 0.5


def test_a_deadline_that_cannot_be_kept_is_refused_at_once():
    """Five seconds of work before it, four until the deadline; with six it goes in."""
    watched = overload(Queued(1, 500))
    reason, error = watched.refusal("m", 4.0)
    assert (reason, error.retry_after_s) == ("deadline", pytest.approx(5.0))
    assert watched.refusal("m", 6.0) is None


def test_there_is_room_while_nothing_is_full():
    """Neither policy minds."""
    for policy in Overflow:
        watched = overload(Queued(9, 999), policy, wait_s=60.0)
        assert not watched.holds_back()
        assert watched.refusal("m", None) is None


def test_beyond_the_queue_a_worker_that_refuses_says_so_and_serves_the_rest(bench):
    """One runs, some wait, the others get `overloaded` with a time; everything is answered, and the log is empty."""
    worker = bench(FakeEngine(max_sequences=1), limits={"waiting_requests": 3}, admission={"overflow": "refuse"})
    names = [f"r{number}" for number in range(40)]
    for name in names:
        worker.publish(name, prompt=name, max_tokens=30, ignore_eos=True)
    worker.run_until_closed(*names)
    closings = [worker.closing(name) for name in names]
    refused = [closing for closing in closings if isinstance(closing, Error)]
    assert {error.code for error in refused} == {"overloaded"}
    assert all((error.retry_after_ms or 0) >= 500 for error in refused)
    assert 3 <= sum(isinstance(closing, End) for closing in closings) < 40
    worker.run_until(lambda: worker.lag() == 0)
    assert worker.metrics.registry.get_sample_value("penstock_overloaded_total", {"reason": "queue"}) == len(refused)


def test_a_worker_that_refuses_tells_a_late_request_at_once(bench):
    """Behind minutes of prompts, a request with a deadline hears now that it cannot be kept; one without waits."""
    worker = bench(FakeEngine(max_sequences=1, token_budget=16, step_s=0.01), admission={"overflow": "refuse"})
    worker.publish("runs", prompt="x", key="k", **LONG)
    worker.run_until(lambda: len(worker.tokens("runs")) > 5)
    worker.publish("waits", prompt="y " * 3_000, key="k", max_tokens=1)
    worker.run_until(lambda: worker.engine.stats().waiting == 1)
    worker.publish("late", prompt="z", key="k", headers={"deadline": str(int(time.time() * 1000) + 1_500)})
    worker.run_until_closed("late")
    assert worker.closing("late").code == "overloaded"
    assert worker.closing("waits") is None
