"""Consumer groups in the file: members with heartbeats, one owner per partition, committed offsets.

A partition passes from owner to owner in one of three ways: its owner releases it, its owner is gone, or the time that
the owner had for releasing it is over. Each passing raises the partition's epoch, and a commit counts only from the
owner in the owner's epoch: that is the fence.

Times are `time.monotonic()`, which Python makes system-wide: it is one clock for all processes of the machine.
After a reboot it starts again, so a heartbeat from the future is one from a former life.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipeline.transport.base import Committed, NotOwner, Partition
from pipeline.transport.embedded import catalogue
from pipeline.transport.embedded.assignment import assign


class Member(NamedTuple):
    """One consumer of a group."""

    id: str
    group_id: str
    topics: frozenset[str]
    session_timeout_s: float
    revoke_budget_s: float


class Holding(NamedTuple):
    """A partition that a member owns: in which epoch, and whether it is asked to release it."""

    epoch: int
    revoking: bool


def beat(connection: sqlite3.Connection, member: Member, now_s: float) -> None:
    """Tells the group that `member` lives, joining it anew if it was taken for dead, and settles what is due."""
    known = connection.execute("UPDATE members SET heard_s = ? WHERE id = ?", (now_s, member.id)).rowcount
    if not known:
        connection.execute(
            "INSERT INTO members (id, group_id, topics, heard_s, session_timeout_s, revoke_budget_s) VALUES (?, ?, ?, ?, ?, ?)",
            (member.id, member.group_id, json.dumps(sorted(member.topics)), now_s, member.session_timeout_s, member.revoke_budget_s),
        )
    settle(connection, member.group_id, now_s)


def leave(connection: sqlite3.Connection, member: Member, now_s: float) -> None:
    """Takes a member out of its group; the others get its partitions at once."""
    connection.execute("DELETE FROM members WHERE id = ?", (member.id,))
    settle(connection, member.group_id, now_s)


def settle(connection: sqlite3.Connection, group_id: str, now_s: float) -> None:
    """Buries members that were silent too long, decides who should own what, and hands over what can be handed over."""
    connection.execute("DELETE FROM members WHERE group_id = ? AND (heard_s + session_timeout_s < ? OR heard_s > ?)", (group_id, now_s, now_s + 1.0))
    budgets_s: dict[str, float] = {}
    topics: dict[str, frozenset[str]] = {}
    for member_id, wanted, budget_s in connection.execute("SELECT id, topics, revoke_budget_s FROM members WHERE group_id = ?", (group_id,)):
        topics[member_id], budgets_s[member_id] = frozenset(json.loads(wanted)), budget_s
    partitions = catalogue.partitions_of(connection, sorted(frozenset().union(*topics.values())))
    owned = {row[0]: row[1:] for row in _ownership(connection, group_id)}
    targets = assign(topics, partitions, {partition_id: target for partition_id, (_, _, target, _) in owned.items()})
    for partition_id in targets.keys() | owned.keys():
        was = owned.get(partition_id, (0, None, None, None))
        now = _settled(was, targets.get(partition_id), budgets_s, now_s)
        if now != was or partition_id not in owned:
            connection.execute(
                "INSERT OR REPLACE INTO ownership (group_id, partition_id, epoch, owner, target, revoke_by_s) VALUES (?, ?, ?, ?, ?, ?)",
                (group_id, partition_id, *now),
            )


_Ownership = tuple[int, str | None, str | None, float | None]
"""Epoch, owner, who should own it, and when the owner's time for releasing it ends."""


def _settled(was: _Ownership, target: str | None, budgets_s: Mapping[str, float], now_s: float) -> _Ownership:
    epoch, owner, _, revoke_by_s = was
    if owner is None or owner not in budgets_s or (revoke_by_s is not None and revoke_by_s < now_s):
        return was if owner is None and target is None else (epoch + 1, target, target, None)
    if owner != target and revoke_by_s is None:
        revoke_by_s = now_s + budgets_s[owner]
    # A revocation that has begun runs to its end, also when the partition is to come back: its owner may know of it.
    return epoch, owner, target, revoke_by_s


def _ownership(connection: sqlite3.Connection, group_id: str) -> Iterable[tuple[int, int, str | None, str | None, float | None]]:
    return connection.execute("SELECT partition_id, epoch, owner, target, revoke_by_s FROM ownership WHERE group_id = ?", (group_id,)).fetchall()


def holdings(connection: sqlite3.Connection, member: Member) -> dict[int, Holding]:
    """What a member owns now, by partition id."""
    rows = connection.execute(
        "SELECT partition_id, epoch, revoke_by_s IS NOT NULL FROM ownership WHERE group_id = ? AND owner = ?", (member.group_id, member.id)
    )
    return {partition_id: Holding(epoch, bool(revoking)) for partition_id, epoch, revoking in rows}


def commit(connection: sqlite3.Connection, member: Member, commits: Mapping[int, Committed], epochs: Mapping[int, int]) -> None:
    """Commits all of these offsets, inside the caller's transaction, or none.

    Raises:
        NotOwner: One of the partitions has passed to somebody else since the epoch given for it.
    """
    held = holdings(connection, member)
    for partition_id in commits:
        if partition_id not in epochs or partition_id not in held or held[partition_id].epoch != epochs[partition_id]:
            raise NotOwner(f"group {member.group_id} has moved on: partition id {partition_id} is not this consumer's any more")
    connection.executemany(
        "INSERT OR REPLACE INTO commits (group_id, partition_id, committed, metadata) VALUES (?, ?, ?, ?)",
        [(member.group_id, partition_id, committed.offset, committed.metadata) for partition_id, committed in commits.items()],
    )


def release(connection: sqlite3.Connection, member: Member, epochs: Mapping[int, int], now_s: float) -> None:
    """Lets go of partitions that are still owned in these epochs; those whom they are meant for own them at once."""
    held = holdings(connection, member)
    for partition_id, epoch in epochs.items():
        if partition_id in held and held[partition_id].epoch == epoch:
            connection.execute(
                "UPDATE ownership SET owner = NULL, revoke_by_s = NULL WHERE group_id = ? AND partition_id = ?", (member.group_id, partition_id)
            )
    settle(connection, member.group_id, now_s)


def committed(connection: sqlite3.Connection, group_id: str, partitions: Mapping[Partition, int]) -> dict[Partition, Committed]:
    """What the group has committed for these partitions (by row id); one without a commit is absent."""
    found = {}
    for partition, partition_id in partitions.items():
        row = connection.execute(
            "SELECT committed, metadata FROM commits WHERE group_id = ? AND partition_id = ?", (group_id, partition_id)
        ).fetchone()
        if row:
            found[partition] = Committed(*row)
    return found
