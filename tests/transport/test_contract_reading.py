"""What every log promises to a consumer that is alone with its partitions (`pipeline/transport/base.py`)."""

import time

import pytest

from pipeline.transport.base import Change, ChangeKind, Committed, GroupLag, NotOwner, Partition, TransportError, UnknownTopic
from schemas.record import Encoded
from tests.transport.actors import Member, turns, until
from tests.transport.conftest import Log, send


def test_assigned_partitions_deliver_nothing_until_they_are_resumed(log: Log):
    """The owner looks at what was committed first, and may start somewhere else."""
    topic = log.topic()
    log.fill(topic, 5)
    member = log.member(topic, resumes=False)
    until(lambda: member.changes, member)
    partition = Partition(topic, 0)
    assert member.changes == [Change(ChangeKind.ASSIGNED, frozenset({partition}))]
    assert member.consumer.changes() == [] or member.consumer.changes() == ()
    turns(20, member)
    assert member.records == []
    assert member.consumer.position(partition) == 0
    member.consumer.resume(frozenset({partition}))
    until(lambda: len(member.records) == 5, member)
    assert member.offsets(partition) == [0, 1, 2, 3, 4]
    assert member.consumer.position(partition) == 5
    assert member.consumer.joined()


def test_a_group_goes_on_where_it_committed(log: Log):
    """The next owner gets position and metadata of the last commit; closing commits nothing."""
    topic = log.topic(partitions=2)
    first, second = Partition(topic, 0), Partition(topic, 1)
    log.fill(topic, 10, partition=0)
    log.fill(topic, 10, partition=1)
    member = log.member(topic)
    until(lambda: len(member.records) == 20, member)
    assert member.consumer.committed(frozenset({first, second})) == {}
    member.consumer.commit({first: Committed(4, "größe=4")}, timeout_s=10.0)
    assert member.consumer.committed(frozenset({first, second})) == {first: Committed(4, "größe=4")}
    member.consumer.close(10.0)
    successor = log.member(topic)
    until(lambda: len(successor.records) == 16, successor)
    assert successor.offsets(first) == list(range(4, 10))
    assert successor.offsets(second) == list(range(10))
    assert successor.consumer.committed(frozenset({first})) == {first: Committed(4, "größe=4")}


def test_groups_do_not_share_commits(log: Log):
    """Each group reads everything and commits for itself; the offset that is committed may go back."""
    topic = log.topic()
    partition = Partition(topic, 0)
    log.fill(topic, 3)
    one, other = log.member(topic, "one"), log.member(topic, "other")
    until(lambda: len(one.records) == len(other.records) == 3, one, other)
    one.consumer.commit({partition: Committed(3)}, timeout_s=10.0)
    assert other.consumer.committed(frozenset({partition})) == {}
    one.consumer.commit({partition: Committed(2, "again")}, timeout_s=10.0)
    assert one.consumer.committed(frozenset({partition})) == {partition: Committed(2, "again")}


def test_commits_are_for_owners_and_of_bounded_metadata(log: Log):
    """Of several offsets none is committed when one is refused."""
    topic = log.topic()
    member = log.member(topic)
    until(lambda: member.changes, member)
    mine, foreign = Partition(topic, 0), Partition(f"{log.prefix}.other", 0)
    with pytest.raises(NotOwner):
        member.consumer.commit({mine: Committed(1), foreign: Committed(1)}, timeout_s=10.0)
    with pytest.raises(TransportError):
        member.consumer.commit({mine: Committed(1, "x" * 5_000)}, timeout_s=10.0)
    assert member.consumer.committed(frozenset({mine})) == {}
    member.consumer.commit({mine: Committed(1, "x" * 4_096)}, timeout_s=10.0)
    assert member.consumer.committed(frozenset({mine})) == {mine: Committed(1, "x" * 4_096)}


def test_pause_holds_back_what_was_fetched_ahead(log: Log):
    """Not one record more, however many lie ready; resumed, it goes on without a gap. Others flow meanwhile."""
    topic = log.topic(partitions=2)
    held, flowing = Partition(topic, 0), Partition(topic, 1)
    for partition in (0, 1):
        log.fill(topic, 1_000, partition)
    member = log.member(topic)
    until(lambda: len(member.offsets(held)) > 10, member)
    member.consumer.pause(frozenset({held}))
    count = len(member.offsets(held))
    assert member.consumer.position(held) == count
    until(lambda: len(member.offsets(flowing)) == 1_000, member)
    turns(20, member)
    assert len(member.offsets(held)) == count
    member.consumer.resume(frozenset({held}))
    until(lambda: len(member.offsets(held)) == 1_000, member)
    assert member.offsets(held) == member.offsets(flowing) == list(range(1_000))


def test_pausing_again_and_again_loses_nothing(log: Log):
    """Partitions that stop and go at random deliver everything once, in order."""
    topic = log.topic(partitions=3)
    partitions = [Partition(topic, n) for n in range(3)]
    for partition in partitions:
        log.fill(topic, 2_000, partition.number)
    member = log.member(topic)
    round_number = 0

    def is_done() -> bool:
        nonlocal round_number
        round_number += 1
        stopped = frozenset(p for n, p in enumerate(partitions) if (round_number >> n) & 1 and round_number % 5)
        member.consumer.pause(stopped)
        member.consumer.resume(frozenset(partitions) - stopped)
        return len(member.records) >= 6_000

    until(is_done, member)
    turns(10, member)
    assert [member.offsets(p) for p in partitions] == [list(range(2_000))] * 3


def test_a_poll_returns_at_most_what_was_asked_for(log: Log):
    """And no partition waits for another to run dry."""
    topic = log.topic(partitions=2)
    for partition in (0, 1):
        log.fill(topic, 200, partition)
    member = log.member(topic, resumes=False)
    until(lambda: member.changes, member)
    member.consumer.resume(frozenset(member.owned))
    turns(100)
    sizes = []
    while len(member.records) < 200:
        before = len(member.records)
        member.turn(max_records=7)
        sizes.append(len(member.records) - before)
    assert max(sizes) == 7
    assert all(len(member.offsets(Partition(topic, n))) > 0 for n in (0, 1))


def test_seek_goes_anywhere(log: Log):
    """Back, forward, while paused, in the middle of what was fetched ahead; position follows at once."""
    topic = log.topic()
    partition = Partition(topic, 0)
    log.fill(topic, 500)
    member = log.member(topic)
    until(lambda: len(member.records) >= 100, member)
    member.records.clear()
    member.consumer.seek(partition, 490)
    assert member.consumer.position(partition) == 490
    until(lambda: len(member.records) == 10, member)
    member.consumer.seek(partition, 3)
    member.consumer.pause(frozenset({partition}))
    turns(20, member)
    assert member.offsets(partition) == list(range(490, 500))
    assert member.consumer.position(partition) == 3
    member.consumer.resume(frozenset({partition}))
    until(lambda: len(member.records) == 507, member)
    assert member.offsets(partition)[10:] == list(range(3, 500))


def test_an_offset_that_is_not_there_counts_as_the_beginning(log: Log):
    """Replay, never skip: beyond the end somebody made the topic anew, before the beginning retention was at work."""
    topic = log.topic()
    log.fill(topic, 5)
    member = log.member(topic)
    until(lambda: len(member.records) == 5, member)
    member.consumer.seek(Partition(topic, 0), 1_000)
    until(lambda: len(member.records) == 10, member)
    assert member.offsets(Partition(topic, 0)) == [0, 1, 2, 3, 4] * 2


def test_what_is_not_owned_has_no_position(log: Log):
    """Pausing and resuming it does nothing: it may have been lost a moment ago."""
    topic = log.topic()
    member = log.member(topic)
    until(lambda: member.changes, member)
    foreign = Partition(topic, 9)
    member.consumer.pause(frozenset({foreign}))
    member.consumer.resume(frozenset({foreign}))
    member.consumer.release(frozenset({foreign}), {foreign: Committed(1)})
    with pytest.raises(NotOwner):
        member.consumer.position(foreign)
    with pytest.raises(NotOwner):
        member.consumer.seek(foreign, 0)
    assert member.owned == {Partition(topic, 0)}


def test_offsets_by_end_and_by_time(log: Log):
    """Begin, end, and the first record at or after a time; of partitions that nobody assigned, too."""
    topic = log.topic(partitions=2)
    full, empty = Partition(topic, 0), Partition(topic, 1)
    both = frozenset({full, empty})
    log.fill(topic, 3)
    time.sleep(0.02)
    between_ms = time.time_ns() // 1_000_000
    time.sleep(0.02)
    log.fill(topic, 2)
    later_ms = time.time_ns() // 1_000_000 + 3_600_000
    reader = log.reader(empty)
    assert reader.begin_offsets(both) == {full: 0, empty: 0}
    assert reader.end_offsets(both) == {full: 5, empty: 0}
    assert reader.offsets_for_time(both, 0) == {full: 0, empty: 0}
    assert reader.offsets_for_time(both, between_ms) == {full: 3, empty: 0}
    assert reader.offsets_for_time(both, later_ms) == {full: 5, empty: 0}
    for unknown in (Partition(topic, 2), Partition(f"{log.prefix}.none", 0)):
        with pytest.raises(UnknownTopic):
            reader.end_offsets(frozenset({unknown}))


def test_a_reader_starts_at_the_end_and_goes_where_it_is_sent(log: Log):
    """It is in no group: it owns what it named, waits for no `resume`, hears of no change, and cannot commit."""
    topic = log.topic(partitions=2)
    log.fill(topic, 5)
    partition, other = Partition(topic, 0), Partition(topic, 1)
    reader = Member(log.reader(partition, other))
    assert reader.consumer.joined()
    assert reader.owned == {partition, other}
    assert [reader.consumer.position(p) for p in (partition, other)] == [5, 0]
    turns(10, reader)
    assert reader.records == []
    log.fill(topic, 2)
    until(lambda: len(reader.records) == 2, reader)
    assert reader.offsets(partition) == [5, 6]
    reader.consumer.seek(partition, 1)
    until(lambda: len(reader.records) == 8, reader)
    assert reader.offsets(partition)[2:] == list(range(1, 7))
    assert reader.changes == []
    with pytest.raises(NotOwner):
        reader.consumer.commit({partition: Committed(1)}, timeout_s=1.0)
    assert reader.consumer.committed(frozenset({partition})) == {}


def test_a_reader_takes_nothing_from_a_group(log: Log):
    """Both see everything."""
    topic = log.topic()
    member, reader = log.member(topic), Member(log.reader(Partition(topic, 0)))
    until(lambda: member.changes, member)
    log.fill(topic, 10)
    until(lambda: len(member.records) == len(reader.records) == 10, member, reader)
    assert [c.kind for c in member.changes] == [ChangeKind.ASSIGNED]


def test_unknown_topics_cannot_be_read(log: Log):
    """Neither by a group nor by a reader: a wrong name must show."""
    topic = log.topic()
    with pytest.raises(UnknownTopic):
        log.transport.consumer(log.group(), [topic, f"{log.prefix}.none"])
    with pytest.raises(UnknownTopic):
        log.transport.reader(frozenset({Partition(topic, 1)}))


def test_several_topics_are_read_as_one(log: Log):
    """A group's share spans all its topics."""
    topics = [log.topic(name=name) for name in ("a", "b")]
    for topic in topics:
        log.fill(topic, 3)
    consumer = log.stack.enter_context(log.transport.consumer(log.group(), topics))
    member = Member(consumer)
    until(lambda: len(member.records) == 6, member)
    assert member.owned == {Partition(topic, 0) for topic in topics}


def test_lag_is_known_for_every_partition(log: Log):
    """Also before the first commit, and of partitions without records; topics that do not exist are left out."""
    topic = log.topic(partitions=3)
    one, two, three = (Partition(topic, n) for n in range(3))
    log.fill(topic, 5, partition=0)
    log.fill(topic, 2, partition=1)
    member = log.member(topic)
    until(lambda: len(member.records) == 7, member)
    member.consumer.commit({one: Committed(4), three: Committed(0)}, timeout_s=10.0)
    assert sorted(log.open().lag(log.group(), [topic, f"{log.prefix}.none"]), key=lambda lag: lag.partition) == [
        GroupLag(partition=one, committed=4, end=5),
        GroupLag(partition=two, committed=None, end=2),
        GroupLag(partition=three, committed=0, end=0),
    ]


def test_an_empty_poll_returns_when_something_comes(log: Log):
    """It waits for the first record, not for the whole time, and without time not at all."""
    topic = log.topic()
    member = log.member(topic)
    until(lambda: member.changes, member)
    assert len(member.consumer.poll(0.0, 10)) == 0
    assert len(member.consumer.poll(0.05, 10)) == 0
    producer = log.producer()
    producer.send(Partition(topic, 0), Encoded(key=None, value=b"at last"), lambda _: None)
    start_s = time.monotonic()
    assert len(member.consumer.poll(50.0, 10)) == 1
    assert time.monotonic() - start_s < 25.0


def test_large_records_do_not_pile_up_in_one_poll(log: Log):
    """What a poll returns is bounded by size too, and everything comes in the end."""
    topic = log.topic(max_message_bytes=str(9 * 1024 * 1024))
    value = b"x" * (8 * 1024 * 1024)
    send(log.producer(), [(Partition(topic, 0), Encoded(key=None, value=value))] * 6)
    consumer = log.consumer(topic)
    polls: list[int] = []
    while sum(polls) < 6:
        polls.append(len(consumer.poll(1.0, 100)))
        for change in consumer.changes():
            consumer.resume(change.partitions)
    assert max(polls) <= 5
