"""The pool of KV blocks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scheduling.blocks import BlockPool


@given(actions=st.lists(st.tuples(st.sampled_from(["allocate", "share", "release"]), st.integers(0, 6)), max_size=60))
def test_blocks_are_conserved_whatever_is_allocated_shared_and_released(actions):
    """Every block is free or held, never both, and never handed out twice."""
    pool = BlockPool(12, 4)
    held: list[list[int]] = []
    for action, size in actions:
        if action == "allocate" and size <= pool.free:
            held.append(pool.allocate(size))
        elif action == "share" and held:
            pool.share(held[size % len(held)])
            held.append(list(held[size % len(held)]))
        elif action == "release" and held:
            pool.release(held.pop(size % len(held)))
        holders = Counter(block for table in held for block in table)
        assert pool.used == len(holders)
        assert pool.free + pool.used == 12
        assert not set(pool._free) & set(holders)
        assert len(set(pool._free)) == len(pool._free)


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_started_block_counts_whole(tokens, blocks):
    """The last block of a sequence may be half empty."""
    assert BlockPool(8, 4).blocks_for(tokens) == blocks


def test_misuse_is_our_bug_and_stops_at_once():
    """Taking more than is free, sharing what is free and releasing twice are assertions, not silent corruption."""
    pool = BlockPool(2, 4)
    with pytest.raises(AssertionError):
        pool.allocate(3)
    with pytest.raises(AssertionError):
        pool.share([0])
    taken = pool.allocate(1)
    pool.release(taken)
    with pytest.raises(AssertionError):
        pool.release(taken)
