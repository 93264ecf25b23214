"""A row inside an engine: made ready by its task, and its answer gathered from the steps."""

from dataclasses import dataclass, field
from typing import Any

from pipeline.engine.base import Engine, Job, StepOutput
from pipeline.offline.answer import Answer
from pipeline.offline.refusals import Fault
from pipeline.offline.tasks import GENERATING
from schemas.errors import EngineError
from schemas.job import Task
from schemas.request import CompletionBody, Request


def prepare(engine: Engine, task: Task, request: Request) -> Job:
    """Validates a row's request against the model and tokenises it; the likelihood of a text is not asked for by its endpoint.

    Raises:
        InvalidRequest: The model does not take it.
    """
    if task is Task.SCORE and isinstance(request.body, CompletionBody):
        return engine.prepare_likelihood(request.body.prompt)
    return engine.prepare(request)


@dataclass(slots=True)
class Gathering:
    """What has come of a row so far; `row` is what its answer is to be called."""

    row: int
    task: Task
    job: Job
    attempts: int = 1
    token_ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def restart(self) -> None:
        """Forgets what a failed attempt gave."""
        self.attempts += 1
        self.token_ids, self.text = [], []

    def take(self, output: StepOutput) -> Answer | None:
        """Adds what a step gave; the answer, once that was the last of it."""
        self.token_ids += output.token_ids
        self.text.append(output.text)
        return None if output.finish_reason is None else self._answer(output)

    def _answer(self, last: StepOutput) -> Answer:
        prompt_tokens, output_tokens = self.job.prompt_tokens, len(self.token_ids)
        if last.usage is not None:
            prompt_tokens, output_tokens = last.usage.prompt_tokens, last.usage.completion_tokens
        values = self._values(last)
        if isinstance(values, Fault):
            return Answer(row=self.row, fault=values)
        return Answer(row=self.row, values=values, prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    def _values(self, last: StepOutput) -> dict[str, Any] | Fault:
        if self.task in GENERATING:
            reason = None if last.finish_reason is None else last.finish_reason.value
            return {"output": "".join(self.text), "output_token_ids": self.token_ids, "finish_reason": reason}
        if last.likelihood is not None:
            known = last.likelihood
            return {"logprob_sum": known.logprob_sum, "token_count": known.token_count, "perplexity": known.perplexity}
        if last.pooled is None:
            return Fault(EngineError.code, "the model gave no numbers for this row")
        row = last.pooled.rows[0]
        match self.task:
            case Task.EMBED:
                return {"embedding": row}
            case Task.CLASSIFY:
                return {"label": last.pooled.labels[int(row.argmax())], "scores": row}
            case _:
                return {"score": float(row[0])}
