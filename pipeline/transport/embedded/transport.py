"""The embedded log as a transport."""

import secrets
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.transport.base import Consumer, GroupLag, Partition, Producer, TopicSpec, TopicState, UnknownTopic
from pipeline.transport.embedded import catalogue, group
from pipeline.transport.embedded.consumer import EmbeddedConsumer
from pipeline.transport.embedded.database import connect, immediate, prepare, snapshot, translated
from pipeline.transport.embedded.group import Member
from pipeline.transport.embedded.ownership import Membership, NamedPartitions
from pipeline.transport.embedded.producer import EmbeddedProducer


class EmbeddedTransport:
    """A log in one SQLite file.

    Args:
        path: The file; created with its folder when it is first used.
        session_timeout_s: How long a member of a group may be silent before its partitions go to others.
        revoke_budget_s: How long a member may keep a partition that it is asked to release.
    """

    def __init__(self, path: Path, *, session_timeout_s: float, revoke_budget_s: float):
        self._path = path
        self._session_timeout_s = session_timeout_s
        self._revoke_budget_s = revoke_budget_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def producer(self) -> Producer:
        """A new producer."""
        self._open()
        producer = EmbeddedProducer(self._path)
        producer.start()
        return producer

    def consumer(self, group_id: str, topics: Sequence[str]) -> Consumer:
        """A new member of a group; it joins in the background.

        Raises:
            UnknownTopic: A topic does not exist.
        """
        missing = set(topics) - self.describe(topics).keys()
        if missing:
            raise UnknownTopic(f"no topic {', '.join(sorted(missing))}: penstock topics apply")
        member = Member(secrets.token_hex(8), group_id, frozenset(topics), self._session_timeout_s, self._revoke_budget_s)
        membership = Membership(self._path, member)
        membership.start()
        return EmbeddedConsumer(connect(self._path), membership)

    def reader(self, partitions: frozenset[Partition]) -> Consumer:
        """A consumer without a group over these partitions, at their end.

        Raises:
            UnknownTopic: One of them does not exist.
        """
        self._open()
        consumer = EmbeddedConsumer(connect(self._path), NamedPartitions(partitions))
        try:
            consumer.poll(0.0, max_records=1)  # fixes where the end is now
        except BaseException:
            consumer.close(0.0)
            raise
        return consumer

    def describe(self, topics: Sequence[str]) -> Mapping[str, TopicState]:
        """The topics that exist, by name."""
        with self._lock, translated(self._path), snapshot(self._open_locked()):
            return catalogue.describe(self._open_locked(), topics)

    def create(self, topics: Sequence[TopicSpec]) -> None:
        """Creates those that do not exist yet; leaves the others alone."""
        with self._lock, translated(self._path), immediate(self._open_locked()):
            catalogue.create(self._open_locked(), topics)

    def lag(self, group_id: str, topics: Sequence[str]) -> Sequence[GroupLag]:
        """How far the group is behind, for every partition of the topics that exist."""
        with self._lock, translated(self._path), snapshot(connection := self._open_locked()):
            partitions = sorted(catalogue.partitions_of(connection, topics).values())
            ends = catalogue.bounds(connection, partitions)
            commits = group.committed(connection, group_id, {p: ends[p].partition_id for p in partitions})
        return [GroupLag(partition=p, committed=commits[p].offset if p in commits else None, end=ends[p].end) for p in partitions]

    def ping(self, timeout_s: float) -> str:
        """Writes nothing, but takes the write lock, so that a log that is stuck shows.

        Raises:
            BrokerUnavailable: The file cannot be opened, or somebody holds its lock for longer than `timeout_s`.
        """
        with self._lock, translated(self._path), immediate(connection := self._open_locked(), timeout_s):
            (topics,) = connection.execute("SELECT count(*) FROM topics").fetchone()
        return f"embedded log {self._path} (SQLite {sqlite3.sqlite_version}, {topics} topics)"

    def close(self) -> None:
        """Closes the transport's own connection; producers and consumers have theirs."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> None:
        with self._lock:
            self._open_locked()

    def _open_locked(self) -> sqlite3.Connection:
        if self._connection is None:
            prepare(self._path)
            self._connection = connect(self._path)
        return self._connection
