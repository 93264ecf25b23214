"""What every log promises to the members of a group when their shares change (`pipeline/transport/base.py`)."""

import time

import pytest

from pipeline.transport.base import ChangeKind, Committed, NotOwner, Partition
from tests.transport.actors import Member, turns, until
from tests.transport.conftest import Log

ASSIGNED, REVOKED, LOST = ChangeKind.ASSIGNED, ChangeKind.REVOKED, ChangeKind.LOST


def everything(topic: str, partitions: int) -> frozenset[Partition]:
    """All partitions of a topic."""
    return frozenset(Partition(topic, n) for n in range(partitions))


def share(*members: Member) -> list[int]:
    """How many partitions each member owns; fails when two own the same."""
    assert sum(len(m.owned) for m in members) == len(frozenset().union(*(m.owned for m in members)))
    return [len(member.owned) for member in members]


def test_a_newcomer_gets_its_share_and_the_rest_goes_on(log: Log):
    """Revoked partitions move, released and committed; the retained ones hear nothing of it, and nothing is read twice."""
    topic = log.topic(partitions=4)
    for n in range(4):
        log.fill(topic, 50, n)
    old = log.member(topic)
    until(lambda: len(old.records) == 200, old)
    new = log.member(topic)
    until(lambda: share(old, new) == [2, 2], old, new)
    moved = everything(topic, 4) - old.owned
    assert old.seen(REVOKED) == moved == new.seen(ASSIGNED) == new.owned
    assert old.seen(LOST) == new.seen(LOST) == new.seen(REVOKED) == set()
    for n in range(4):
        log.fill(topic, 10, n)
    until(lambda: len(old.records) + len(new.records) >= 240, old, new)
    turns(10, old, new)
    for partition in everything(topic, 4):
        owner, other = (new, old) if partition in moved else (old, new)
        assert owner.offsets(partition)[-10:] == list(range(50, 60))
        assert sorted(owner.offsets(partition) + other.offsets(partition)) == list(range(60))


def test_revoked_partitions_are_owned_until_they_are_released(log: Log):
    """They deliver nothing, can be committed, and nobody else has them; release commits and hands over."""
    topic = log.topic(partitions=2)
    old = log.member(topic, releases=False)
    until(lambda: old.changes, old)
    for n in range(2):
        log.fill(topic, 10, n)
    new = log.member(topic)
    until(lambda: old.seen(REVOKED), old, new)
    (moving,) = old.seen(REVOKED)
    assert old.owned == everything(topic, 2)
    delivered, position = old.offsets(moving), old.consumer.position(moving)
    old.consumer.resume(frozenset({moving}))
    log.fill(topic, 10, moving.number)
    turns(5, old, new)
    assert old.offsets(moving) == delivered
    assert new.owned == frozenset()
    old.consumer.commit({moving: Committed(0, "still mine")}, timeout_s=10.0)
    old.consumer.release(frozenset({moving}), {moving: Committed(position, "handed over")})
    assert moving not in old.owned
    with pytest.raises(NotOwner):
        old.consumer.position(moving)
    until(lambda: new.owned == {moving}, old, new)
    assert new.consumer.committed(frozenset({moving})) == {moving: Committed(position, "handed over")}
    until(lambda: len(new.offsets(moving)) == 20 - position, old, new)
    assert new.offsets(moving) == list(range(position, 20))
    turns(20, old, new)
    assert old.seen(LOST) == set()
    with pytest.raises(NotOwner):
        old.consumer.commit({moving: Committed(1, "too late")}, timeout_s=10.0)
    assert new.consumer.committed(frozenset({moving})) == {moving: Committed(position, "handed over")}


def test_past_the_revoke_budget_partitions_are_lost(log: Log):
    """The group does not wait for ever; a release that comes later changes nothing."""
    topic = log.topic(partitions=2)
    log.fill(topic, 5, 0)
    log.fill(topic, 5, 1)
    old = log.member(topic, releases=False)
    until(lambda: len(old.records) == 10, old)
    new = log.member(topic)
    until(lambda: old.seen(LOST), old, new)
    (moving,) = old.seen(REVOKED)
    assert old.seen(LOST) == {moving}
    assert old.owned == everything(topic, 2) - {moving}
    with pytest.raises(NotOwner):
        old.consumer.commit({moving: Committed(5)}, timeout_s=10.0)
    old.consumer.release(frozenset({moving}), {moving: Committed(5)})
    until(lambda: new.owned == {moving} and len(new.records) == 5, old, new)
    assert new.offsets(moving) == [0, 1, 2, 3, 4]
    assert new.consumer.committed(frozenset({moving})) == {}
    old.consumer.commit({next(iter(old.owned)): Committed(5)}, timeout_s=10.0)


def test_polls_stay_prompt_while_the_group_waits(log: Log):
    """A rebalance that takes the whole revoke budget blocks no poll, and commits for other partitions succeed."""
    topic = log.topic(partitions=2)
    old = log.member(topic, releases=False)
    until(lambda: old.changes, old)
    new = log.member(topic)
    until(lambda: old.seen(REVOKED), old, new)
    (moving,) = old.seen(REVOKED)
    (kept,) = old.owned - {moving}
    old.consumer.commit({kept: Committed(0, "meanwhile")}, timeout_s=10.0)
    polls, longest_s = 0, 0.0
    while not old.seen(LOST):
        start_s = time.monotonic()
        old.turn(timeout_s=0.0)
        longest_s = max(longest_s, time.monotonic() - start_s)
        new.turn(timeout_s=0.001)
        polls += 1
    assert polls > 20
    assert longest_s < log.recipe.revoke_budget_s / 2
    assert old.consumer.committed(frozenset({kept})) == {kept: Committed(0, "meanwhile")}


def test_shares_are_fair_and_a_member_may_have_none(log: Log):
    """Whoever has none knows it, and steps in when somebody leaves."""
    topic = log.topic(partitions=2)
    members = [log.member(topic) for _ in range(3)]
    until(lambda: sorted(share(*members)) == [0, 1, 1] and all(m.consumer.joined() for m in members), *members)
    idle = next(m for m in members if not m.owned)
    leaver = next(m for m in members if m.owned)
    members.remove(leaver)
    leaver.consumer.close(10.0)
    until(lambda: share(*members) == [1, 1], *members)
    assert idle.owned


def test_leaving_hands_over_without_a_commit(log: Log):
    """The others own everything again soon, and read again what was not committed."""
    topic = log.topic(partitions=4)
    for n in range(4):
        log.fill(topic, 5, n)
    stays, leaves = log.member(topic), log.member(topic)
    until(lambda: share(stays, leaves) == [2, 2] and len(stays.records) + len(leaves.records) >= 20, stays, leaves)
    left = leaves.owned
    before = leaves.consumer.committed(left)
    leaves.consumer.close(10.0)
    until(lambda: stays.owned == everything(topic, 4), stays)
    assert stays.consumer.committed(left) == before
    again = sum(5 - before.get(partition, Committed(0)).offset for partition in left)
    count = len(stays.records)
    until(lambda: len(stays.records) >= count + again, stays)


def test_a_change_is_reported_once_and_in_order(log: Log):
    """Partitions come and go several times; of each one ASSIGNED and REVOKED alternate."""
    topic = log.topic(partitions=3)
    stays = log.member(topic)
    until(lambda: stays.changes, stays)
    for _ in range(2):
        guest = log.member(topic)
        until(lambda guest=guest: guest.owned and len(stays.owned) + len(guest.owned) == 3, stays, guest)
        guest.consumer.close(10.0)
        until(lambda: stays.owned == everything(topic, 3), stays)
    for partition in everything(topic, 3):
        kinds = [change.kind for change in stays.changes if partition in change.partitions]
        assert kinds == [ASSIGNED, REVOKED] * (len(kinds) // 2) + [ASSIGNED]
    assert stays.consumer.joined()


def test_a_topic_that_grows_is_shared_out(log: Log):
    """A member that reads several topics and one that reads fewer own what they want, each partition once."""
    shared, extra = log.topic(partitions=4, name="shared"), log.topic(partitions=2, name="extra")
    one = Member(log.stack.enter_context(log.transport.consumer(log.group(), [shared, extra])))
    other = Member(log.stack.enter_context(log.transport.consumer(log.group(), [shared])))
    until(lambda: sorted(share(one, other)) == [3, 3], one, other)
    assert everything(extra, 2) <= one.owned
    assert one.owned | other.owned == everything(shared, 4) | everything(extra, 2)
