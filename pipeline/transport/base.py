"""The seam between the worker and the log: Kafka and the embedded log both stand behind it, and one contract test suite.

A `Consumer` belongs to the thread that made it; a `Producer` may be called from any. Every wait takes a timeout in
seconds, and `close` never waits longer than it is told to.

    TransportError
    ├── BrokerUnavailable   nobody answers: retry with backoff, or give up with exit code 69
    ├── UnknownTopic        the topic or partition does not exist: `penstock topics apply`
    ├── NotOwner            a commit for a partition that this consumer no longer owns: the assignment is lost
    ├── RecordRejected      the log refused this one record (too large, say); the next may pass
    └── ProducerFatal       the producer can never send again: close it and make another
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, Protocol, Self

from schemas.record import Encoded, Headers


class TransportError(Exception):
    """The log could not do what it was asked to."""


class BrokerUnavailable(TransportError):
    """No broker answers in time."""


class UnknownTopic(TransportError):
    """No such topic or partition."""


class NotOwner(TransportError):
    """The partition belongs to another consumer of the group now."""


class RecordRejected(TransportError):
    """The log refuses this record, and would refuse it again."""


class ProducerFatal(TransportError):
    """The producer is beyond repair and has to be rebuilt."""


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as it was read. `timestamp_ms` is the log's (epoch milliseconds)."""

    partition: Partition
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Committed(NamedTuple):
    """A committed position: the next offset to read, and the metadata committed with it."""

    offset: int
    metadata: str = ""


class Acknowledged(NamedTuple):
    """Where the log put a produced record."""

    partition: Partition
    offset: int


Acknowledgement = Callable[[Acknowledged | TransportError], None]
"""Called once per produced record, on the transport's own thread: it must be quick and must not raise."""


class ChangeKind(Enum):
    """What happened to partitions of a group member."""

    ASSIGNED = auto()
    REVOKED = auto()
    LOST = auto()


class Change(NamedTuple):
    """Partitions that changed hands.

    ASSIGNED ones deliver nothing until `resume` is called for them. REVOKED ones deliver nothing any more but are still
    owned: the group waits for `release`, up to the consumer's revoke budget; past it they are reported LOST. LOST ones
    belong to somebody else already: nothing can be committed.
    """

    kind: ChangeKind
    partitions: frozenset[Partition]


class Consumer(Protocol):
    """A member of a consumer group, or, without a group, a reader of partitions that it names itself."""

    def poll(self, timeout_s: float, max_records: int) -> Sequence[Record]:
        """Returns what has arrived, waiting up to `timeout_s` for the first record or change; 0 does not wait.

        Never blocks for longer than `timeout_s`, also while the group rebalances or the broker is away.
        """
        ...

    def changes(self) -> Sequence[Change]:
        """Takes the changes of ownership since the last call, in the order in which they happened."""
        ...

    def release(self, partitions: frozenset[Partition], commits: Mapping[Partition, Committed]) -> None:
        """Answers a REVOKED change: commits these offsets while the partitions are still owned and lets them go.

        Returns at once; a commit that fails is logged, since the successor replays from the last one that succeeded.
        """
        ...

    def assignment(self) -> frozenset[Partition]:
        """The partitions owned now."""
        ...

    def joined(self) -> bool:
        """Tells whether the group has given its answer: partitions, or the knowledge that there are none for this member."""
        ...

    def pause(self, partitions: frozenset[Partition]) -> None:
        """Delivers nothing more from these partitions, what was fetched ahead included; polling must go on."""
        ...

    def resume(self, partitions: frozenset[Partition]) -> None:
        """Delivers again, from the position after the last delivered record."""
        ...

    def position(self, partition: Partition) -> int:
        """The offset of the next record that `poll` would return."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Goes on at `offset`."""
        ...

    def committed(self, partitions: frozenset[Partition]) -> Mapping[Partition, Committed]:
        """What the group has committed; a partition without a commit is absent."""
        ...

    def commit(self, offsets: Mapping[Partition, Committed], timeout_s: float) -> None:
        """Commits and waits for the answer.

        Raises:
            NotOwner: The group has moved on; nothing was committed.
            BrokerUnavailable: No answer in time; whether it was committed is not known.
        """
        ...

    def begin_offsets(self, partitions: frozenset[Partition]) -> Mapping[Partition, int]:
        """The offset of the oldest record still kept."""
        ...

    def end_offsets(self, partitions: frozenset[Partition]) -> Mapping[Partition, int]:
        """The offset that the next produced record will get."""
        ...

    def offsets_for_time(self, partitions: frozenset[Partition], timestamp_ms: int) -> Mapping[Partition, int]:
        """The first offset whose timestamp is at or after `timestamp_ms`; the end offset where there is none."""
        ...

    def close(self, timeout_s: float) -> None:
        """Leaves the group, without committing."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Producer(Protocol):
    """An idempotent producer: records to one partition keep their order, and a retry never repeats one."""

    def send(self, partition: Partition, record: Encoded, on_ack: Acknowledgement) -> None:
        """Queues a record and returns at once; `on_ack` hears of it later, in order per partition.

        Raises:
            UnknownTopic: The topic or partition does not exist (checked against known metadata, without blocking long).
            RecordRejected: The record is too large.
            ProducerFatal: The producer has to be rebuilt.
        """
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            UnknownTopic: No such topic.
        """
        ...

    def partition_for(self, topic: str, key: bytes) -> Partition:
        """Where a record with that key belongs: the Java client's murmur2 rule, so that all producers agree.

        Raises:
            UnknownTopic: No such topic.
        """
        ...

    def flush(self, timeout_s: float) -> None:
        """Waits until everything sent was acknowledged or has failed.

        Raises:
            BrokerUnavailable: Something is still open after `timeout_s`.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Flushes for as long as it is given, then lets go; acknowledgements still open are told so."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic as it should be. `config` uses Kafka's names and is ignored by a log that has no such setting."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """A topic as it is."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    """How far a group is behind on one partition. `committed` is None before the first commit."""

    partition: Partition
    committed: int | None
    end: int


class Transport(Protocol):
    """A log: makes producers, consumers, and topics."""

    def producer(self) -> Producer:
        """A new producer."""
        ...

    def consumer(self, group_id: str, topics: Sequence[str]) -> Consumer:
        """A new member of a group. A partition without a commit is read from its beginning."""
        ...

    def reader(self, partitions: frozenset[Partition]) -> Consumer:
        """A consumer without a group over these partitions, at their end until `seek` says otherwise; it can't commit."""
        ...

    def describe(self, topics: Sequence[str]) -> Mapping[str, TopicState]:
        """The topics that exist, by name."""
        ...

    def create(self, topics: Sequence[TopicSpec]) -> None:
        """Creates those that do not exist yet; leaves the others alone."""
        ...

    def lag(self, group_id: str, topics: Sequence[str]) -> Sequence[GroupLag]:
        """How far the group is behind, for every partition of the topics."""
        ...

    def ping(self, timeout_s: float) -> str:
        """Asks the log for a sign of life and returns one line about it (version, nodes).

        Raises:
            BrokerUnavailable: Nobody answers in time.
        """
        ...

    def close(self) -> None:
        """Lets go of what the transport itself holds."""
        ...
