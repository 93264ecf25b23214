"""Who is to blame for a death."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.offline.suspects import LONE_DEATHS, Group, suspect, within

NOBODY = frozenset()


def test_one_death_makes_a_group_that_runs_apart():
    """The first death may have come from outside: the rows get another chance together."""
    assert suspect([frozenset({3, 1, 2})], frozenset({1})).groups == (Group((2, 3)),)


def test_a_second_death_bisects():
    """Each half runs by itself."""
    rows = frozenset({1, 2, 3, 4})
    assert [group.rows for group in suspect([rows, rows], NOBODY).groups] == [(1, 2), (3, 4)]


def test_a_lone_row_is_convicted_when_it_dies_alone_again():
    """Once could be chance."""
    lone = frozenset({7})
    assert suspect([lone] * (LONE_DEATHS - 1), NOBODY).convicted == NOBODY
    assert suspect([lone] * LONE_DEATHS, NOBODY).convicted == lone


def test_groups_are_cut_to_what_is_at_hand():
    """A window has only its own rows."""
    assert within([Group((1, 2)), Group((3,))], frozenset({2, 5})) == [(2,)]


@given(rows=st.sets(st.integers(0, 200), min_size=1, max_size=64), data=st.data())
def test_killers_and_only_killers_are_convicted(rows: set[int], data: st.DataObject):
    """For any killers among the rows: who runs the groups as told convicts them all, and nobody else."""
    killers = data.draw(st.sets(st.sampled_from(sorted(rows)), max_size=4))
    finished: set[int] = set()
    deaths = [frozenset(rows)]
    for _ in range(400):
        suspicion = suspect(deaths, frozenset(finished))
        if not suspicion.groups:
            break
        for group in suspicion.groups:
            if killers & set(group.rows):
                deaths.append(frozenset(group.rows))
                break
            finished.update(group.rows)
    assert suspect(deaths, frozenset(finished)).convicted == killers
    assert finished == rows - killers
