"""Rows computed by a live worker behind its door."""

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from pipeline.offline.answer import Answer
from pipeline.offline.flight.address import WorkerAddress, WorkerAway
from pipeline.offline.flight.session import Session, WorkerDied
from pipeline.offline.flight.stream import to_body
from pipeline.offline.flight.wire import Wanted, Welcome
from pipeline.offline.prompts import Ask, Asking
from pipeline.offline.refusals import Fault, JobRefused
from pipeline.offline.scorer import Scored, Ticket
from pipeline.offline.tasks import GENERATING
from schemas.errors import EngineError
from schemas.job import JobSpec
from schemas.json_value import dump

__all__ = ["FlightScorer", "WorkerAddress", "WorkerAway", "WorkerDied"]

PATIENCE_S = 120.0
"""How long rows wait for a worker to come back, or to have room, before the job gives up for now."""
AUTO_DTYPE = "auto"
PROBE_LIMITS = {"max_tokens": 1, "min_tokens": 0}


class FlightScorer:
    """Computes the rows of one job through a worker's door. Use it as a context manager: entering connects.

    A fault that a retry can help (the worker drains, restarts, or has no room) is waited out, and rows without answers are sent again.

    Args:
        address: Where the worker is.
        spec: The job.
        patience_s: How long to wait for a worker.
    """

    def __init__(self, address: WorkerAddress, spec: JobSpec, *, patience_s: float = PATIENCE_S):
        self._spec = spec
        self._dtype = ""
        self._depth = 0
        self._session = Session(address, Wanted(task=spec.task, model=spec.model.name), self._accept, patience_s=patience_s)
        self._asks: dict[Ticket, Ask] = {}
        self._refused: list[Scored] = []

    def __enter__(self) -> Self:
        """Connects.

        Raises:
            WorkerAway: No worker answers in time.
            JobRefused: It serves no such model, or another one under its name.
        """
        self._session.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Lets go."""
        self.abandon()

    def check(self, asking: Asking) -> None:
        """Asks the model whether the task is one for it, before a whole job is told row by row that it is not.

        Raises:
            JobRefused: It is not.
            WorkerAway: No worker answers in time.
        """
        probe = asking.probe()
        fields = {**probe.fields, **PROBE_LIMITS} if self._spec.task in GENERATING else probe.fields
        self._session.send([(0, dump(fields))])
        while not (arrived := self._session.poll()):
            pass
        fault = arrived[0][1].fault
        if fault is not None and fault.code != EngineError.code:
            raise JobRefused(f"the model does not do this task: {fault.message}")

    @property
    def dtype(self) -> str:
        """What the worker computes in."""
        return self._dtype

    @property
    def depth(self) -> int:
        """As many rows as the worker holds of one caller."""
        return self._depth

    def submit(self, asks: Sequence[tuple[Ticket, Ask]]) -> None:
        """Queues rows for the way."""
        rows = []
        for ticket, ask in asks:
            body = to_body(ask.fields)
            if isinstance(body, Fault):
                self._refused.append(Scored(ticket, Answer(row=ask.row, fault=body)))
                continue
            self._asks[ticket] = ask
            rows.append((ticket, body))
        self._session.send(rows)

    def poll(self) -> Sequence[Scored]:
        """Waits a moment for answers.

        Raises:
            WorkerAway: No worker came back in time.
            WorkerDied: It died of something, perhaps of a row.
            JobRefused: Another one came back, which serves another model, or does not want these rows.
        """
        done, self._refused = self._refused, []
        if done:
            return done
        return [Scored(ticket, replace(answer, row=self._asks.pop(ticket).row)) for ticket, answer in self._session.poll()]

    def abandon(self) -> None:
        """Ends the exchange; the worker cancels what it has of it."""
        self._session.abandon()
        self._asks.clear()
        self._refused.clear()

    def _accept(self, welcome: Welcome) -> None:
        """Makes sure that it is the job's model, by its files and its precision."""
        wanted = self._spec.model
        served = next((served for served in welcome.models if served.spec.name == wanted.name), None)
        if served is None:
            names = ", ".join(sorted(served.spec.name for served in welcome.models))
            raise JobRefused(f"the worker serves no model {wanted.name!r}; it serves {names}")
        if served.spec.fingerprint != wanted.fingerprint:
            raise JobRefused(f"the worker's model {wanted.name!r} is another one than the job's: its files differ")
        if wanted.dtype not in (AUTO_DTYPE, served.dtype) and served.spec.dtype != wanted.dtype:
            raise JobRefused(f"the worker computes {wanted.name!r} in {served.dtype}, and the job wants {wanted.dtype}")
        self._dtype, self._depth = served.dtype, welcome.depth
