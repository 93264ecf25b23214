"""Everything that the log holds about one request."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.cli.log import history, partitions_of
from pipeline.client import Reader, Reading
from pipeline.delivery.routes import Routes
from pipeline.settings import Settings
from pipeline.transport.base import Partition, Producer, Record, Transport
from schemas.codec import Limits, Refusal, decode_requests
from schemas.control import Cancel, decode_control
from schemas.dead_letter import DeadLetter, decode_dead_letter
from schemas.errors import PenstockError
from schemas.headers import ARROW_TYPE, CONTENT_TYPE
from schemas.record import Origin, ReplyAddress
from schemas.request import Request

ANY_SIZE = Limits(record_bytes=64 * 1024 * 1024, headers=1_000, header_bytes=1024 * 1024, rows=65_536)
"""What a worker would refuse is shown all the same."""
CLOCK_SLACK_MS = 60_000
"""Timestamps of different topics may come from different clocks."""


@dataclass(slots=True, kw_only=True)
class Dossier:
    """What was found, each list in the order of the log."""

    custom_id: str
    requests: list[tuple[Request | Refusal, int]] = field(default_factory=list)
    replies: list[Reading] = field(default_factory=list)
    cancels_ms: list[int] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether the log knows nothing of the request."""
        return not (self.requests or self.replies or self.cancels_ms or self.dead_letters)


def gather(log: Transport, settings: Settings, custom_id: str, since_ms: int) -> Dossier:
    """Looks for a request that was written at `since_ms` (epoch milliseconds) or later, and for all that followed."""
    routes, topics, found = Routes.of(settings), settings.topics, Dossier(custom_id=custom_id)
    found.requests = list(_requests(log, routes, custom_id, since_ms))
    from_ms = max(since_ms, min((written_ms for _, written_ms in found.requests), default=since_ms) - CLOCK_SLACK_MS)
    with log.producer() as producer:
        replies = _reply_partitions(found, routes, producer)
    reader = Reader()
    found.replies = [r for record in history(log, replies, from_ms) if (r := reader.read(record)) is not None and r.custom_id == custom_id]
    found.cancels_ms = [
        record.timestamp_ms
        for record in history(log, partitions_of(log, [topics.control]), from_ms)
        if decode_control(record.value) == Cancel(custom_id)
    ]
    origins = {str(request.origin) for request, _ in found.requests}
    found.dead_letters = [
        letter for record in history(log, partitions_of(log, [topics.dlq]), from_ms) if (letter := _letter(record, custom_id, origins)) is not None
    ]
    return found


def _requests(log: Transport, routes: Routes, custom_id: str, since_ms: int) -> Iterator[tuple[Request | Refusal, int]]:
    for record in history(log, partitions_of(log, routes.request_topics), since_ms):
        if not _may_name(record, custom_id):
            continue
        origin = Origin(*record.partition, record.offset)
        for request in decode_requests(record.value, record.headers, origin, record.timestamp_ms, ANY_SIZE):
            if _name(request) == custom_id:
                yield request, record.timestamp_ms


def _may_name(record: Record, custom_id: str) -> bool:
    """Spares most records the parsing: JSON spells a name plainly or with a backslash, Arrow may compress it."""
    value = record.value or b""
    is_arrow = (CONTENT_TYPE, ARROW_TYPE.encode()) in record.headers
    return is_arrow or custom_id.encode() in value or b"\\" in value


def _name(request: Request | Refusal) -> str | None:
    return request.reply.custom_id if isinstance(request, Refusal) else request.custom_id


def _reply_partitions(found: Dossier, routes: Routes, producer: Producer) -> frozenset[Partition]:
    """Where the answers are: as the requests say, or else where a request of that name is answered by default."""
    asked = [(request.reply, routes.tenant(request.origin.topic)) for request, _ in found.requests]
    if not asked:
        tenant = routes.tenant(routes.request_topics[0])
        asked = [(ReplyAddress(custom_id=found.custom_id, correlation_id=None, stream=stream), tenant) for stream in (True, False)]
    return frozenset(routes.fallback(reply, tenant, producer).partition for reply, tenant in asked)


def _letter(record: Record, custom_id: str, origins: set[str]) -> DeadLetter | None:
    try:
        letter = decode_dead_letter(record.headers)
    except PenstockError:  # anybody may write to the topic
        return None
    return letter if letter.origin in origins or record.key == custom_id.encode() else None
