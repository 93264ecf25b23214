"""The SQLite file: schema, connections, transactions, and what its errors mean."""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.transport.base import BrokerUnavailable, TransportError

FILE_NAME = "log.sqlite"
SCHEMA_VERSION = 1
WRITE_TIMEOUT_S = 10.0  # a transaction takes milliseconds; longer means that its process is stopped or the disk hangs

# A record's id is its partition's id and its offset in one integer, so that the table is its own index: a partition's
# records lie side by side, in order.
OFFSET_BITS = 40

_SCHEMA = f"""
CREATE TABLE topics (name TEXT PRIMARY KEY, config TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL REFERENCES topics (name),
    number INTEGER NOT NULL,
    begin_offset INTEGER NOT NULL DEFAULT 0,
    end_offset INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    last_timestamp_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, headers BLOB NOT NULL, key BLOB, value BLOB
);
CREATE TABLE members (
    id TEXT PRIMARY KEY,
    group_id TEXT NOT NULL,
    topics TEXT NOT NULL,
    heard_s REAL NOT NULL,
    session_timeout_s REAL NOT NULL,
    revoke_budget_s REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE ownership (
    group_id TEXT NOT NULL,
    partition_id INTEGER NOT NULL REFERENCES partitions (id),
    epoch INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    target TEXT,
    revoke_by_s REAL,
    PRIMARY KEY (group_id, partition_id)
) WITHOUT ROWID;
CREATE TABLE commits (
    group_id TEXT NOT NULL,
    partition_id INTEGER NOT NULL REFERENCES partitions (id),
    committed INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    PRIMARY KEY (group_id, partition_id)
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""

_UNAVAILABLE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_CONTENDED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def prepare(path: Path) -> None:
    """Creates the file with its schema, for its owner's eyes only, or checks the one that is there.

    Raises:
        BrokerUnavailable: The file cannot be created or opened.
        TransportError: The file is of another version, or not a log.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite's side files take over its mode
    except OSError as error:
        raise BrokerUnavailable(f"{path}: {error.strerror}: set PENSTOCK_DATA_DIR to a folder that can be written") from None
    if _is_prepared(path):
        return
    connection = connect(path)
    try:
        with translated(path), immediate(connection):
            if connection.execute("PRAGMA user_version").fetchone() == (0,):  # nobody was faster
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
    finally:
        connection.close()


def _is_prepared(path: Path) -> bool:
    """Tells a log from an empty file, and refuses everything else before it is touched."""
    with translated(path), closing(sqlite3.connect(path, timeout=WRITE_TIMEOUT_S)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables == 0:
        return False
    if version != SCHEMA_VERSION:
        raise TransportError(f"{path} has version {version}, this program reads {SCHEMA_VERSION}: use another PENSTOCK_DATA_DIR")
    return True


def connect(path: Path) -> sqlite3.Connection:
    """Opens a connection; it may be used from one thread at a time, whichever.

    Raises:
        BrokerUnavailable: The file cannot be opened.
        TransportError: It is not a log.
    """
    with translated(path):
        connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
        _retry_while_contended(lambda: connection.execute("PRAGMA journal_mode = WAL"), WRITE_TIMEOUT_S)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")  # 16 MiB: a checkpoint is the only time that a commit waits for the disk
        connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


@contextmanager
def immediate(connection: sqlite3.Connection, timeout_s: float = WRITE_TIMEOUT_S, is_given_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A write transaction: committed at the end, rolled back on an error.

    Args:
        connection: Where.
        timeout_s: How long to wait for its turn.
        is_given_up: Asked while it waits, to end the wait sooner.
    """
    _retry_while_contended(lambda: connection.execute("BEGIN IMMEDIATE"), timeout_s, is_given_up)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """A read transaction: every statement in it sees the same state. Readers wait for nobody."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def translated(path: Path | None = None) -> Iterator[None]:
    """Turns SQLite's errors into the transport's."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path) from error


def explain(error: sqlite3.Error, path: Path | None = None) -> TransportError:
    """The transport's word for an error of SQLite."""
    where = "the embedded log" if path is None else str(path)
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in _UNAVAILABLE:
        return BrokerUnavailable(f"{where}: {error}")
    return TransportError(f"{where}: {error}")


def _retry_while_contended(attempt: Callable[[], object], timeout_s: float, is_given_up: Callable[[], bool] = lambda: False) -> None:
    """SQLite's own busy handler sleeps up to 100 ms at a time, which a busy writer starves; short random naps do not."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) not in _CONTENDED or time.monotonic() >= deadline_s or is_given_up():
                raise
            time.sleep(random.uniform(0.0005, 0.005))  # noqa: S311 -- jitter, not a secret
        else:
            return
