"""Who should own which partition: fair, and with as few moves as possible. Pure."""

from collections.abc import Mapping

from pipeline.transport.base import Partition


def assign(members: Mapping[str, frozenset[str]], partitions: Mapping[int, Partition], current: Mapping[int, str | None]) -> dict[int, str | None]:
    """Distributes partitions over the members that want their topics.

    Args:
        members: Topics that each member reads, by member.
        partitions: The partitions to distribute, by id.
        current: Who has them now, by id; members that are gone do not count.

    Returns:
        The owner that each partition should have; None where no member reads its topic. Two members that read the same
        topics never differ by more than one partition.
    """
    wanted: dict[int, str | None] = dict.fromkeys(partitions)
    load = dict.fromkeys(sorted(members), 0)

    def give(partition_id: int, member: str) -> None:
        previous = wanted[partition_id]
        if previous is not None:
            load[previous] -= 1
        wanted[partition_id] = member
        load[member] += 1

    for partition_id, partition in partitions.items():
        holder = current.get(partition_id)
        if holder is not None and partition.topic in members.get(holder, frozenset()):
            give(partition_id, holder)
    for partition_id, partition in sorted(partitions.items(), key=lambda item: item[1]):
        readers = [member for member in load if partition.topic in members[member]]
        if wanted[partition_id] is None and readers:
            give(partition_id, min(readers, key=load.__getitem__))
    while move := _unfair(wanted, members, partitions, load):
        give(*move)
    return wanted


def _unfair(
    wanted: Mapping[int, str | None], members: Mapping[str, frozenset[str]], partitions: Mapping[int, Partition], load: Mapping[str, int]
) -> tuple[int, str] | None:
    """Finds a partition whose owner has at least two more than another member that could have it."""
    for poor in sorted(load, key=load.__getitem__):
        for partition_id, owner in sorted(wanted.items(), key=lambda item: -load[item[1]] if item[1] is not None else 0):
            if owner is not None and load[owner] - load[poor] >= 2 and partitions[partition_id].topic in members[poor]:
                return partition_id, poor
    return None
