"""Rows computed by a live worker behind its door."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from pipeline.offline.flight.address import WorkerAddress
from pipeline.offline.prompts import Ask, Asking
from pipeline.offline.scorer import Scored, Ticket
from schemas.job import JobSpec

PATIENCE_S = 120.0
"""How long rows wait for a worker to come back, or to have room, before the job gives up for now."""


class WorkerDied(Exception):
    """The worker's process ended with rows of this job in flight: one of them may have been why.

    It is no `OSError`: a job that sees it ends its attempt at a shard as a death does, and finds the row by running suspects alone.
    """


class FlightScorer:
    """Computes the rows of one job through a worker's door. Use it as a context manager: entering connects.

    A fault that a retry can help (the worker drains, restarts, or has no room) is waited out, and rows without answers are sent again.

    Args:
        address: Where the worker is.
        spec: The job.
        patience_s: How long to wait for a worker.
        clock_s: The monotonic clock.
    """

    def __init__(self, address: WorkerAddress, spec: JobSpec, *, patience_s: float = PATIENCE_S, clock_s: Callable[[], float] = time.monotonic):
        self._address = address
        self._spec = spec
        self._patience_s = patience_s
        self._clock_s = clock_s

    def __enter__(self) -> Self:
        """Connects.

        Raises:
            WorkerAway: No worker answers in time.
            JobRefused: It serves no such model, or another one under its name.
        """
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Lets go."""

    def check(self, asking: Asking) -> None:
        """Asks the model whether the task is one for it, before a whole job is told row by row that it is not.

        Raises:
            JobRefused: It is not.
        """
        raise NotImplementedError

    @property
    def dtype(self) -> str:
        """What the worker computes in."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """As many rows as the worker holds of one caller."""
        raise NotImplementedError

    def submit(self, asks: Sequence[tuple[Ticket, Ask]]) -> None:
        """Queues rows for the way."""
        raise NotImplementedError

    def poll(self) -> Sequence[Scored]:
        """Waits a moment for answers.

        Raises:
            WorkerAway: No worker came back in time.
            WorkerDied: It died of something, perhaps of a row.
        """
        raise NotImplementedError

    def abandon(self) -> None:
        """Ends the exchange; the worker cancels what it has of it."""
        raise NotImplementedError
