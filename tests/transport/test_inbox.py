"""What lies between Kafka's thread and the worker's, without Kafka."""

import contextlib
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.base import Change, ChangeKind, Committed, NotOwner, Partition, Record, TransportError
from pipeline.transport.kafka.inbox import INBOX_BYTES, LANE_BYTES, LANE_RECORDS, Inbox

ONE, TWO = Partition("topic", 1), Partition("topic", 2)


def record(partition: Partition, offset: int, size_bytes: int = 0) -> Record:
    """A record with nothing in it."""
    return Record(partition=partition, offset=offset, timestamp_ms=0, key=None, value=b"x" * size_bytes, headers=())


def resumed(*partitions: Partition) -> Inbox:
    """An inbox whose worker has taken and resumed these partitions."""
    inbox = Inbox()
    inbox.assign(dict.fromkeys(partitions, 0))
    inbox.take_changes()
    inbox.pause(partitions, paused=False)
    return inbox


def put(inbox: Inbox, partition: Partition, *offsets: int) -> None:
    """Brings records."""
    inbox.put({partition: [record(partition, offset) for offset in offsets]})


def offsets(inbox: Inbox, max_records: int = 100) -> list[int]:
    """What a poll that does not wait returns."""
    return [taken.offset for taken in inbox.take(0.0, max_records)]


def test_a_seek_outruns_records_that_are_on_their_way():
    """What was polled before the polling thread could seek is dropped, also when it comes in after the seek."""
    inbox = resumed(ONE)
    put(inbox, ONE, 0, 1)
    inbox.seek(ONE, 7)
    put(inbox, ONE, 2, 3)
    assert offsets(inbox) == []
    assert inbox.seeks() == {ONE: 7}
    assert inbox.seeks() == {}
    put(inbox, ONE, 7, 8)
    assert offsets(inbox) == [7, 8]
    assert inbox.position(ONE) == 9


def test_records_of_a_paused_partition_wait():
    """They are neither delivered nor lost, and the position stands before the first of them."""
    inbox = resumed(ONE, TWO)
    put(inbox, ONE, 0, 1, 2)
    put(inbox, TWO, 5)
    assert offsets(inbox, 1) != []
    inbox.pause([ONE], paused=True)
    before = inbox.position(ONE)
    assert all(offset == 5 for offset in offsets(inbox))
    inbox.pause([ONE], paused=False)
    assert offsets(inbox) == list(range(before, 3))


def test_a_lane_that_is_full_is_not_fetched():
    """By count, by size, and when all lanes together are; what is paused or being revoked is not fetched either."""
    inbox = resumed(ONE, TWO)
    assert inbox.blocked() == set()
    put(inbox, ONE, *range(LANE_RECORDS))
    assert inbox.blocked() == {ONE}
    inbox.take(0.0, 1)
    assert inbox.blocked() == set()
    inbox.put({TWO: [record(TWO, 0, LANE_BYTES)]})
    assert inbox.blocked() == {TWO}
    inbox.put({TWO: [record(TWO, 1, INBOX_BYTES)]})
    assert inbox.blocked() == {ONE, TWO}
    assert len(inbox.take(0.0, LANE_RECORDS + 2)) == LANE_RECORDS + 1
    inbox.pause([ONE], paused=True)
    inbox.revoke([TWO])
    assert inbox.blocked() == {ONE, TWO}


def test_the_group_waits_for_what_was_given_back_until_it_is_committed():
    """Released, a partition is the worker's no more; the hand-over goes on when the commit is through."""
    inbox = resumed(ONE, TWO)
    assert inbox.revoke([ONE, Partition("unknown", 0)]) == {ONE}
    assert inbox.take_changes() == [Change(ChangeKind.REVOKED, frozenset({ONE}))]
    assert inbox.release([ONE, TWO]) == {ONE}
    assert inbox.owned() == {TWO}
    with pytest.raises(NotOwner):
        inbox.check_owned({ONE: Committed(0)})
    assert inbox.holds(frozenset({ONE}))
    inbox.released([ONE])
    assert not inbox.holds(frozenset({ONE}))
    inbox.wait_released(0.0)
    assert inbox.release([ONE]) == frozenset()


def test_what_is_lost_is_told_once():
    """Records of it are dropped, late ones too."""
    inbox = resumed(ONE)
    put(inbox, ONE, 0)
    inbox.lose([ONE, TWO])
    inbox.lose([ONE])
    put(inbox, ONE, 1)
    assert inbox.take_changes() == [Change(ChangeKind.LOST, frozenset({ONE}))]
    assert offsets(inbox) == []
    assert inbox.owned() == frozenset()


def test_a_failure_is_told_after_the_changes():
    """The worker learns what it lost, and then that nothing more will come, from every poll."""
    inbox = resumed(ONE)
    inbox.lose([ONE])
    inbox.fail(TransportError("refused"))
    assert offsets(inbox) == []
    assert len(inbox.take_changes()) == 1
    for timeout_s in (0.0, 10.0):
        with pytest.raises(TransportError, match="refused"):
            inbox.take(timeout_s, 1)


def test_a_waiting_poll_wakes_for_a_record_and_for_a_change():
    """Whichever comes first ends the wait."""
    inbox = resumed(ONE)
    for wake in (lambda: put(inbox, ONE, 0), lambda: inbox.revoke([ONE]), lambda: inbox.fail(TransportError("x"))):
        threading.Timer(0.05, wake).start()
        start_s = time.monotonic()
        with contextlib.suppress(TransportError):
            inbox.take(30.0, 10)
        assert time.monotonic() - start_s < 15.0
        inbox.take_changes()


def test_a_worker_that_polls_is_not_silent():
    """The pump sees how long ago it did."""
    inbox = Inbox()
    inbox._polled_s -= 100.0
    assert inbox.silence_s() >= 100.0
    inbox.take(0.0, 1)
    assert inbox.silence_s() < 50.0


def test_a_long_lane_hides_no_other():
    """A poll that is smaller than one partition's backlog brings the few records of the others too, and is filled up by the backlog."""
    inbox = resumed(ONE, TWO)
    for _ in range(2):  # whichever comes first
        put(inbox, ONE, *range(100))
        put(inbox, TWO, 0)
        taken = inbox.take(0.0, 64)
        assert len(taken) == 64
        assert [record.partition for record in taken].count(TWO) == 1
        inbox.take(0.0, 100)


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=4), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_every_record_is_taken_once_in_order(counts, sizes):
    """However polls are sized, each partition's records come in order, and none waits while another is served twice over."""
    partitions = [Partition("topic", n) for n in range(len(counts))]
    inbox = resumed(*partitions)
    for partition, count in zip(partitions, counts, strict=True):
        put(inbox, partition, *range(count))
    taken: dict[Partition, list[int]] = {partition: [] for partition in partitions}
    for size in [*sizes, 1_000]:
        polled = inbox.take(0.0, size)
        assert len(polled) <= size
        for one in polled:
            taken[one.partition].append(one.offset)
    assert taken == {partition: list(range(count)) for partition, count in zip(partitions, counts, strict=True)}
