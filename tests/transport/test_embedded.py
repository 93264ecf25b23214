"""What the embedded log does beyond the contract: its file, its limits, its neighbours."""

import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.base import Acknowledged, BrokerUnavailable, ChangeKind, Committed, Partition, TopicSpec, TransportError
from pipeline.transport.embedded import EmbeddedTransport, records
from pipeline.transport.embedded.assignment import assign
from pipeline.transport.embedded.database import connect, immediate
from schemas.record import Encoded
from tests.transport.actors import Member, until
from tests.transport.conftest import Log, send

MakeLog = Callable[..., Log]


def open_at(path: Path, **times: float) -> EmbeddedTransport:
    """A log at a path."""
    return EmbeddedTransport(path, **{"session_timeout_s": 1.0, "revoke_budget_s": 1.0, **times})


def test_the_file_is_for_its_owner_only(tmp_path: Path):
    """Prompts lie in it: folder and files are closed to others, SQLite's side files included."""
    path = tmp_path / "new" / "log.sqlite"
    transport = open_at(path)
    transport.create([TopicSpec(name="topic", partitions=1)])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {"log.sqlite", "log.sqlite-wal", "log.sqlite-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    transport.close()


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path):
    """Topics, records and commits outlive the process."""
    path = tmp_path / "log.sqlite"
    first = open_at(path)
    first.create([TopicSpec(name="topic", partitions=1, config={"retention.ms": "-1"})])
    with first.producer() as producer:
        send(producer, [(Partition("topic", 0), Encoded(key=None, value=b"0"))])
    first.close()
    second = open_at(path)
    assert second.describe(["topic"])["topic"].config == {"retention.ms": "-1"}
    with second.consumer("group", ["topic"]) as consumer:
        member = Member(consumer)
        until(lambda: member.records, member)
    second.close()


def test_a_file_of_another_version_or_kind_is_refused(tmp_path: Path):
    """Nothing is changed in it."""
    newer, other = tmp_path / "newer.sqlite", tmp_path / "other.sqlite"
    database = sqlite3.connect(newer)
    database.execute("PRAGMA user_version = 99")
    database.close()
    other.write_bytes(b"not a database, but a text of more than a hundred bytes" * 5)
    for path in (newer, other):
        before = path.read_bytes()
        with pytest.raises(TransportError, match=str(path)):
            open_at(path).ping(1.0)
        assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    """The message says which setting moves the log elsewhere."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BrokerUnavailable, match="PENSTOCK_DATA_DIR"):
        open_at(tmp_path / "file" / "log.sqlite").ping(1.0)


def test_who_holds_the_lock_holds_up_writers_and_no_reader(embedded: MakeLog):
    """Commits, flushes and pings give up in time, polls go on, and what waited is written when the lock is free."""
    log = embedded(session_timeout_s=30.0)
    topic = log.topic()
    partition, outcomes = Partition(topic, 0), []
    log.fill(topic, 5)
    member, producer = log.member(topic), log.producer()
    until(lambda: len(member.records) == 5, member)
    holder = connect(Path(log.recipe.path or ""))
    with immediate(holder):
        producer.send(partition, Encoded(key=None, value=b"5"), outcomes.append)
        for wait in (
            lambda: member.consumer.commit({partition: Committed(5)}, timeout_s=0.05),
            lambda: producer.flush(0.05),
            lambda: log.transport.ping(0.05),
        ):
            with pytest.raises(BrokerUnavailable):
                wait()
        member.consumer.seek(partition, 3)
        until(lambda: len(member.records) == 7, member)
    holder.close()
    until(lambda: outcomes == [Acknowledged(partition, 5)] and len(member.records) == 8, member)
    member.consumer.commit({partition: Committed(6)}, timeout_s=5.0)


def test_closing_a_producer_that_cannot_write_tells_those_who_wait(embedded: MakeLog):
    """Each acknowledgement comes once, also that of the transaction that is just being tried; nothing is written later."""
    log = embedded()
    topic, outcomes = log.topic(), []
    producer = log.transport.producer()
    holder = connect(Path(log.recipe.path or ""))
    with immediate(holder):
        producer.send(Partition(topic, 0), Encoded(key=None, value=b"in hand"), outcomes.append)
        until(lambda: producer._writing == 1)
        for _ in range(50):
            producer.send(Partition(topic, 0), Encoded(key=None, value=b"queued"), outcomes.append)
        producer.close(0.05)
        until(lambda: len(outcomes) == 51)
        assert all(isinstance(outcome, BrokerUnavailable) for outcome in outcomes)
    holder.close()
    assert log.fill(topic, 1) == [Acknowledged(Partition(topic, 0), 0)]


def test_old_records_are_forgotten_by_age(embedded: MakeLog):
    """The beginning moves up, offsets stay, and a reader that was behind goes on at the new beginning."""
    log = embedded()
    topic = log.topic(retention_ms="60000")
    partition = Partition(topic, 0)
    log.fill(topic, 2_500)
    connection = connect(Path(log.recipe.path or ""))
    (partition_id,) = connection.execute("SELECT id FROM partitions WHERE topic = ?", (topic,)).fetchone()
    middle = partition_id << 40 | 2_000
    connection.execute("UPDATE records SET timestamp_ms = timestamp_ms - 3600000 WHERE id < ?", (middle,))
    older_than_ms = time.time_ns() // 1_000_000 - 60_000
    trimmed = []
    while not trimmed or trimmed[-1] == records.TRIM_CHUNK:
        with immediate(connection):
            trimmed.append(records.trim(connection, partition_id, older_than_ms, None))
    connection.close()
    assert trimmed == [1_000, 1_000, 0]
    member = log.member(topic)
    until(lambda: len(member.records) == 500, member)
    assert member.offsets(partition) == list(range(2_000, 2_500))
    assert member.consumer.begin_offsets(frozenset({partition})) == {partition: 2_000}
    assert member.consumer.offsets_for_time(frozenset({partition}), 0) == {partition: 2_000}


def test_old_records_are_forgotten_by_size(embedded: MakeLog):
    """What is kept fits the limit, and a producer looks after it by itself."""
    log = embedded()
    topic = log.topic(retention_bytes="10000")
    producer = log.producer()
    producer._trim_s = 0.0
    send(producer, [(Partition(topic, 0), Encoded(key=None, value=b"x" * 1_000)) for _ in range(50)])
    reader = log.reader(Partition(topic, 0))
    until(lambda: reader.begin_offsets(reader.assignment())[Partition(topic, 0)] == 40)


def test_times_never_go_back_within_a_partition(embedded: MakeLog, monkeypatch: pytest.MonkeyPatch):
    """A wall clock that is set back an hour stands still for the log, so that lookups by time stay right."""
    log = embedded()
    topic = log.topic()
    log.fill(topic, 2)
    hour_ago_ns = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago_ns)
    log.fill(topic, 2)
    member = log.member(topic)
    until(lambda: len(member.records) == 4, member)
    times = [record.timestamp_ms for record in member.records]
    assert times == sorted(times)
    assert times[0] > hour_ago_ns // 1_000_000


def test_a_member_of_a_former_life_does_not_live_for_ever(embedded: MakeLog):
    """After a reboot the machine's clock starts again; heartbeats that lie in the future are none."""
    log = embedded()
    topic = log.topic(partitions=2)
    connection = connect(Path(log.recipe.path or ""))
    with immediate(connection):
        connection.execute("INSERT INTO members VALUES ('ghost', ?, ?, ?, 1.0, 1.0)", (log.group(), f'["{topic}"]', time.monotonic() + 1e6))
    connection.close()
    member = log.member(topic)
    until(lambda: len(member.owned) == 2, member)


def test_a_worker_that_hangs_loses_its_partitions(embedded: MakeLog, monkeypatch: pytest.MonkeyPatch):
    """Its heartbeat thread lives, but nobody polls: the others take over."""
    monkeypatch.setattr("pipeline.transport.embedded.ownership.MAX_POLL_GAP_S", 0.3)
    log = embedded(session_timeout_s=0.6)
    topic = log.topic(partitions=2)
    hangs = log.member(topic)
    until(lambda: len(hangs.owned) == 2, hangs)
    lives = log.member(topic)
    until(lambda: len(lives.owned) == 2, lives)
    until(lambda: hangs.seen(ChangeKind.LOST) and hangs.owned, hangs, lives)


@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50)), max_size=20))
def test_headers_survive_packing(headers: list[tuple[str, bytes]]):
    """Any names and values, in order, repeats included."""
    assert records.unpack_headers(records.pack_headers(tuple(headers))) == tuple(headers)


NAMES = st.sampled_from("abcd")


@given(
    members=st.dictionaries(NAMES, st.frozensets(st.sampled_from(["t", "u"]), min_size=1), max_size=4),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    holders=st.lists(st.none() | st.sampled_from("abcdxy"), min_size=18, max_size=18),
)
def test_shares_are_fair_and_move_as_little_as_possible(members, counts, holders):
    """Every partition that somebody reads has an owner, equals differ by one at most, and a fair share is left alone."""
    ordered = [Partition(topic, n) for topic, count in zip("tu", counts, strict=True) for n in range(count)]
    partitions = dict(enumerate(ordered))
    wanted = assign(members, partitions, dict(zip(partitions, holders, strict=False)))
    assert wanted.keys() == partitions.keys()
    load = {member: sum(owner == member for owner in wanted.values()) for member in members}
    for partition_id, owner in wanted.items():
        readers = {member for member in members if partitions[partition_id].topic in members[member]}
        assert owner in readers if readers else owner is None
        assert owner is None or all(load[owner] - load[member] <= 1 for member in readers)
    assert assign(members, partitions, wanted) == wanted


@given(count=st.integers(1, 24), before=st.integers(1, 6))
def test_one_more_member_moves_only_its_own_share(count, before):
    """Nothing passes between the old ones."""
    partitions = {n: Partition("t", n) for n in range(count)}
    old = {str(n): frozenset("t") for n in range(before)}
    first = assign(old, partitions, {})
    second = assign({**old, "new": frozenset("t")}, partitions, first)
    moved = {n for n in partitions if first[n] != second[n]}
    assert all(second[n] == "new" for n in moved)
    assert len(moved) == count // (before + 1)
