"""Why a job does not go on, and why a row is among the errors."""

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import PenstockError


class JobRefused(Exception):
    """The job cannot be planned or resumed; the message names the cause and the way out."""


class ResultGone(JobRefused):
    """A file of results is committed and not there as it was written."""

    def __init__(self, file: str, commits: Path):
        super().__init__(f"{file} is committed and not there as it was written: restore it, or remove its commit in {commits} and run the job again")


class JobBusy(Exception):
    """Another process works on what is left of the job."""


class StoreAway(OSError):
    """A store or a share of a job's inputs or results is away just now; what is answered is kept, and the job goes on when it is back."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one row failed: a wire code, and a message without any of the row's text."""

    code: str
    message: str

    @classmethod
    def of(cls, error: PenstockError) -> "Fault":
        """The fault that an error of the tree stands for."""
        return cls(error.code, error.message)
