"""A Kafka consumer as the worker sees it."""

from collections.abc import Mapping, Sequence
from typing import Self

from kafka.admin import OffsetSpec

from pipeline.transport.base import Change, Committed, NotOwner, Partition, Record
from pipeline.transport.kafka.admin import Admin
from pipeline.transport.kafka.commits import Commits
from pipeline.transport.kafka.inbox import Inbox
from pipeline.transport.kafka.pump import Pump


class PumpedConsumer:
    """Takes records out of the inbox that the pump fills. Without a `group_id` it is a reader."""

    def __init__(self, inbox: Inbox, pump: Pump, commits: Commits, admin: Admin, group_id: str | None):
        self._inbox = inbox
        self._pump = pump
        self._commits = commits
        self._admin = admin
        self._group_id = group_id

    def poll(self, timeout_s: float, max_records: int) -> Sequence[Record]:
        """Returns what has arrived, waiting up to `timeout_s` for the first record or change.

        Raises:
            TransportError: The cluster refuses this consumer for good (authentication, ACLs).
        """
        return self._inbox.take(timeout_s, max_records)

    def changes(self) -> Sequence[Change]:
        """Takes the changes of ownership since the last call."""
        return self._inbox.take_changes()

    def release(self, partitions: frozenset[Partition], commits: Mapping[Partition, Committed]) -> None:
        """Commits these offsets and lets the partitions go; those that are not being revoked are passed over."""
        self._pump.release(partitions, commits)

    def assignment(self) -> frozenset[Partition]:
        """The partitions owned now."""
        return self._inbox.owned()

    def joined(self) -> bool:
        """Tells whether the group has given its answer."""
        return self._inbox.joined

    def pause(self, partitions: frozenset[Partition]) -> None:
        """Delivers nothing more from these partitions; others than the owned ones are passed over."""
        self._inbox.pause(partitions, paused=True)

    def resume(self, partitions: frozenset[Partition]) -> None:
        """Delivers again; others than the owned ones are passed over."""
        self._inbox.pause(partitions, paused=False)

    def position(self, partition: Partition) -> int:
        """The offset of the next record that `poll` would return.

        Raises:
            NotOwner: The partition is not owned.
        """
        return self._inbox.position(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        """Goes on at `offset`; one that is no longer or not yet there counts as the beginning.

        Raises:
            NotOwner: The partition is not owned.
        """
        self._inbox.seek(partition, offset)

    def committed(self, partitions: frozenset[Partition]) -> Mapping[Partition, Committed]:
        """What the group has committed; a reader has no group and finds nothing."""
        return {} if self._group_id is None else self._admin.committed(self._group_id, partitions)

    def commit(self, offsets: Mapping[Partition, Committed], timeout_s: float) -> None:
        """Commits and waits for the answer.

        Raises:
            NotOwner: The group has moved on, or this is a reader; nothing was committed.
            BrokerUnavailable: No answer in time; whether it was committed is not known.
            TransportError: Metadata is larger than the broker takes.
        """
        if self._group_id is None:
            raise NotOwner("a reader without a group cannot commit")
        self._commits.commit(offsets, timeout_s)

    def begin_offsets(self, partitions: frozenset[Partition]) -> Mapping[Partition, int]:
        """The offset of the oldest record still kept."""
        return self._admin.offsets(partitions, OffsetSpec.EARLIEST)

    def end_offsets(self, partitions: frozenset[Partition]) -> Mapping[Partition, int]:
        """The offset that the next produced record will get."""
        return self._admin.offsets(partitions, OffsetSpec.LATEST)

    def offsets_for_time(self, partitions: frozenset[Partition], timestamp_ms: int) -> Mapping[Partition, int]:
        """The first offset at or after a time; the end offset where there is none."""
        ends = self.end_offsets(partitions)  # asked first: a record that comes in between is not skipped
        found = self._admin.offsets(partitions, timestamp_ms)
        return {p: found[p] if found[p] >= 0 else ends[p] for p in partitions}

    def close(self, timeout_s: float) -> None:
        """Leaves the group, without committing."""
        self._pump.close(timeout_s)

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes, giving the group a moment to take notice."""
        self.close(timeout_s=5.0)
