"""A consumer of the embedded log. Polling only reads the file, so it waits for nobody."""

import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from pipeline.transport.base import Change, ChangeKind, Committed, NotOwner, Partition, Record, TransportError
from pipeline.transport.embedded import catalogue, group, records
from pipeline.transport.embedded.database import snapshot, translated
from pipeline.transport.embedded.ownership import Held, Ownership

MAX_POLL_BYTES = 32 * 1024 * 1024  # of one poll's records: two of the largest, thousands of ordinary ones
MAX_METADATA_BYTES = 4_096  # as Kafka's brokers
SHORTEST_NAP_S, LONGEST_NAP_S = 0.001, 0.02

_log = logging.getLogger(__name__)


class EmbeddedConsumer:
    """Reads the partitions that `ownership` gives it.

    SQLite wakes nobody, so a waiting poll looks again after naps of 1 to 20 ms. A look costs microseconds as long as no
    other connection has written.
    """

    def __init__(self, connection: sqlite3.Connection, ownership: Ownership):
        self._connection = connection
        self._ownership = ownership
        self._held: dict[Partition, Held] = {}
        self._released: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._changes: list[Change] = []
        self._joined = False
        self._seen_version: int | None = None
        self._stale = True
        self._turn = 0

    def poll(self, timeout_s: float, max_records: int) -> Sequence[Record]:
        """Returns what has arrived, waiting up to `timeout_s` for the first record or change."""
        deadline_s = time.monotonic() + timeout_s
        nap_s = SHORTEST_NAP_S
        while True:
            self._ownership.polled()
            with translated():
                found = self._look(max_records)
            left_s = deadline_s - time.monotonic()
            if found or self._changes or left_s <= 0:
                return found
            time.sleep(min(nap_s, left_s))
            nap_s = min(2 * nap_s, LONGEST_NAP_S)

    def changes(self) -> Sequence[Change]:
        """Takes the changes of ownership since the last call."""
        taken, self._changes = self._changes, []
        return taken

    def release(self, partitions: frozenset[Partition], commits: Mapping[Partition, Committed]) -> None:
        """Commits these offsets and lets the partitions go; those that are not being revoked are passed over."""
        going = {p: self._held[p] for p in partitions if p in self._held and self._held[p].revoking}
        self._let_go(going, commits)
        self._forget(going)

    def assignment(self) -> frozenset[Partition]:
        """The partitions owned as of the last poll."""
        return frozenset(self._held)

    def joined(self) -> bool:
        """Tells whether the group knows this member, as of the last poll."""
        return self._joined

    def pause(self, partitions: frozenset[Partition]) -> None:
        """Delivers nothing more from these partitions; others than the owned ones are passed over."""
        self._paused |= partitions & self._held.keys()

    def resume(self, partitions: frozenset[Partition]) -> None:
        """Delivers again; others than the owned ones are passed over."""
        self._paused -= partitions
        self._stale = True

    def position(self, partition: Partition) -> int:
        """The offset of the next record that `poll` would return.

        Raises:
            NotOwner: The partition is not owned.
        """
        return self._positions[self._owned(partition)]

    def seek(self, partition: Partition, offset: int) -> None:
        """Goes on at `offset`; one that is no longer or not yet there counts as the beginning.

        Raises:
            NotOwner: The partition is not owned.
        """
        self._positions[self._owned(partition)] = offset
        self._stale = True

    def committed(self, partitions: frozenset[Partition]) -> Mapping[Partition, Committed]:
        """What the group has committed; a reader has no group and finds nothing."""
        group_id = self._ownership.group_id
        if group_id is None:
            return {}
        with translated(), snapshot(self._connection):
            ids = {p: bounds.partition_id for p, bounds in catalogue.bounds(self._connection, partitions).items()}
            return group.committed(self._connection, group_id, ids)

    def commit(self, offsets: Mapping[Partition, Committed], timeout_s: float) -> None:
        """Commits and waits for the answer.

        Raises:
            NotOwner: The group has moved on; nothing was committed.
            BrokerUnavailable: The file was locked for too long; nothing was committed.
            TransportError: Metadata is too large.
        """
        if any(len(committed.metadata.encode()) > MAX_METADATA_BYTES for committed in offsets.values()):
            raise TransportError(f"commit metadata is larger than {MAX_METADATA_BYTES} bytes")
        held = {self._owned(partition): self._held[partition] for partition in offsets}
        commits = {held[p].bounds.partition_id: committed for p, committed in offsets.items()}
        epochs = {one.bounds.partition_id: one.epoch for one in held.values()}
        with translated():
            self._ownership.commit(self._connection, commits, epochs, timeout_s)

    def begin_offsets(self, partitions: frozenset[Partition]) -> Mapping[Partition, int]:
        """The offset of the oldest record still kept."""
        with translated(), snapshot(self._connection):
            return {p: bounds.begin for p, bounds in catalogue.bounds(self._connection, partitions).items()}

    def end_offsets(self, partitions: frozenset[Partition]) -> Mapping[Partition, int]:
        """The offset that the next produced record will get."""
        with translated(), snapshot(self._connection):
            return {p: bounds.end for p, bounds in catalogue.bounds(self._connection, partitions).items()}

    def offsets_for_time(self, partitions: frozenset[Partition], timestamp_ms: int) -> Mapping[Partition, int]:
        """The first offset at or after a time; the end offset where there is none."""
        with translated(), snapshot(self._connection):
            found = catalogue.bounds(self._connection, partitions)
            return {p: records.offset_at(self._connection, bounds.partition_id, timestamp_ms) for p, bounds in found.items()}

    def close(self, timeout_s: float) -> None:
        """Leaves the group, without committing."""
        self._ownership.close(timeout_s)
        self._connection.close()

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes, giving the group a moment to take notice."""
        self.close(timeout_s=5.0)

    def _look(self, max_records: int) -> list[Record]:
        """Reads what is new, if anything can be: after another connection wrote, or after something changed here."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        if version == self._seen_version and not self._stale:
            return []
        self._seen_version, self._stale = version, False
        with snapshot(self._connection):
            self._follow_ownership()
            return self._fetch(max_records)

    def _follow_ownership(self) -> None:
        """Compares what is owned now with what was, and reports the difference."""
        self._joined, held = self._ownership.view(self._connection)
        self._released = {p: epoch for p, epoch in self._released.items() if p in held and held[p].epoch == epoch}
        held = {p: one for p, one in held.items() if p not in self._released}
        lost = {p for p, old in self._held.items() if p not in held or held[p].epoch != old.epoch}
        self._forget(lost)
        unseen = held.keys() - self._held.keys()
        self._let_go({p: held.pop(p) for p in unseen if held[p].revoking}, {})  # asked back before anybody knew of them
        assigned = unseen & held.keys()
        revoked = {p for p, one in held.items() if one.revoking and not self._held[p].revoking}
        self._held = held
        self._start(assigned)
        for kind, partitions in ((ChangeKind.LOST, lost), (ChangeKind.REVOKED, revoked), (ChangeKind.ASSIGNED, assigned)):
            if partitions and self._ownership.group_id is not None:
                self._changes.append(Change(kind, frozenset(partitions)))

    def _let_go(self, going: Mapping[Partition, Held], commits: Mapping[Partition, Committed]) -> None:
        if not going:
            return
        epochs = {held.bounds.partition_id: held.epoch for held in going.values()}
        self._ownership.release(epochs, {going[p].bounds.partition_id: committed for p, committed in commits.items() if p in going})
        self._released |= {p: held.epoch for p, held in going.items()}

    def _start(self, assigned: Iterable[Partition]) -> None:
        """Gives new partitions a position: a reader's end, a group's commit, or the beginning. A group's wait for `resume`."""
        group_id = self._ownership.group_id
        if group_id is None:
            self._positions |= {p: self._held[p].bounds.end for p in assigned}
            return
        ids = {p: self._held[p].bounds.partition_id for p in assigned}
        commits = group.committed(self._connection, group_id, ids)
        self._positions |= {p: commits[p].offset if p in commits else self._held[p].bounds.begin for p in ids}
        self._paused |= ids.keys()

    def _forget(self, partitions: Iterable[Partition]) -> None:
        for partition in list(partitions):
            del self._held[partition], self._positions[partition]
            self._paused.discard(partition)

    def _fetch(self, max_records: int) -> list[Record]:
        """Takes records from each partition in turn; another partition comes first each time."""
        open_partitions = [p for p, held in self._held.items() if p not in self._paused and not held.revoking]
        self._turn += 1
        first = self._turn % len(open_partitions) if open_partitions else 0
        found: list[Record] = []
        room_bytes = MAX_POLL_BYTES
        for partition in open_partitions[first:] + open_partitions[:first]:
            bounds = self._held[partition].bounds
            position = self._positions[partition]
            if position > bounds.end:
                _log.warning("%s/%d: offset %d is not there, going on at %d", *partition, position, bounds.begin)
                position = self._positions[partition] = bounds.begin
            if position == bounds.end or len(found) >= max_records or room_bytes <= 0:
                continue
            more = records.fetch(self._connection, partition, bounds.partition_id, position, max_records - len(found), room_bytes)
            if more:
                self._positions[partition] = more[-1].offset + 1
                room_bytes -= sum(len(record.value or b"") for record in more)
            found += more
        self._stale = bool(found)  # there may be more where these came from
        return found

    def _owned(self, partition: Partition) -> Partition:
        if partition not in self._held:
            raise NotOwner(f"{partition.topic}/{partition.number} is not this consumer's")
        return partition
