"""Which to give up so that the fewest are late."""

from itertools import combinations
from random import Random

import pytest

from pipeline.scheduling.lateness import Candidate, Share, late
from pipeline.scheduling.sequence import Sequence


def candidates(*wants: tuple[float, float]) -> list[Candidate]:
    """Those who are due then and need so long; the number of each is its key."""
    return [Candidate(due_s, needs_s, Sequence(key=key, prompt_ids=(1,))) for key, (due_s, needs_s) in enumerate(wants)]


def keys(given_up: list[Sequence]) -> set[int]:
    """Who that is."""
    return {sequence.key for sequence in given_up}


def test_nobody_is_given_up_where_all_are_on_time():
    """The others' end is the end of them all."""
    given_up, ends_s = late([Share(1.0, candidates((2.0, 1.0), (3.0, 1.0)))], 1.0, 0.0)
    assert (given_up, ends_s) == ([], 3.0)


def test_the_longest_is_given_up_for_the_sake_of_two():
    """Not the one that would be late, which is short; what the others need is what counts afterwards."""
    given_up, ends_s = late([Share(1.0, candidates((4.0, 3.0), (4.2, 1.0), (5.0, 1.0)))], 1.0, 0.0)
    assert keys(given_up) == {0}
    assert ends_s == 3.0


def test_who_is_late_whatever_is_done_is_given_up():
    """And takes nobody's time."""
    given_up, ends_s = late([Share(1.0, candidates((0.5, 0.1), (1.5, 0.4)))], 1.0, 0.0)
    assert keys(given_up) == {0}
    assert ends_s == pytest.approx(1.4)


@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_leaves_fewer_late_where_steps_cost_nothing(seed):
    """Compared with every set that could be kept."""
    draw = Random(seed)
    wants = sorted((draw.uniform(0.2, 4.0), draw.uniform(0.1, 1.5)) for _ in range(8))
    given_up, _ = late([Share(1.0, candidates(*wants))], 0.0, 0.0)
    kept = [want for key, want in enumerate(wants) if key not in keys(given_up)]

    def all_on_time(chosen: tuple[tuple[float, float], ...]) -> bool:
        ends_s = 0.0
        for due_s, needs_s in chosen:
            ends_s += needs_s
            if ends_s > due_s:
                return False
        return True

    assert all_on_time(tuple(kept))
    assert not any(all_on_time(chosen) for chosen in combinations(wants, len(kept) + 1))


def test_what_a_step_costs_counts_once_for_all_in_it():
    """Three of one step are on time; in a step each the last one would not be."""
    given_up, _ = late([Share(1.0, candidates((1.7, 0.2), (1.8, 0.2), (1.9, 0.2)))], 0.0, 1.0)
    assert given_up == []


def test_nobody_joins_a_step_in_which_another_would_be_late_for_it():
    """He has the next one, and its cost."""
    given_up, _ = late([Share(1.0, candidates((1.3, 0.2), (2.6, 0.2)))], 0.0, 1.0)
    assert given_up == []
    given_up, _ = late([Share(1.0, candidates((1.3, 0.2), (2.3, 0.2)))], 0.0, 1.0)
    assert len(given_up) == 1


def test_those_who_wait_side_by_side_have_a_part_of_each_step():
    """Alone both of a tenant's would be on time; beside another one is. All that is kept comes before those of the next lane."""
    mine, others = candidates((2.0, 1.0), (2.1, 1.0)), candidates((9.0, 1.0))
    assert late([Share(1.0, mine)], 0.0, 0.0) == ([], 2.0)
    given_up, ends_s = late([Share(1.0, mine), Share(1.0, others)], 0.0, 0.0)
    assert len(given_up) == 1
    assert ends_s == 2.0


def test_whoever_wants_little_takes_no_more_than_that_from_the_others():
    """A crowd is delayed by what three others want, not to a quarter of its speed."""
    crowd = candidates(*[(0.1 * (number + 1) + 0.35, 0.1) for number in range(10)])
    others = [candidates((9.0, 0.1)) for _ in range(3)]
    assert late([Share(1.0, crowd), *(Share(1.0, one) for one in others)], 0.0, 0.0)[0] == []


def test_a_greater_weight_is_a_greater_part():
    """Three times the weight: of four tokens three, so that what waits for one needs a third more."""
    assert late([Share(3.0, candidates((1.34, 1.0))), Share(1.0, candidates((9.0, 1.0)))], 0.0, 0.0)[0] == []
    assert len(late([Share(3.0, candidates((1.32, 1.0))), Share(1.0, candidates((9.0, 1.0)))], 0.0, 0.0)[0]) == 1
