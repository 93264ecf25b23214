"""What every log promises when members die or freeze: processes are killed and stopped for real."""

import pytest

from pipeline.transport.base import ChangeKind, Committed, Partition
from tests.transport.actors import Member, OtherProcess, until
from tests.transport.conftest import Log

pytestmark = pytest.mark.integration


def halves(topic: str, other: OtherProcess, member: Member) -> set[Partition]:
    """Waits until a process and a member share four partitions evenly; returns the process's."""
    until(lambda: len(other.owns()) == len(member.owned) == 2, member)
    assert other.owns() | member.owned == {Partition(topic, n) for n in range(4)}
    return other.owns()


def test_partitions_of_a_killed_process_go_to_the_living(log: Log):
    """After the session timeout the survivor owns them, from the last commit on."""
    topic = log.topic(partitions=4)
    with OtherProcess(log.recipe, log.group(), [topic]) as other:
        member = log.member(topic)
        theirs = halves(topic, other, member)
        for n in range(4):
            log.fill(topic, 10, n)
        one = min(theirs)
        other.commit(one, 7)
        until(lambda: {"commit": "done"} in other.listen(), member)
        other.kill()
        until(lambda: len(member.owned) == 4, member)
        until(lambda: len(member.offsets(one)) == 3, member)
        assert member.offsets(one) == [7, 8, 9]
        assert member.seen(ChangeKind.LOST) == set()


def test_a_process_that_was_stopped_too_long_has_lost_its_partitions(log: Log):
    """Going on, it can't commit what belongs to somebody else, hears LOST and nothing else, and comes back into the group."""
    topic = log.topic(partitions=4)
    with OtherProcess(log.recipe, log.group(), [topic]) as other:
        member = log.member(topic, releases=False)
        until(lambda: len(other.owns()) == len(member.owned) == 2, member)  # handed over when the revoke budget had passed
        theirs = other.owns()
        one = min(theirs)
        other.commit(one, 99, freezes=True)
        until(other.is_frozen)
        until(lambda: len(member.owned) == 4, member)
        member.consumer.commit({one: Committed(1, "the successor's")}, timeout_s=20.0)
        other.go_on()
        until(lambda: {"commit": "NotOwner"} in other.listen(), member)
        until(lambda: other.changes(ChangeKind.LOST) == theirs, member)
        assert other.changes(ChangeKind.REVOKED) == set()
        until(lambda: len(other.owns()) == 2, member)
        assert member.consumer.committed(frozenset({one})) == {one: Committed(1, "the successor's")}


def test_a_process_that_was_stopped_for_a_moment_keeps_its_partitions(log: Log):
    """A pause well within the session timeout changes nothing."""
    topic = log.topic(partitions=4)
    with OtherProcess(log.recipe, log.group(), [topic]) as other:
        member = log.member(topic)
        theirs = halves(topic, other, member)
        other.stop()
        for _ in range(20):
            member.turn()
        other.go_on()
        other.commit(min(theirs), 3)
        until(lambda: {"commit": "done"} in other.listen(), member)
        assert other.changes(ChangeKind.LOST) == set()
        assert other.owns() == theirs
