"""Rows computed by an engine in this process, in the lane that goes last."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engine.base import Engine, Job, StepOutput
from pipeline.offline.answer import Answer
from pipeline.offline.prompts import Ask, Asking
from pipeline.offline.refusals import Fault, JobRefused
from pipeline.offline.scorer import Scored, Ticket
from pipeline.scheduling.sequence import Lane
from schemas.errors import EngineError, InvalidRequest, PenstockError
from schemas.events import FinishReason
from schemas.job import Task
from schemas.request import CompletionBody

AHEAD = 3
"""Rows in flight for each one that runs: a step never lacks rows, and a kill costs few."""


@dataclass(slots=True)
class _Running:
    ask: Ask
    job: Job
    attempts: int = 1
    token_ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


class EngineScorer:
    """Computes the rows of one task.

    Args:
        engine: Stepped by this scorer alone, in the thread that polls.
        task: Says what of the output makes the result columns.
        max_sequences: How many the engine runs at a time.
        attempts: How often a row that fails in the engine is tried.
    """

    def __init__(self, engine: Engine, task: Task, *, max_sequences: int, attempts: int, clock_s: Callable[[], float] = time.monotonic):
        self._engine = engine
        self._task = task
        self._attempts = attempts
        self._clock_s = clock_s
        self._running: dict[Ticket, _Running] = {}
        self._refused: list[Scored] = []
        self.depth = AHEAD * max_sequences

    def check(self, asking: Asking) -> None:
        """Asks the model whether the task is one for it, before a whole job is told row by row that it is not.

        Raises:
            JobRefused: It is not.
        """
        try:
            self._prepare(asking.probe())
        except InvalidRequest as error:
            raise JobRefused(f"the model does not do this task: {error.message}") from None

    @property
    def dtype(self) -> str:
        """The engine's."""
        return self._engine.info.dtype

    def submit(self, asks: Sequence[tuple[Ticket, Ask]]) -> None:
        """Tokenises and queues."""
        for ticket, ask in asks:
            try:
                job = self._prepare(ask)
            except InvalidRequest as error:
                self._refused.append(_failed(ticket, ask, error))
                continue
            self._running[ticket] = _Running(ask, job)
            self._engine.add(ticket, job, Lane.FLEX, self._clock_s())

    def poll(self) -> Sequence[Scored]:
        """Runs a step."""
        done, self._refused = self._refused, []
        if self._engine.has_work():
            for output in self._engine.step(self._clock_s()):
                scored = self._take(output)
                if scored is not None:
                    done.append(scored)
        return done

    def abandon(self) -> None:
        """Cancels."""
        for ticket in self._running:
            self._engine.cancel(ticket)
        self._running.clear()
        self._refused.clear()

    def _prepare(self, ask: Ask) -> Job:
        body = ask.request.body
        if self._task is Task.SCORE and isinstance(body, CompletionBody):
            return self._engine.prepare_likelihood(body.prompt)
        return self._engine.prepare(ask.request)

    def _take(self, output: StepOutput) -> Scored | None:
        running = self._running.get(output.key)
        if running is None:
            return None
        if output.error is not None:
            return self._fail(output.key, running, output.error)
        running.token_ids += output.token_ids
        running.text.append(output.text)
        if output.finish_reason is None:
            return None
        del self._running[output.key]
        return Scored(output.key, self._answer(running, output))

    def _fail(self, ticket: Ticket, running: _Running, error: PenstockError) -> Scored | None:
        if isinstance(error, EngineError) and running.attempts < self._attempts:
            self._running[ticket] = _Running(running.ask, running.job, running.attempts + 1)
            self._engine.add(ticket, running.job, Lane.FLEX, self._clock_s())
            return None
        del self._running[ticket]
        return _failed(ticket, running.ask, error)

    def _answer(self, running: _Running, last: StepOutput) -> Answer:
        row, prompt_tokens = running.ask.row, running.job.prompt_tokens
        if last.usage is not None:
            prompt_tokens, output_tokens = last.usage.prompt_tokens, last.usage.completion_tokens
        else:
            output_tokens = len(running.token_ids)
        values = self._values(running, last)
        if isinstance(values, Fault):
            return Answer(row=row, fault=values)
        return Answer(row=row, values=values, prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    def _values(self, running: _Running, last: StepOutput) -> dict[str, Any] | Fault:
        if self._task in (Task.GENERATE, Task.CHAT):
            return {"output": "".join(running.text), "output_token_ids": running.token_ids, "finish_reason": _spell(last.finish_reason)}
        if last.likelihood is not None:
            known = last.likelihood
            return {"logprob_sum": known.logprob_sum, "token_count": known.token_count, "perplexity": known.perplexity}
        if last.pooled is None:
            return Fault(EngineError.code, "the model gave no numbers for this row")
        row = last.pooled.rows[0]
        match self._task:
            case Task.EMBED:
                return {"embedding": row}
            case Task.CLASSIFY:
                return {"label": last.pooled.labels[int(row.argmax())], "scores": row}
            case _:
                return {"score": float(row[0])}


def _failed(ticket: Ticket, ask: Ask, error: PenstockError) -> Scored:
    return Scored(ticket, Answer(row=ask.row, fault=Fault.of(error)))


def _spell(reason: FinishReason | None) -> str | None:
    return None if reason is None else reason.value
