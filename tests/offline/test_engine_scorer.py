"""Rows on an engine in this process."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.engine.base import Job, StepOutput
from pipeline.engine.fake import FakeEngine
from pipeline.offline.answer import Answer
from pipeline.offline.engine_scorer import EngineScorer
from pipeline.offline.prompts import Asking
from pipeline.offline.refusals import JobRefused
from schemas.errors import EngineError
from schemas.events import FinishReason
from schemas.job import SamplingSpec, Task
from schemas.pooled_results import Pooled
from tests.offline.conftest import make_spec


def answers(engine, spec, texts: Sequence[str], attempts: int = 2) -> list[Answer]:
    """Computes rows, in their order."""
    scorer, asking = EngineScorer(engine, spec.task, max_sequences=4, attempts=attempts), Asking(spec)
    scorer.submit([(row, asking.ask(row, (0, 0, row), {"text": text, "query": "q"})) for row, text in enumerate(texts)])
    done = []
    while len(done) < len(texts):
        done += scorer.poll()
    return [scored.answer for scored in sorted(done, key=lambda scored: scored.ticket)]


def test_rows_get_text_ids_and_counts():
    """What generation gives is put together over steps."""
    spec = make_spec(sampling=SamplingSpec(max_tokens=5, ignore_eos=True))
    first, second = answers(FakeEngine("m"), spec, ["a b", "c"])
    assert (first.row, first.prompt_tokens, first.output_tokens, first.values["finish_reason"]) == (0, 2, 5, "length")
    assert len(first.values["output_token_ids"]) == len(first.values["output"].split()) == 5
    assert second.values["output"] != first.values["output"]


def test_a_prompt_that_is_too_long_is_a_fault_of_its_row():
    """Its neighbours are answered."""
    long, short = answers(FakeEngine("m", context_tokens=32), make_spec(), ["a " * 40, "b"])
    assert (long.fault.code, short.fault) == ("prompt_too_long", None)


def test_texts_are_scored_without_being_continued():
    """The sum over all tokens but the first, and what follows from it."""
    (answer,) = answers(FakeEngine("m"), make_spec(task="score"), ["a b c"])
    assert answer.values["token_count"] == 2
    assert answer.values["perplexity"] == pytest.approx(np.exp(-answer.values["logprob_sum"] / 2))
    (lone,) = answers(FakeEngine("m"), make_spec(task="score"), ["a"])
    assert lone.fault.code == "invalid_request"


class Flaky(FakeEngine):
    """Fails the first attempts at every row."""

    def __init__(self, failures: int):
        super().__init__("m")
        self._left = failures

    def step(self, now_s):
        outputs = super().step(now_s)
        if self._left and outputs:
            self._left -= 1
            self.cancel(outputs[0].key)
            return [StepOutput(key=outputs[0].key, error=EngineError("broken"))]
        return outputs


@pytest.mark.parametrize(("failures", "is_answered"), [(1, True), (2, False)])
def test_a_row_that_fails_in_the_engine_is_tried_again(failures: int, is_answered: bool):
    """As often as the settings say; then it is an error."""
    (answer,) = answers(Flaky(failures), make_spec(sampling=SamplingSpec(max_tokens=3)), ["a"])
    assert (answer.fault is None) is is_answered


class Reads(FakeEngine):
    """A model that reads: two numbers per text."""

    def prepare(self, request):
        return Job(prompt_tokens=1, max_output_tokens=0, choices=1, work=None)

    def add(self, key, job, lane, now_s):
        self.key = key

    def has_work(self):
        return True

    def step(self, now_s):
        pooled = Pooled(rows=np.array([[0.25, 0.75]], np.float32), labels=("no", "yes"))
        return [StepOutput(key=self.key, pooled=pooled, finish_reason=FinishReason.STOP)]


@pytest.mark.parametrize(
    ("task", "values"),
    [(Task.EMBED, {"embedding": [0.25, 0.75]}), (Task.CLASSIFY, {"label": "yes", "scores": [0.25, 0.75]}), (Task.RERANK, {"score": 0.25})],
)
def test_each_task_has_its_columns(task: Task, values: dict):
    """What a model that reads gives is spread over them."""
    (answer,) = answers(Reads("m"), make_spec(task=task), ["a"])
    assert {name: list(value) if isinstance(value, np.ndarray) else value for name, value in answer.values.items()} == values


def test_a_model_that_does_not_do_the_task_is_found_out_first():
    """A job is not told so row by row."""
    spec = make_spec(task="embed")
    with pytest.raises(JobRefused, match="does not serve /v1/embeddings"):
        EngineScorer(FakeEngine("m"), spec.task, max_sequences=1, attempts=1).check(Asking(spec))


def test_what_is_abandoned_is_not_answered():
    """Nothing of it follows."""
    spec = make_spec()
    scorer, asking = EngineScorer(FakeEngine("m"), spec.task, max_sequences=4, attempts=1), Asking(spec)
    scorer.submit([(1, asking.ask(0, (0, 0, 0), {"text": "a"}))])
    scorer.abandon()
    assert [scored for _ in range(80) for scored in scorer.poll()] == []
