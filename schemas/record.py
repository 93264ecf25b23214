"""What a record is made of before it meets a transport: an origin, an address to answer to, encoded bytes."""

from dataclasses import dataclass

Headers = tuple[tuple[str, bytes], ...]
"""Header names and UTF-8 values, in the order of the record; a name may repeat, the last one counts."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a request came from: `topic/partition/offset`, and `/row` within an Arrow record."""

    topic: str
    partition: int
    offset: int
    row: int | None = None

    def __str__(self) -> str:
        """The wire's spelling."""
        base = f"{self.topic}/{self.partition}/{self.offset}"
        return base if self.row is None else f"{base}/{self.row}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyAddress:
    """Where and how a requester wants its answer, as far as the record could be read.

    `reply_to` is what the header asks for, not yet checked against the tenant's list; None means the default topic of
    streams or of results. `custom_id` is None where the record could not be read that far.
    """

    custom_id: str | None
    correlation_id: str | None
    reply_to: str | None = None
    reply_partition: int | None = None
    stream: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A record ready to be produced."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
