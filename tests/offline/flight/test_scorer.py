"""Jobs whose rows go through a door."""

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.engine.fake import FakeEngine
from pipeline.offline.answer import Answer
from pipeline.offline.engine_scorer import EngineScorer
from pipeline.offline.flight.client import FlightScorer, WorkerAway, WorkerDied
from pipeline.offline.prompts import Asking
from pipeline.offline.refusals import JobRefused
from schemas.errors import EngineError
from schemas.job import ModelSpec, SamplingSpec
from tests.offline.conftest import make_spec
from tests.waiting import wait_for

LONG = SamplingSpec(max_tokens=400, ignore_eos=True)


def asks(spec: Any, texts: Sequence[str]) -> list[Any]:
    """Rows with their tickets."""
    asking = Asking(spec)
    return [(row, asking.ask(row, (0, 0, row), {"text": text, "query": "q"})) for row, text in enumerate(texts)]


def collect(scorer: Any, count: int) -> list[Answer]:
    """Waits for answers; in the order of tickets."""
    done: list[Any] = []
    while len(done) < count:
        done += scorer.poll()
    return [scored.answer for scored in sorted(done, key=lambda scored: scored.ticket)]


@pytest.mark.parametrize("task", ["generate", "chat", "score"])
def test_answers_are_those_of_an_engine_in_process(house, task: str):
    """Row for row, the faulty ones too."""
    spec = make_spec(task=task, sampling=SamplingSpec(max_tokens=9))
    rows = asks(spec, [f"row {number} " * (1 + number % 3) for number in range(70)] + ["word " * 5_000])
    here = EngineScorer(FakeEngine("m"), spec.task, max_sequences=8, attempts=2)
    here.submit(rows)
    with FlightScorer(house().address(), spec) as there:
        there.check(Asking(spec))
        there.submit(rows)
        answers = collect(there, len(rows))
    assert answers == collect(here, len(rows))
    assert answers[-1].fault is not None


def test_what_is_abandoned_is_cancelled_and_not_answered(house):
    """The worker has nothing of it left; the scorer takes new rows."""
    spec, one = make_spec(sampling=LONG), house(FakeEngine("m", max_sequences=8, step_s=0.002))
    with FlightScorer(one.address(), spec) as scorer:
        scorer.submit(asks(spec, ["a b"] * 12))
        wait_for(lambda: one.rows_in_engine() == 12)
        scorer.abandon()
        wait_for(lambda: one.rows_in_engine() == 0)
        scorer.submit(asks(spec, ["c"]))
        assert len(collect(scorer, 1)) == 1


def test_abandoning_again_and_again_harms_nobody(house):
    """The two sides of a call must not both say that no more comes: gRPC would abort the caller's process, once in a hundred times."""
    spec, one = make_spec(sampling=LONG), house(FakeEngine("m", max_sequences=8, step_s=0.002))
    with FlightScorer(one.address(), spec) as scorer:
        for _ in range(100):
            scorer.submit(asks(spec, ["a b"] * 12))
            scorer.poll()
            scorer.abandon()
        scorer.submit(asks(spec, ["c"]))
        assert len(collect(scorer, 1)) == 1


def test_rows_are_sent_again_after_a_drain(house):
    """To the worker that comes after the one that said goodbye; each is answered once."""
    spec = make_spec(sampling=SamplingSpec(max_tokens=30, ignore_eos=True))
    first = house(FakeEngine("m", max_sequences=4, step_s=0.002), {"url": f"unix://{house().settings.data_dir}/door"})
    with FlightScorer(first.address(), spec, patience_s=20) as scorer:
        scorer.submit(asks(spec, [f"row {number}" for number in range(40)]))
        early = collect(scorer, 1)
        first.call(first.desk.drain)
        first.close()
        house(None, {"url": first.door.uri}, instance="two")
        late = collect(scorer, 40 - len(early))
    assert sorted(answer.row for answer in early + late) == list(range(40))


def test_a_worker_that_dies_with_rows_is_told_from_one_that_drains(house):
    """The job hears of it, so that it can look for the row that did it; the scorer can go on."""
    spec = make_spec(sampling=LONG)
    first = house(FakeEngine("m", max_sequences=4, step_s=0.002), {"url": f"unix://{house().settings.data_dir}/door"})
    with FlightScorer(first.address(), spec, patience_s=20) as scorer:
        scorer.submit(asks(spec, ["a", "b"]))
        wait_for(lambda: first.rows_in_engine() == 2)
        first.call(first.desk.close)
        first.close()
        house(None, {"url": first.door.uri}, instance="two")
        with pytest.raises(WorkerDied):
            collect(scorer, 1)
        scorer.abandon()
        scorer.submit(asks(spec, ["a", "b"]))
        assert len(collect(scorer, 2)) == 2


def test_a_worker_that_loads_is_waited_for(house):
    """And one that never comes is given up."""
    one = house(starts=False)
    with pytest.raises(WorkerAway, match="loads its models"), FlightScorer(one.address(), make_spec(), patience_s=0.2):
        pass
    one.start()
    with FlightScorer(one.address(), make_spec()) as scorer:
        assert (scorer.dtype, scorer.depth) == ("none", one.welcome.depth)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"name": "other"}, "no model 'other'; it serves m"), ({"fingerprint": "g"}, "its files differ"), ({"dtype": "float32"}, "wants float32")],
)
def test_a_worker_with_another_model_is_refused(house, changes: dict[str, str], said: str):
    """By name, files and precision."""
    model = ModelSpec(**{"name": "m", "source": "here", "fingerprint": "f", "dtype": "auto"} | changes)
    spec = make_spec().model_copy(update={"model": model})
    with pytest.raises(JobRefused, match=said), FlightScorer(house().address(), spec):
        pass


def test_a_task_that_the_model_does_not_do_is_found_out_first(house):
    """A job is not told so row by row."""
    spec = make_spec(task="embed")
    with FlightScorer(house().address(), spec) as scorer, pytest.raises(JobRefused, match="does not serve /v1/embeddings"):
        scorer.check(Asking(spec))


def test_a_row_that_is_too_long_for_the_door_is_a_fault_of_its_own(house):
    """It does not leave this machine, and its neighbours are answered."""
    spec = make_spec()
    with FlightScorer(house().address(), spec) as scorer:
        scorer.submit(asks(spec, ["x" * 1_100_000, "y"]))
        long, short = collect(scorer, 2)
    assert (long.fault.code, short.fault) == ("record_too_large", None)


class Flaky(FakeEngine):
    """Fails the first attempts at every row."""

    failures = 1

    def step(self, now_s):
        outputs = super().step(now_s)
        if self.failures and outputs:
            from pipeline.engine.base import StepOutput

            self.failures -= 1
            self.cancel(outputs[0].key)
            return [StepOutput(key=outputs[0].key, error=EngineError("broken"))]
        return outputs


@pytest.mark.parametrize(("failures", "code"), [(1, None), (2, "engine_error")])
def test_a_row_that_fails_in_the_engine_is_tried_again(house, failures: int, code: str | None):
    """As often as the settings say; then it is an error of that row."""
    engine, spec = Flaky("m"), make_spec(sampling=SamplingSpec(max_tokens=3))
    engine.failures = failures
    with FlightScorer(house(engine).address(), spec) as scorer:
        scorer.submit(asks(spec, ["a"]))
        (answer,) = collect(scorer, 1)
    assert (answer.fault and answer.fault.code) == code
