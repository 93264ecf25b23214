"""Why a job does not go on, and why a row is among the errors."""

from dataclasses import dataclass

from schemas.errors import PenstockError


class JobRefused(Exception):
    """The job cannot be planned or resumed; the message names the cause and the way out."""


class JobBusy(Exception):
    """Another process works on what is left of the job."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one row failed: a wire code, and a message without any of the row's text."""

    code: str
    message: str

    @classmethod
    def of(cls, error: PenstockError) -> "Fault":
        """The fault that an error of the tree stands for."""
        return cls(error.code, error.message)
