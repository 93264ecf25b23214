"""What lies between the thread that polls Kafka and the thread that works: records, changes, wishes.

One shared state under one lock, with a side for each thread: the worker's `poll` touches memory only.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.transport.base import Change, ChangeKind, Committed, NotOwner, Partition, Record, TransportError

LANE_RECORDS = 500  # read ahead per partition; what was fetched before it was reached comes on top
LANE_BYTES = 4 * 1024 * 1024
INBOX_BYTES = 64 * 1024 * 1024  # read ahead in all
RECORD_OVERHEAD_BYTES = 500  # of a record as Python objects, so that small ones count too


@dataclass(slots=True)
class Lane:
    """One owned partition: its records that were read ahead, and what the worker wants of it."""

    position: int
    is_paused: bool
    is_revoking: bool = False
    seek_to: int | None = None  # not yet done by the polling thread, which may still bring records from before
    records: deque[Record] = field(default_factory=deque)
    held_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """Tells whether records may be delivered."""
        return not self.is_paused and not self.is_revoking

    @property
    def is_full(self) -> bool:
        """Tells whether enough was read ahead."""
        return len(self.records) >= LANE_RECORDS or self.held_bytes >= LANE_BYTES


class Inbox:
    """Records and changes on their way to the worker; pauses, seeks and releases on their way back."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._lanes: dict[Partition, Lane] = {}
        self._releasing: set[Partition] = set()
        self._changes: list[Change] = []
        self._failure: TransportError | None = None
        self._deliverable = False
        self._turn = 0
        self._polled_s = time.monotonic()
        self.joined = False

    # ── The worker's side ────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, timeout_s: float, max_records: int) -> Sequence[Record]:
        """Returns records, waiting up to `timeout_s` for the first one or a change.

        Raises:
            TransportError: The polling thread has given up.
        """
        self._polled_s = time.monotonic()
        if timeout_s <= 0 and not self._is_due():  # every engine step asks: without the lock
            return ()
        with self._lock:
            self._lock.wait_for(self._is_due, timeout_s)
            if self._failure is not None and not self._changes:
                raise self._failure
            return self._take(max_records)

    def take_changes(self) -> Sequence[Change]:
        """Takes the changes since the last call."""
        if not self._changes:
            return ()
        with self._lock:
            taken, self._changes = self._changes, []
            return taken

    def owned(self) -> frozenset[Partition]:
        """The partitions owned, those being revoked included."""
        with self._lock:
            return frozenset(self._lanes)

    def pause(self, partitions: Iterable[Partition], *, paused: bool) -> None:
        """Holds partitions back or lets them flow; others than the owned ones are passed over."""
        with self._lock:
            for partition in partitions:
                if partition in self._lanes:
                    self._lanes[partition].is_paused = paused
            self._refresh()

    def position(self, partition: Partition) -> int:
        """The offset of the next record that will be delivered."""
        with self._lock:
            lane = self._owned_lane(partition)
            return lane.records[0].offset if lane.records else lane.position

    def seek(self, partition: Partition, offset: int) -> None:
        """Drops what was read ahead and goes on at `offset`."""
        with self._lock:
            lane = self._owned_lane(partition)
            lane.records.clear()
            lane.held_bytes = 0
            lane.position = lane.seek_to = offset
            self._refresh()

    def release(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        """Gives back partitions that are being revoked, and returns those that were; the group still waits for `released`."""
        with self._lock:
            going = frozenset(p for p in partitions if p in self._lanes and self._lanes[p].is_revoking)
            for partition in going:
                del self._lanes[partition]
            self._releasing |= going
            self._refresh()
            return going

    def released(self, partitions: Iterable[Partition]) -> None:
        """Lets the group go on: what there was to commit is committed, or cannot be."""
        with self._lock:
            self._releasing.difference_update(partitions)
            self._lock.notify_all()

    def wait_released(self, timeout_s: float) -> None:
        """Waits until nothing that was given back has still to be committed."""
        with self._lock:
            self._lock.wait_for(lambda: not self._releasing, timeout_s)

    def check_owned(self, offsets: Mapping[Partition, Committed]) -> None:
        """Makes sure that all of these may be committed.

        Raises:
            NotOwner: One of them is not owned.
        """
        with self._lock:
            for partition in offsets:
                self._owned_lane(partition)

    # ── The polling thread's side ────────────────────────────────────────────────────────────────────────────────────

    def silence_s(self) -> float:
        """How long the worker has not polled."""
        return time.monotonic() - self._polled_s

    def put(self, batches: Mapping[Partition, Sequence[Record]]) -> None:
        """Takes in records; those of a partition that is gone, or that was sent elsewhere, are dropped."""
        with self._lock:
            for partition, records in batches.items():
                lane = self._lanes.get(partition)
                if lane is not None and lane.seek_to is None:
                    lane.records.extend(records)
                    lane.held_bytes += sum(map(_held_bytes, records))
            self._refresh()

    def seeks(self) -> dict[Partition, int]:
        """Takes the seeks that are still to be done."""
        with self._lock:
            wanted = {p: lane.seek_to for p, lane in self._lanes.items() if lane.seek_to is not None}
            for partition in wanted:
                self._lanes[partition].seek_to = None
            return wanted

    def blocked(self) -> set[Partition]:
        """The owned partitions that nothing should be fetched from now."""
        with self._lock:
            is_crowded = sum(lane.held_bytes for lane in self._lanes.values()) >= INBOX_BYTES
            return {p for p, lane in self._lanes.items() if is_crowded or lane.is_full or not lane.is_open}

    def assign(self, positions: Mapping[Partition, int], *, announced: bool = True) -> None:
        """Hands partitions to the worker: a group's with a change, and paused until it resumes them."""
        with self._lock:
            for partition, position in positions.items():
                self._lanes[partition] = Lane(position, is_paused=announced)
            if announced and positions:
                self._changes.append(Change(ChangeKind.ASSIGNED, frozenset(positions)))
            self._refresh()

    def revoke(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        """Asks the worker for partitions back, and returns those that it knows of."""
        with self._lock:
            asked = frozenset(p for p in partitions if p in self._lanes)
            for partition in asked:
                lane = self._lanes[partition]
                lane.is_revoking = True
                lane.position = lane.records[0].offset if lane.records else lane.position
                lane.records.clear()
                lane.held_bytes = 0
            if asked:
                self._changes.append(Change(ChangeKind.REVOKED, asked))
            self._refresh()
            return asked

    def holds(self, partitions: frozenset[Partition]) -> bool:
        """Tells whether any of these is still to be given back, or to be committed after it was."""
        with self._lock:
            return not partitions.isdisjoint(self._lanes) or not partitions.isdisjoint(self._releasing)

    def lose(self, partitions: Iterable[Partition]) -> None:
        """Takes partitions away from the worker; those that it does not know of are passed over."""
        with self._lock:
            lost = frozenset(p for p in partitions if p in self._lanes)
            for partition in lost:
                del self._lanes[partition]
            if lost:
                self._changes.append(Change(ChangeKind.LOST, lost))
            self._refresh()

    def fail(self, failure: TransportError) -> None:
        """Tells the worker that nothing more will come."""
        with self._lock:
            self._failure = failure
            self._refresh()

    # ── Both ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_due(self) -> bool:
        return self._deliverable or bool(self._changes) or self._failure is not None

    def _refresh(self) -> None:
        self._deliverable = any(lane.records and lane.is_open for lane in self._lanes.values())
        if self._is_due():
            self._lock.notify_all()

    def _take(self, max_records: int) -> list[Record]:
        """Takes as many from each lane, as far as they go, so that a long one hides no other; another one comes first each time."""
        lanes = [lane for lane in self._lanes.values() if lane.records and lane.is_open]
        self._turn += 1
        first = self._turn % len(lanes) if lanes else 0
        lanes = lanes[first:] + lanes[:first]
        taken: list[Record] = []
        while lanes and len(taken) < max_records:
            share = max((max_records - len(taken)) // len(lanes), 1)
            for lane in lanes:
                for _ in range(min(share, len(lane.records), max_records - len(taken))):
                    record = lane.records.popleft()
                    lane.held_bytes -= _held_bytes(record)
                    lane.position = record.offset + 1
                    taken.append(record)
            lanes = [lane for lane in lanes if lane.records]
        self._refresh()
        return taken

    def _owned_lane(self, partition: Partition) -> Lane:
        if partition not in self._lanes:
            raise NotOwner(f"{partition.topic}/{partition.number} is not this consumer's")
        return self._lanes[partition]


def _held_bytes(record: Record) -> int:
    return RECORD_OVERHEAD_BYTES + len(record.value or b"") + len(record.key or b"")
