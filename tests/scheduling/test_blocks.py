"""The pool of KV blocks, and what its blocks hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scheduling.blocks import BlockPool

ACTIONS = st.tuples(st.sampled_from(["allocate", "share", "keep", "find", "release", "forget"]), st.integers(0, 6))


def pages(*contents: str) -> list[bytes]:
    """Pages by name."""
    return [content.encode() for content in contents]


def kept(pool: BlockPool, *contents: str, salt: str = "") -> list[int]:
    """Blocks with these contents, in a row, held once and to be found."""
    blocks, parent = pool.allocate(len(contents)), salt
    for block, page in zip(blocks, pages(*contents), strict=True):
        parent = pool.prefixes.keep(block, parent, page)
    return blocks


def found(pool: BlockPool, *contents: str, salt: str = "") -> list[int]:
    """Blocks that hold these contents in this order."""
    return [page.block for page in pool.prefixes.find(salt, pages(*contents))]


@given(actions=st.lists(ACTIONS, max_size=80))
def test_blocks_are_conserved_whatever_is_done_with_them(actions):
    """Every block is held, idle or empty; none is handed out twice; what is found was kept under that content."""
    pool = BlockPool(12, 4)
    held: list[list[int]] = []
    written: dict[int, bytes] = {}
    for number, (action, size) in enumerate(actions):
        page = bytes([size])
        if action == "allocate" and size <= pool.free:
            held.append(pool.allocate(size))
            written.update(dict.fromkeys(held[-1], f"unknown {number}".encode()))
        elif action == "share" and held:
            pool.share(held[size % len(held)])
            held.append(list(held[size % len(held)]))
        elif action == "keep" and held and held[size % len(held)] and held[size % len(held)][0] not in pool.prefixes:
            block = held[size % len(held)][0]
            written[block] = page
            pool.prefixes.keep(block, "", page)
        elif action == "find":
            blocks = [entry.block for entry in pool.prefixes.find("", [page])]
            assert all(written[block] == page for block in blocks)
            pool.share(blocks)
            held.append(blocks)
        elif action == "release" and held:
            pool.release(reversed(held.pop(size % len(held))))
        elif action == "forget" and held:
            blocks = held.pop(size % len(held))
            pool.release(blocks)
            unheld = pool.forget(blocks)
            assert not pool.held(unheld)
            assert pool.held(blocks) == len(set(blocks)) - len(unheld)
        pool.check(held)
        assert pool.used == len({block for table in held for block in table})
        assert pool.free + pool.used == 12


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_a_started_block_counts_whole(tokens, blocks):
    """The last block of a sequence may be half empty."""
    assert BlockPool(8, 4).blocks_for(tokens) == blocks


def test_a_page_is_found_after_the_same_beginning_only():
    """Equal tokens after other tokens, or under another salt, are another page."""
    pool = BlockPool(8, 4)
    first = kept(pool, "a", "b")
    assert found(pool, "a", "b", "c") == first
    assert found(pool, "b") == []
    assert found(pool, "c", "b") == []
    assert found(pool, "a", "b", salt="somebody else") == []
    assert found(pool, "a", "x") == first[:1]


def test_the_first_to_hold_a_page_is_found():
    """A second block with the same content stays its holder's own, and is empty once that one lets go."""
    pool = BlockPool(4, 4)
    first, second = kept(pool, "a"), kept(pool, "a")
    assert found(pool, "a") == first
    pool.release(second)
    pool.check([first])
    assert second[0] not in pool.prefixes


def test_what_was_let_go_longest_ago_is_given_away_first():
    """Empty blocks go before idle ones, and an old prefix before one that was used since; within one, the end before the beginning."""
    pool = BlockPool(5, 4)
    old, new = kept(pool, "a", "b"), kept(pool, "c", "d")
    pool.release(reversed(old))
    pool.release(reversed(new))
    assert pool.free == 5
    assert pool.allocate(1)[0] not in (*old, *new)
    pool.share(found(pool, "a", "b"))
    pool.release(reversed(old))
    assert pool.allocate(1) == [new[1]]
    assert found(pool, "c", "d") == new[:1]
    assert pool.allocate(2) == [new[0], old[1]]
    assert found(pool, "a", "b") == old[:1]


def test_a_page_whose_number_is_gone_is_not_reached_through_a_new_one():
    """A page that is kept again is another page: what followed the old one stays unreachable, and nothing is confused."""
    pool = BlockPool(4, 4)
    blocks = kept(pool, "a", "b")
    pool.forget(blocks[:1])
    again = kept(pool, "a")
    assert found(pool, "a", "b") == again


def test_counts_tell_what_sharing_and_letting_go_would_change():
    """Held blocks cost nothing to share; a block is freed by a set of holders only if no other holds it."""
    pool = BlockPool(6, 4)
    first = kept(pool, "a", "b")
    pool.share(first[:1])
    second = [first[0], *pool.allocate(1)]
    assert pool.held([*first, 5]) == 2
    assert pool.freed_by([first]) == 1
    assert pool.freed_by([first, second]) == 3


def test_misuse_is_our_bug_and_stops_at_once():
    """Taking more than is free, sharing what is empty and releasing twice are assertions, not silent corruption."""
    pool = BlockPool(2, 4)
    with pytest.raises(AssertionError):
        pool.allocate(3)
    with pytest.raises(AssertionError):
        pool.share([0])
    taken = pool.allocate(1)
    pool.release(taken)
    with pytest.raises(AssertionError):
        pool.release(taken)
    with pytest.raises(AssertionError):
        pool.check([[0]])
