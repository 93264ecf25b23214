"""Rows computed by an engine in this process, in the lane that goes last."""

import time
from collections.abc import Callable, Sequence

from pipeline.engine.base import Engine, StepOutput
from pipeline.offline.answer import Answer
from pipeline.offline.gathering import Gathering, prepare
from pipeline.offline.prompts import Ask, Asking
from pipeline.offline.refusals import Fault, JobRefused
from pipeline.offline.scorer import Scored, Ticket
from pipeline.scheduling.sequence import Lane
from schemas.errors import EngineError, InvalidRequest, PenstockError
from schemas.job import Task

AHEAD = 3
"""Rows in flight for each one that runs: a step never lacks rows, and a kill costs few."""


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
        self._running: dict[Ticket, Gathering] = {}
        self._refused: list[Scored] = []
        self.depth = AHEAD * max_sequences

    def check(self, asking: Asking) -> None:
        """Asks the model whether the task is one for it, before a whole job is told row by row that it is not.

        Raises:
            JobRefused: It is not.
        """
        try:
            prepare(self._engine, self._task, asking.probe().request)
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
                job = prepare(self._engine, self._task, ask.request)
            except InvalidRequest as error:
                self._refused.append(_failed(ticket, ask.row, error))
                continue
            self._running[ticket] = Gathering(ask.row, self._task, job)
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

    def _take(self, output: StepOutput) -> Scored | None:
        gathering = self._running.get(output.key)
        if gathering is None:
            return None
        if output.error is not None:
            return self._fail(output.key, gathering, output.error)
        answer = gathering.take(output)
        if answer is None:
            return None
        del self._running[output.key]
        return Scored(output.key, answer)

    def _fail(self, ticket: Ticket, gathering: Gathering, error: PenstockError) -> Scored | None:
        if isinstance(error, EngineError) and gathering.attempts < self._attempts:
            gathering.restart()
            self._engine.add(ticket, gathering.job, Lane.FLEX, self._clock_s())
            return None
        del self._running[ticket]
        return _failed(ticket, gathering.row, error)


def _failed(ticket: Ticket, row: int, error: PenstockError) -> Scored:
    return Scored(ticket, Answer(row=row, fault=Fault.of(error)))
