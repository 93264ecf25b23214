"""Texts side by side."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.pooling.batching import Run, buckets, by_length, filling, runs

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


def test_neighbours_of_equal_length_are_one_run():
    """In the order of the row, with the places that they take."""
    assert runs([2, 2, 3, 2]) == (Run(0, 2, 2), Run(4, 1, 3), Run(7, 1, 2))


@given(lengths=LENGTHS)
def test_runs_cover_the_row_without_gaps(lengths):
    """They follow one another and hold every token."""
    ordered = [lengths[number] for number in by_length(lengths)]
    row = runs(ordered)
    assert [run.start for run in row] == [0, *[run.end for run in row[:-1]]]
    assert [run.tokens for run in row for _ in range(run.texts)] == ordered
    assert len({run.tokens for run in row}) == len(row)


@given(lengths=LENGTHS, share=st.floats(0.0, 0.5))
def test_buckets_hold_every_text_once_and_little_padding(lengths, share):
    """Padding stays within its share of the real tokens, in every bucket."""
    found = buckets(lengths, share)
    assert sorted(number for bucket in found for number in bucket) == list(range(len(lengths)))
    for bucket in found:
        real = sum(lengths[number] for number in bucket)
        assert len(bucket) * max(lengths[number] for number in bucket) <= real * (1 + share) + 1e-6


def test_a_share_of_nothing_pads_nothing():
    """Only equal lengths meet."""
    assert buckets([3, 5, 3, 4], 0.0) == [[0, 2], [3], [1]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(0, 200))
def test_what_fills_a_row_up_is_no_longer_than_its_texts(lengths, missing):
    """And as long as what is missing."""
    more = filling(lengths, sum(lengths) + missing)
    assert sum(more) == missing
    assert all(1 <= length <= max(lengths) for length in more)
