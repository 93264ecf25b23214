"""Reads a reply topic as its requesters do: the reader's rule, for every request at once."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.delivery.fence import Fence
from pipeline.transport.base import Partition, Record
from schemas.codec import ResultLine, decode_event, decode_result
from schemas.errors import PenstockError
from schemas.events import Begin, Chunk, End, Error, Event, Reset
from schemas.headers import CORRELATION_ID, EVENT, text

REMEMBERED = 16_384
"""Names that are followed at a time; a few hundred bytes each. Past it the one that was silent longest is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A record of a reply topic, and whether it counts.

    Attributes:
        origin: Where the request was written; None where the record does not tell.
        accepted: Whether the reader's rule lets it count. A `begin` or `reset` that counts voids what was accepted before.
    """

    custom_id: str | None
    correlation_id: str | None
    origin: str | None
    event: Event | ResultLine
    accepted: bool
    partition: Partition
    offset: int
    timestamp_ms: int


_Key = tuple[Partition, str | None, str | None]
"""Partition, custom_id, correlation_id."""


@dataclass(slots=True)
class _Name:
    """Everything that answers to one name in one partition: a stream per origin, since two requests may share a name."""

    streams: dict[str, Fence] = field(default_factory=dict)
    is_refused: bool = False

    def origin_of(self, event: Chunk | End | Error | Reset) -> str | None:
        """Finds the stream whose current attempt the event names; at most one has it, since an attempt is an offset."""
        return next((origin for origin, fence in self.streams.items() if fence.attempt is not None and fence.attempt == event.attempt), None)

    def admits(self, event: Event, origin: str | None, offset: int) -> bool:
        """Lets the reader's rule decide on an event."""
        if isinstance(event, Begin):
            return self.streams.setdefault(event.origin, Fence()).admits(event, offset)
        if origin is not None:
            return self.streams[origin].admits(event, offset)
        is_refusal = isinstance(event, Error) and event.attempt is None and not self.streams and not self.is_refused
        self.is_refused = self.is_refused or is_refusal
        return is_refusal

    def admits_line(self, line: ResultLine) -> bool:
        """Lets the first line of an origin count."""
        fence = self.streams.setdefault(line.origin, Fence())
        is_first, fence.closed = not fence.closed, True
        return is_first


class Reader:
    """Applies the reader's rule to reply records, fed in offset order per partition.

    for reading in Reader().accepted(consumer.poll(1.0, 500)):
        print(reading.custom_id, reading.event)
    """

    def __init__(self, remembered: int = REMEMBERED):
        self._remembered = remembered
        self._names: OrderedDict[_Key, _Name] = OrderedDict()

    def accepted(self, records: Iterable[Record]) -> Iterator[Reading]:
        """Yields what counts."""
        for record in records:
            reading = self.read(record)
            if reading is not None and reading.accepted:
                yield reading

    def read(self, record: Record) -> Reading | None:
        """Judges one record; None where it is neither a stream event nor a result."""
        try:
            if any(name == EVENT for name, _ in record.headers):
                return self._read_event(record)
            return self._read_line(record)
        except PenstockError:  # anybody may write to a reply topic
            return None

    def _read_event(self, record: Record) -> Reading:
        received = decode_event(record.key, record.value, record.headers)
        event = received.event
        opens = isinstance(event, Begin) or (isinstance(event, Error) and event.attempt is None)
        name = self._name((record.partition, received.custom_id, received.correlation_id), opens=opens)
        origin = event.origin if isinstance(event, Begin) else name.origin_of(event)
        return Reading(
            custom_id=received.custom_id,
            correlation_id=received.correlation_id,
            origin=origin,
            event=event,
            accepted=name.admits(event, origin, record.offset),
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
        )

    def _read_line(self, record: Record) -> Reading:
        line = decode_result(record.key, record.value, record.headers)
        correlation_id = text(record.headers, CORRELATION_ID)
        return Reading(
            custom_id=line.custom_id,
            correlation_id=correlation_id,
            origin=line.origin,
            event=line,
            accepted=self._name((record.partition, line.custom_id, correlation_id), opens=True).admits_line(line),
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
        )

    def _name(self, key: _Key, *, opens: bool) -> _Name:
        """Finds what is known of a name; only what opens a request makes it known."""
        name = self._names.get(key, _Name())
        if opens or key in self._names:
            self._names[key] = name
            self._names.move_to_end(key)
            if len(self._names) > self._remembered:
                self._names.popitem(last=False)
        return name
