"""One line of a doctor's report."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. `advice` says what to do where something is wrong."""

    check: str
    status: Status
    detail: str
    advice: str | None = None
