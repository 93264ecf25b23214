"""The loop while an engine would rather have company: neither asleep nor spinning."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.engine.base import EngineStats, StepOutput
from pipeline.engine.fake import FakeEngine
from schemas.events import End


class PatientEngine(FakeEngine):
    """Puts its steps off until a moment that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.until_s = 0.0
        self.stepped_s: list[float] = []

    def stats(self) -> EngineStats:
        return replace(super().stats(), waits_until_s=self.until_s if self.has_work() else 0.0)

    def step(self, now_s: float) -> Sequence[StepOutput]:
        self.stepped_s.append(now_s)
        return super().step(now_s)


def test_a_step_that_is_put_off_is_waited_for_in_the_poll(bench, monkeypatch):
    """The loop polls for exactly what is left, does not step before, and steps after; idle it waits as long as ever."""
    worker = bench(PatientEngine())
    worker.publish("a", prompt="x", max_tokens=3, ignore_eos=True)
    clock = {"now_s": 1_000.0}
    monkeypatch.setattr(worker.loop, "clock_s", lambda: clock["now_s"])
    worker.engine.until_s = 1_000.04
    polls: list[float] = []
    poll = worker.loop.intake.consumer.poll

    def watched(wait_s: float, most: int):
        polls.append(wait_s)
        return poll(0.0, most)

    monkeypatch.setattr(worker.loop.intake.consumer, "poll", watched)
    worker.run_until(lambda: worker.engine.stats().waiting == 1)
    polls.clear()
    worker.loop.step(1_000.0)
    worker.loop.step(1_000.03)
    assert [round(wait_s, 6) for wait_s in polls] == [0.04, 0.01]
    assert worker.engine.stepped_s == []
    clock["now_s"] = 1_000.041
    worker.loop.step(1_000.041)
    assert polls[-1] == 0.0
    assert worker.engine.stepped_s == [1_000.041]
    worker.engine.until_s = 0.0
    worker.run_until_closed("a")
    assert isinstance(worker.closing("a"), End)
