"""What is taken in, and what happens to the rest."""

from enum import StrEnum

from pydantic import Field

from pipeline.settings.group import Group
from schemas.limits import MIB, Limits

RECORDS = Limits()


class LimitSettings(Group):
    """Bounds on what is taken in; everything beyond is refused or left in the log."""

    record_bytes: int = Field(default=RECORDS.record_bytes, ge=1_024, le=64 * MIB, description="largest request record")
    record_headers: int = Field(default=RECORDS.headers, ge=1, le=1_000, description="headers per request record")
    rows: int = Field(default=RECORDS.rows, ge=1, le=65_536, description="requests per Arrow record")
    waiting_requests: int = Field(default=2_048, ge=1, description="requests held in memory and not yet running; at the bound partitions pause")
    waiting_tokens: int = Field(default=1_048_576, ge=1, description="their prompt tokens")
    partition_window: int = Field(default=1_024, ge=1, le=1_024, description="offsets taken past the committed one")
    duplicate_window_s: float = Field(default=600.0, ge=0.0, description="how long a finished custom_id is remembered")
    drain_s: float = Field(default=30.0, ge=0.0, description="how long running requests may go on after SIGTERM or a rebalance")

    @property
    def records(self) -> Limits:
        """The bounds on a request record."""
        return Limits(record_bytes=self.record_bytes, headers=self.record_headers, rows=self.rows)


class Overflow(StrEnum):
    """What happens to requests for which the queue has no room."""

    PAUSE = "pause"
    REFUSE = "refuse"


class AdmissionSettings(Group):
    """What happens when more comes than can be served in time."""

    overflow: Overflow = Field(
        default=Overflow.PAUSE,
        description="pause: requests wait in the log; refuse: beyond the queue, or past their deadline by prediction, they get overloaded",
    )
    max_wait_s: float | None = Field(default=None, gt=0.0, description="the queue is full when its predicted wait is longer; unset: any wait")
