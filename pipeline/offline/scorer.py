"""The seam between a job and what computes its rows: an engine in this process, or one behind a door."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.offline.answer import Answer
from pipeline.offline.prompts import Ask

Ticket = int
"""The job's own number for a row in flight."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The answer to what was submitted under that ticket."""

    ticket: Ticket
    answer: Answer


class Scorer(Protocol):
    """Computes rows, many at a time; answers come in any order, one per ticket."""

    @property
    def dtype(self) -> str:
        """Precision of the model, for the record."""
        ...

    @property
    def depth(self) -> int:
        """How many rows it wants in flight, so that it never waits for the next."""
        ...

    def submit(self, asks: Sequence[tuple[Ticket, Ask]]) -> None:
        """Takes rows. It does not wait for anything; a row that the model does not take gets an answer with a fault."""
        ...

    def poll(self) -> Sequence[Scored]:
        """Computes for a moment, at most a step, and returns what is done. Without anything in flight it returns at once."""
        ...

    def abandon(self) -> None:
        """Drops all that is in flight; no answer of it follows."""
        ...
