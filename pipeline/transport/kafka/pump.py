"""The thread that owns the library's consumer.

The library's `poll` waits for its rebalance listener, which waits for the worker, and it takes a tenth of a millisecond even
when nothing is there. So it runs here, and the worker meets the inbox only.
"""

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from kafka import TopicPartition, errors
from kafka.structs import MemberState

from pipeline.transport.base import BrokerUnavailable, Committed, NotOwner, Partition, Record, TransportError
from pipeline.transport.kafka.clients import Made
from pipeline.transport.kafka.commits import Commits
from pipeline.transport.kafka.errors import explain
from pipeline.transport.kafka.inbox import Inbox
from pipeline.transport.kafka.rebalancing import Rebalancing
from pipeline.transport.kafka.unreadable import Unreadable

# Pausing a partition whose fetched records were taken in part makes the library lose sight of them: it never delivers nor
# fetches again. So a poll takes all that was fetched, and the size of a fetch is the bound.
ALL_RECORDS = 1_000_000_000
POLL_S = 0.25  # how late a resumed partition may be; records wake the library's poll at once. Each idle round takes the interpreter from the worker
POSITION_TIMEOUT_S = 0.2
PAUSE_S = 0.1
MAX_POLL_GAP_S = 300.0  # a worker that does not poll for so long hangs: the pump stops too, and the library leaves the group
COMMIT_TIMEOUT_S = 5.0  # of a release

_log = logging.getLogger(__name__)


class Pump:
    """Moves records from the library's consumer into the inbox, and the worker's wishes back.

    Args:
        made: The library's consumer, with its partitions assigned or its topics subscribed.
        inbox: What the worker sees.
        rebalancing: The group's listener; None for a reader.
        commits: What commits when partitions are released.
    """

    def __init__(self, made: Made, inbox: Inbox, rebalancing: Rebalancing | None, commits: Commits):
        self._consumer = made.client
        self._network = made.network
        self._inbox = inbox
        self._rebalancing = rebalancing
        self._commits = commits
        self._unreadable = Unreadable(made.client, inbox)
        self._closing = threading.Event()
        self._close_timeout_s = 0.0
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, name="kafka-pump", daemon=True)

    def start(self) -> None:
        """Starts polling."""
        self._thread.start()

    def release(self, partitions: frozenset[Partition], commits: Mapping[Partition, Committed]) -> None:
        """Commits beside the caller, and only then lets the group go on."""
        going = self._inbox.release(partitions)
        if going:
            threading.Thread(target=self._let_go, args=(going, commits), name="kafka-release", daemon=True).start()

    def close(self, timeout_s: float) -> None:
        """Leaves the group and ends; past `timeout_s` in the background."""
        deadline_s = time.monotonic() + timeout_s
        self._inbox.wait_released(timeout_s)
        self._close_timeout_s = max(0.0, deadline_s - time.monotonic())
        if self._rebalancing is not None:
            self._rebalancing.is_closing = True
        self._closing.set()
        self._thread.join(max(0.0, deadline_s - time.monotonic()))

    def _let_go(self, going: frozenset[Partition], commits: Mapping[Partition, Committed]) -> None:
        try:
            wanted = {p: committed for p, committed in commits.items() if p in going}
            if wanted:
                self._commits.commit_released(wanted, COMMIT_TIMEOUT_S)
        except TransportError as error:
            _log.warning("released without a commit, the next owner repeats some work: %s", error)
        finally:
            self._inbox.released(going)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._step()
        except Exception as error:  # noqa: BLE001 -- a thread that dies unheard would leave the worker waiting for ever
            self._inbox.fail(explain(error, "reading"))
        finally:
            self._close_consumer()

    def _step(self) -> None:
        """One round; what a later round may mend is logged once and tried again.

        Raises:
            TransportError: It cannot be mended.
        """
        if self._rebalancing is not None and self._inbox.silence_s() > MAX_POLL_GAP_S:
            self._closing.wait(PAUSE_S)
            return
        try:
            self._apply_wishes()
            self._inbox.put(_records(self._consumer.poll(timeout_ms=int(POLL_S * 1_000), max_records=ALL_RECORDS)))
            self._announce()
        except errors.CorruptRecordError as error:
            self._unreadable.step_over(error)
        except (errors.KafkaError, OSError) as error:
            failure = explain(error, "reading")
            if not isinstance(failure, BrokerUnavailable | NotOwner):
                raise failure from error
            if self._complaint != str(failure):
                self._complaint = str(failure)
                _log.warning("%s", failure)
            self._closing.wait(PAUSE_S)
        else:
            self._complaint = ""

    def _apply_wishes(self) -> None:
        """Seeks, pauses and resumes as the inbox wants it."""
        assigned = {Partition(*partition) for partition in self._consumer.assignment()}
        for partition, offset in self._inbox.seeks().items():
            if partition in assigned:
                self._consumer.seek(TopicPartition(*partition), offset)
        arriving = self._rebalancing.arriving if self._rebalancing is not None else set()
        wanted = (self._inbox.blocked() | arriving) & assigned
        current = {Partition(*partition) for partition in self._consumer.paused()}
        self._consumer.pause(*_theirs(wanted - current))
        self._consumer.resume(*_theirs(current - wanted))

    def _announce(self) -> None:
        """Hands over new partitions whose position is known by now."""
        if self._rebalancing is None:
            return
        positions = {}
        for partition in sorted(self._rebalancing.arriving):
            position = self._consumer.position(TopicPartition(*partition), timeout_ms=int(POSITION_TIMEOUT_S * 1_000))
            if position is None:
                return
            positions[partition] = position
        self._rebalancing.arriving -= positions.keys()
        self._inbox.assign(positions)
        self._inbox.joined = self._inbox.joined or self._consumer.group_metadata().state == MemberState.STABLE

    def _close_consumer(self) -> None:
        try:
            self._consumer.close(autocommit=False, timeout_ms=max(100, int(self._close_timeout_s * 1_000)))
        except (errors.KafkaError, OSError, RuntimeError) as error:
            _log.warning("leaving the group: %s", error)
        finally:
            self._network.close()  # the library's close leaves it open when the group does not let it go in peace


def _records(batches: Mapping[TopicPartition, Iterable[Any]]) -> dict[Partition, list[Record]]:
    found = {}
    for theirs, batch in batches.items():
        partition = Partition(*theirs)
        found[partition] = [
            Record(
                partition=partition,
                offset=record.offset,
                timestamp_ms=record.timestamp,
                key=record.key,
                value=record.value,
                headers=tuple((name, value or b"") for name, value in record.headers),
            )
            for record in batch
        ]
    return found


def _theirs(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*partition) for partition in partitions]
