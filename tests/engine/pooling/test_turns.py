"""Which texts share a step."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.pooling.turns import Pending, Turns
from pipeline.engine.pooling.work import PooledWork, Text
from pipeline.scheduling.sequence import Lane
from schemas.pooled_results import Pooled


def pending(key: int, *lengths: int, lane: Lane = Lane.DEFAULT) -> Pending:
    """A request of texts of these lengths."""
    return Pending(key, lane, PooledWork(tuple(Text((0,) * length) for length in lengths), lambda rows: Pooled(rows=rows)))


def taken(turns: Turns, budget_tokens: int) -> list[tuple[int, int]]:
    """The next step, as (request, text)."""
    return [(place.pending.key, place.index) for place in turns.take(budget_tokens)]


def test_requests_of_a_lane_take_turns():
    """A small request that comes after a large one is read in the next step, not after it."""
    turns = Turns()
    turns.add(pending(1, *[10] * 50))
    turns.add(pending(2, 10, 10))
    assert taken(turns, 40) == [(1, 0), (2, 0), (1, 1), (2, 1)]
    assert taken(turns, 40) == [(1, 2), (1, 3), (1, 4), (1, 5)]


def test_lanes_go_before_turns():
    """Priority before default before flex, whatever came first."""
    turns = Turns()
    for key, lane in enumerate((Lane.FLEX, Lane.DEFAULT, Lane.PRIORITY)):
        turns.add(pending(key, 10, 10, lane=lane))
    assert taken(turns, 60) == [(2, 0), (2, 1), (1, 0), (1, 1), (0, 0), (0, 1)]


def test_a_text_longer_than_the_budget_goes_alone():
    """It is not left behind, and nothing goes with it."""
    turns = Turns()
    turns.add(pending(1, 5, 100, 5))
    assert [taken(turns, 20) for _ in range(3)] == [[(1, 0)], [(1, 1)], [(1, 2)]]


def test_a_dropped_request_takes_no_more_turns():
    """And dropping it again, or after its last turn, changes nothing."""
    turns = Turns()
    gone, stays = pending(1, 10, 10), pending(2, 10)
    turns.add(gone)
    turns.add(stays)
    assert taken(turns, 10) == [(1, 0)]
    turns.drop(gone)
    turns.drop(gone)
    assert taken(turns, 100) == [(2, 0)]
    turns.drop(stays)
    assert len(turns) == 0


@given(
    requests=st.lists(st.tuples(st.sampled_from(Lane), st.lists(st.integers(1, 40), min_size=1, max_size=8)), max_size=12),
    budget_tokens=st.integers(1, 64),
)
def test_every_text_is_taken_once_within_the_budget(requests, budget_tokens):
    """Whatever the lengths: each in its request's order, no step over the budget unless one text alone is, and counts add up."""
    turns = Turns()
    everything = [pending(key, *lengths, lane=lane) for key, (lane, lengths) in enumerate(requests)]
    for one in everything:
        turns.add(one)
    seen: list[tuple[int, int]] = []
    while len(turns):
        places = turns.take(budget_tokens)
        assert places
        assert len(places) == 1 or sum(len(place.text) for place in places) <= budget_tokens
        seen += [(place.pending.key, place.index) for place in places]
        assert turns.untouched == sum(one.taken == 0 for one in everything)
        assert turns.tokens == sum(
            length for one in everything for index, length in enumerate(map(len, one.work.texts)) if (one.key, index) not in seen
        )
    assert sorted(seen) == [(one.key, index) for one in everything for index in range(len(one.work.texts))]
    for one in everything:
        assert [index for key, index in seen if key == one.key] == list(range(len(one.work.texts)))
