"""What a contender's turn gives, and who can take one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One turn: seconds of wall and of processors, from the first row taken to the results written, and with the process around it.

    `tokens` are those of prompts and outputs, where the contender counts them.
    """

    scoring_s: float
    scoring_cpu_s: float
    process_s: float
    process_cpu_s: float
    results: tuple[Path, ...]
    tokens: int | None = None


class Contender(Protocol):
    """Takes turns."""

    def run(self, source: Path, out: Path) -> Ran:
        """Does all rows of a Parquet file; `out` is a path that is not there yet.

        Raises:
            Failed: It did not.
        """
        ...
