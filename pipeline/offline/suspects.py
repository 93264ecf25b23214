"""Which rows may be killing their process, by who was in flight when it died. Pure.

Rows that were in flight at a death run again by themselves, all together. A group that dies again is bisected, and its halves
run one after the other, until a lone row is left; one that goes on killing is convicted. A kill that came from outside costs
a few small batches and convicts nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONE_DEATHS = 2
"""How often a row must die with nobody else in flight."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that run alone together; `deaths` counts those since it was formed, the one that formed it included."""

    rows: tuple[int, ...]
    deaths: int = 1


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Rows that are to run apart from all others, group by group, and those that are to run no more."""

    groups: tuple[Group, ...] = ()
    convicted: frozenset[int] = frozenset()


def suspect(deaths: Iterable[frozenset[int]], finished: frozenset[int]) -> Suspicion:
    """Judges.

    Args:
        deaths: For each death in turn, the rows that were in flight.
        finished: Rows that have their answers.
    """
    groups: list[Group] = []
    lone: dict[int, int] = {}
    for dead in deaths:
        groups = [part for group in groups for part in _after(group, dead)]
        if len(dead) == 1:
            row = next(iter(dead))
            lone[row] = lone.get(row, 0) + 1
        if new := dead - {row for group in groups for row in group.rows}:
            groups.append(Group(tuple(sorted(new))))
    convicted = frozenset(row for row, count in lone.items() if count >= LONE_DEATHS) - finished
    left = (Group(tuple(r for r in group.rows if r not in finished | convicted), group.deaths) for group in groups)
    return Suspicion(tuple(group for group in left if group.rows), convicted)


def within(groups: Sequence[Group], rows: frozenset[int]) -> list[tuple[int, ...]]:
    """Those parts of the groups that are among `rows`."""
    parts = (tuple(row for row in group.rows if row in rows) for group in groups)
    return [part for part in parts if part]


def _after(group: Group, dead: frozenset[int]) -> list[Group]:
    """What a group becomes by a death: bisected, if it was in it and had its chance. What was not in it stays as it was."""
    rows = tuple(row for row in group.rows if row in dead)
    others = tuple(row for row in group.rows if row not in dead)
    spared = [Group(others, group.deaths)] if others else []
    if not rows:
        return spared
    middle = len(rows) // 2
    return [Group(half) for half in (rows[:middle], rows[middle:]) if half] + spared
