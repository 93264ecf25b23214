"""Whose partitions a consumer reads: a group member's share, or what a reader names itself."""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from pipeline.transport.base import Committed, NotOwner, Partition, TransportError
from pipeline.transport.embedded import catalogue, group
from pipeline.transport.embedded.catalogue import Bounds
from pipeline.transport.embedded.database import connect, explain, immediate
from pipeline.transport.embedded.group import Member

MAX_POLL_GAP_S = 600.0  # a consumer that does not poll for so long hangs: its partitions go to others

_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """A partition as its owner sees it: the ownership's epoch, whether it is to be released, where its records are."""

    epoch: int
    revoking: bool
    bounds: Bounds


class View(NamedTuple):
    """What a consumer owns. `joined` tells whether the group has answered."""

    joined: bool
    held: dict[Partition, Held]


class Ownership(Protocol):
    """Decides which partitions a consumer owns."""

    @property
    def group_id(self) -> str | None:
        """The group, if there is one."""
        ...

    def view(self, connection: sqlite3.Connection) -> View:
        """What is owned now."""
        ...

    def commit(self, connection: sqlite3.Connection, commits: Mapping[int, Committed], epochs: Mapping[int, int], timeout_s: float) -> None:
        """Commits offsets by partition id, while the partitions are owned in these epochs.

        Raises:
            NotOwner: They are not; nothing was committed.
        """
        ...

    def release(self, epochs: Mapping[int, int], commits: Mapping[int, Committed]) -> None:
        """Commits and lets go, soon."""
        ...

    def polled(self) -> None:
        """Takes note that the consumer's loop runs."""
        ...

    def close(self, timeout_s: float) -> None:
        """Lets go of everything."""
        ...


class NamedPartitions:
    """A reader's: always these partitions, in no group."""

    group_id = None

    def __init__(self, partitions: frozenset[Partition]):
        self._partitions = sorted(partitions)

    def view(self, connection: sqlite3.Connection) -> View:
        """All of them, where they end now."""
        return View(True, {p: Held(0, False, bounds) for p, bounds in catalogue.bounds(connection, self._partitions).items()})

    def commit(self, connection: sqlite3.Connection, commits: Mapping[int, Committed], epochs: Mapping[int, int], timeout_s: float) -> None:  # noqa: ARG002
        """Refuses."""
        raise NotOwner("a reader without a group cannot commit")

    def release(self, epochs: Mapping[int, int], commits: Mapping[int, Committed]) -> None:
        """Nothing of a reader's is ever revoked."""

    def polled(self) -> None:
        """Nobody watches a reader."""

    def close(self, timeout_s: float) -> None:
        """Holds nothing."""


class Membership:
    """A member of a group. Its own thread sends the heartbeats, so that a long step of the worker costs no partition.

    Args:
        path: The log's file.
        member: Who it is.
        clock: The machine's clock in seconds, the same for all members.
    """

    def __init__(self, path: Path, member: Member, clock: Callable[[], float] = time.monotonic):
        self.group_id = member.group_id
        self._path = path
        self._member = member
        self._interval_s = min(1.0, member.session_timeout_s / 6)
        self._clock = clock
        self._polled_s = clock()
        self._releases: deque[tuple[Mapping[int, int], Mapping[int, Committed]]] = deque()
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{member.id}", daemon=True)

    def start(self) -> None:
        """Joins the group, soon."""
        self._thread.start()

    def view(self, connection: sqlite3.Connection) -> View:
        """What the group gave this member."""
        joined = connection.execute("SELECT 1 FROM members WHERE id = ?", (self._member.id,)).fetchone() is not None
        rows = connection.execute(
            "SELECT topic, number, epoch, revoke_by_s IS NOT NULL, id, begin_offset, end_offset"
            " FROM ownership JOIN partitions ON id = partition_id WHERE group_id = ? AND owner = ?",
            (self.group_id, self._member.id),
        )
        return View(joined, {Partition(topic, number): Held(epoch, bool(revoking), Bounds(*at)) for topic, number, epoch, revoking, *at in rows})

    def commit(self, connection: sqlite3.Connection, commits: Mapping[int, Committed], epochs: Mapping[int, int], timeout_s: float) -> None:
        """Commits on the caller's thread."""
        with immediate(connection, timeout_s):
            group.commit(connection, self._member, commits, epochs)

    def release(self, epochs: Mapping[int, int], commits: Mapping[int, Committed]) -> None:
        """Leaves commit and release to the heartbeat thread."""
        self._releases.append((epochs, commits))
        self._woken.set()

    def polled(self) -> None:
        """Puts off the moment at which the consumer counts as hanging."""
        self._polled_s = self._clock()

    def close(self, timeout_s: float) -> None:
        """Leaves the group; past `timeout_s` in the background."""
        self._closing.set()
        self._woken.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            connection = connect(self._path)
        except TransportError:
            _log.exception("no heartbeats for group %s", self.group_id)
            return
        while not self._closing.is_set():
            self.beat(connection)
            self._woken.wait(self._interval_s)
            self._woken.clear()
        self.leave(connection)
        connection.close()

    def beat(self, connection: sqlite3.Connection) -> None:
        """Does what there is to do now: releases, a heartbeat, hand-overs that are due."""
        self._attempt(connection, self._beat)

    def leave(self, connection: sqlite3.Connection) -> None:
        """Takes the member out of its group."""
        self._attempt(connection, self._leave)

    def _attempt(self, connection: sqlite3.Connection, transaction: Callable[[sqlite3.Connection], None]) -> None:
        """Runs a transaction; a failed one is logged, and the next beat tries again what is left to do."""
        try:
            with immediate(connection):
                transaction(connection)
        except sqlite3.Error as error:
            _log.warning("group %s: %s", self.group_id, explain(error))

    def _beat(self, connection: sqlite3.Connection) -> None:
        self._release_all(connection)
        now_s = self._clock()
        if now_s - self._polled_s < MAX_POLL_GAP_S:
            group.beat(connection, self._member, now_s)

    def _leave(self, connection: sqlite3.Connection) -> None:
        self._release_all(connection)
        group.leave(connection, self._member, self._clock())

    def _release_all(self, connection: sqlite3.Connection) -> None:
        while self._releases:
            epochs, commits = self._releases.popleft()
            for partition_id, committed in commits.items():
                try:
                    group.commit(connection, self._member, {partition_id: committed}, epochs)
                except NotOwner as error:
                    _log.warning("group %s: released too late to commit: %s", self.group_id, error)
            group.release(connection, self._member, epochs, self._clock())
