"""Topics and partitions of the file: what exists, how it is configured, where partitions begin and end."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pipeline.transport.base import Partition, TopicSpec, TopicState, UnknownTopic

MAX_RECORD_BYTES = 16 * 1024 * 1024
DEFAULT_RECORD_BYTES = 1024 * 1024  # Kafka's default for max.message.bytes
DEFAULT_RETENTION_MS = 7 * 24 * 3_600_000  # Kafka's default for retention.ms


class TopicInfo(NamedTuple):
    """What a producer needs to know of a topic. `partition_ids` are in order of partition number."""

    partition_ids: tuple[int, ...]
    max_record_bytes: int
    retention_ms: int | None
    retention_bytes: int | None


class Bounds(NamedTuple):
    """A partition's row id, first kept offset and end offset."""

    partition_id: int
    begin: int
    end: int


def create(connection: sqlite3.Connection, specs: Iterable[TopicSpec]) -> None:
    """Creates topics that do not exist, inside the caller's transaction."""
    for spec in specs:
        added = connection.execute("INSERT OR IGNORE INTO topics (name, config) VALUES (?, ?)", (spec.name, json.dumps(dict(spec.config))))
        if added.rowcount:
            connection.executemany("INSERT INTO partitions (topic, number) VALUES (?, ?)", [(spec.name, n) for n in range(spec.partitions)])


def describe(connection: sqlite3.Connection, topics: Sequence[str]) -> Mapping[str, TopicState]:
    """The topics that exist, by name."""
    states = {}
    for name in topics:
        found = connection.execute(
            "SELECT config, count(*) FROM topics JOIN partitions ON topic = name WHERE name = ? GROUP BY name", (name,)
        ).fetchone()
        if found:
            states[name] = TopicState(name=name, partitions=found[1], config=json.loads(found[0]))
    return states


def info(connection: sqlite3.Connection, topic: str) -> TopicInfo:
    """A topic's partitions and limits.

    Raises:
        UnknownTopic: No such topic.
    """
    state = describe(connection, [topic]).get(topic)
    if state is None:
        raise UnknownTopic(f"topic {topic} does not exist: penstock topics apply")
    ids = connection.execute("SELECT id FROM partitions WHERE topic = ? ORDER BY number", (topic,)).fetchall()
    return TopicInfo(
        partition_ids=tuple(row[0] for row in ids),
        max_record_bytes=min(MAX_RECORD_BYTES, int(state.config.get("max.message.bytes", DEFAULT_RECORD_BYTES))),
        retention_ms=_limit(state.config.get("retention.ms", DEFAULT_RETENTION_MS)),
        retention_bytes=_limit(state.config.get("retention.bytes", -1)),
    )


def bounds(connection: sqlite3.Connection, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
    """Where partitions begin and end.

    Raises:
        UnknownTopic: One of them does not exist.
    """
    found = {}
    for partition in partitions:
        row = connection.execute(
            "SELECT id, begin_offset, end_offset FROM partitions WHERE topic = ? AND number = ?", (partition.topic, partition.number)
        ).fetchone()
        if row is None:
            raise UnknownTopic(f"{partition.topic}/{partition.number} does not exist: penstock topics apply")
        found[partition] = Bounds(*row)
    return found


def partitions_of(connection: sqlite3.Connection, topics: Iterable[str]) -> dict[int, Partition]:
    """All partitions of those topics that exist, by row id."""
    found = {}
    for topic in topics:
        for partition_id, number in connection.execute("SELECT id, number FROM partitions WHERE topic = ?", (topic,)):
            found[partition_id] = Partition(topic, number)
    return found


def _limit(value: str | int) -> int | None:
    """Kafka writes "no limit" as -1."""
    return None if int(value) < 0 else int(value)
