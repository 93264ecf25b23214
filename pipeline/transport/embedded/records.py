"""Records in the file: appended, fetched, looked up by time, and forgotten when they are old."""

import sqlite3
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.transport.base import Partition, Record
from pipeline.transport.embedded.database import OFFSET_BITS
from schemas.record import Encoded, Headers

_LENGTHS = struct.Struct("<HI")
_OFFSET_MASK = (1 << OFFSET_BITS) - 1
TRIM_CHUNK = 1_000  # records deleted per transaction, so that nobody waits long for the lock


class Row(NamedTuple):
    """A record on its way into one partition."""

    timestamp_ms: int
    headers: bytes
    key: bytes | None
    value: bytes | None

    @property
    def size_bytes(self) -> int:
        """What counts against the topic's limits."""
        return len(self.headers) + len(self.key or b"") + len(self.value or b"")


def pack(record: Encoded) -> Row:
    """Encodes a record; its time is the log's, set when it is appended."""
    return Row(0, pack_headers(record.headers), record.key, record.value)


def pack_headers(headers: Headers) -> bytes:
    """Encodes headers as (name length, value length, name, value), one after another."""
    parts: list[bytes] = []
    for name, value in headers:
        encoded = name.encode()
        parts += (_LENGTHS.pack(len(encoded), len(value)), encoded, value)
    return b"".join(parts)


def unpack_headers(packed: bytes) -> Headers:
    """Decodes what `pack_headers` made."""
    headers, at = [], 0
    while at < len(packed):
        name_bytes, value_bytes = _LENGTHS.unpack_from(packed, at)
        name_end = at + _LENGTHS.size + name_bytes
        at = name_end + value_bytes
        headers.append((packed[name_end - name_bytes : name_end].decode(), packed[name_end:at]))
    return tuple(headers)


def append(connection: sqlite3.Connection, partition_id: int, rows: Sequence[Row]) -> int:
    """Appends records to a partition, inside the caller's transaction, and returns the first one's offset.

    Timestamps never go back within a partition, whatever the wall clock does: lookups by time rely on it.
    """
    first, last_ms = connection.execute("SELECT end_offset, last_timestamp_ms FROM partitions WHERE id = ?", (partition_id,)).fetchone()
    now_ms = max(time.time_ns() // 1_000_000, last_ms)
    first_id = partition_id << OFFSET_BITS | first
    connection.executemany(
        "INSERT INTO records (id, timestamp_ms, headers, key, value) VALUES (?, ?, ?, ?, ?)",
        [(first_id + n, now_ms, row.headers, row.key, row.value) for n, row in enumerate(rows)],
    )
    connection.execute(
        "UPDATE partitions SET end_offset = ?, last_timestamp_ms = ?, bytes = bytes + ? WHERE id = ?",
        (first + len(rows), now_ms, sum(row.size_bytes for row in rows), partition_id),
    )
    return int(first)


def fetch(connection: sqlite3.Connection, partition: Partition, partition_id: int, offset: int, max_records: int, max_bytes: int) -> list[Record]:
    """Returns records from `offset` on: at most `max_records`, and no more once `max_bytes` are passed."""
    rows = connection.execute(
        "SELECT id, timestamp_ms, headers, key, value FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (partition_id << OFFSET_BITS | offset, (partition_id + 1) << OFFSET_BITS, max_records),
    )
    records: list[Record] = []
    for record_id, timestamp_ms, headers, key, value in rows:
        records.append(
            Record(
                partition=partition,
                offset=record_id & _OFFSET_MASK,
                timestamp_ms=timestamp_ms,
                key=key,
                value=value,
                headers=unpack_headers(headers),
            )
        )
        max_bytes -= len(value or b"") + len(key or b"") + len(headers)
        if max_bytes <= 0:
            break
    rows.close()
    return records


def offset_at(connection: sqlite3.Connection, partition_id: int, timestamp_ms: int) -> int:
    """Returns the first offset whose timestamp is at or after `timestamp_ms`, or the end offset. Bisects."""
    low, high = connection.execute("SELECT begin_offset, end_offset FROM partitions WHERE id = ?", (partition_id,)).fetchone()
    while low < high:
        middle = (low + high) // 2
        (found_ms,) = connection.execute("SELECT timestamp_ms FROM records WHERE id = ?", (partition_id << OFFSET_BITS | middle,)).fetchone()
        low, high = (middle + 1, high) if found_ms < timestamp_ms else (low, middle)
    return int(low)


def trim(connection: sqlite3.Connection, partition_id: int, older_than_ms: int, keep_bytes: int | None) -> int:
    """Deletes up to `TRIM_CHUNK` of the oldest records that are too old or too many, inside the caller's transaction.

    Returns:
        How many were deleted; fewer than `TRIM_CHUNK` means that nothing more is due.
    """
    (held_bytes,) = connection.execute("SELECT bytes FROM partitions WHERE id = ?", (partition_id,)).fetchone()
    oldest = connection.execute(
        "SELECT id, timestamp_ms, length(headers) + coalesce(length(key), 0) + coalesce(length(value), 0)"
        " FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (partition_id << OFFSET_BITS, (partition_id + 1) << OFFSET_BITS, TRIM_CHUNK),
    ).fetchall()
    last_id, count, freed_bytes = 0, 0, 0
    for record_id, timestamp_ms, size_bytes in oldest:
        too_many = keep_bytes is not None and held_bytes - freed_bytes > keep_bytes
        if timestamp_ms >= older_than_ms and not too_many:
            break
        last_id, count, freed_bytes = record_id, count + 1, freed_bytes + size_bytes
    if count:
        connection.execute("DELETE FROM records WHERE id >= ? AND id <= ?", (partition_id << OFFSET_BITS, last_id))
        connection.execute(
            "UPDATE partitions SET begin_offset = ?, bytes = bytes - ? WHERE id = ?",
            ((last_id & _OFFSET_MASK) + 1, freed_bytes, partition_id),
        )
    return count
