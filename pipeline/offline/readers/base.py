"""The seam between a job and a file: what is in it, and the rows of one of its groups, a few at a time."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.offline.refusals import Fault
from schemas.job import RowGroup

PIECE_BYTES = 4 * 1024 * 1024
"""What is read at a time, as far as that can be known before."""
PIECE_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds: an Arrow schema, and its groups in order."""

    schema: Any
    groups: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows as a record batch. `faults` are of rows that could not be read, by place in it; their columns are null."""

    batch: Any
    faults: Mapping[int, Fault] = field(default_factory=dict)


class Reader(Protocol):
    """One file, open."""

    def survey(self) -> Survey:
        """Reads through as much of the file as it takes to know its rows.

        Raises:
            JobRefused: It is not a file of its kind.
            StoreAway: It is away.
        """
        ...

    def read(self, group: int, start: int, rows: int, schema: Any, columns: Collection[str]) -> Iterator[Piece]:
        """Reads rows of a group from the ordinal `start` on, of the columns named only. What a file lacks of them is left out.

        Args:
            group: Number of the group in the survey.
            start: Ordinal of the first row.
            rows: How many.
            schema: The plan's, which says what lines of text become.
            columns: What to read.

        Raises:
            JobRefused: The file is not what it was when it was surveyed.
            StoreAway: It is away.
        """
        ...

    def close(self) -> None:
        """Closes the file."""
        ...
