"""From a plan to tensors."""

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.packing import Packer, _spans
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Group, Sequence

CPU = torch.device("cpu")


@given(blocks=st.lists(st.integers(1, 200), max_size=80), padding_blocks=st.integers(0, 300))
def test_buckets_cover_all_sequences_with_bounded_padding(blocks, padding_blocks):
    """Each sequence is in one bucket, whose length is its longest's and whose padding is worth no further bucket."""
    blocks.sort(reverse=True)
    spans = _spans(blocks, padding_blocks)
    assert [i for first, end, _ in spans for i in range(first, end)] == list(range(len(blocks)))
    for first, end, longest in spans:
        assert longest == blocks[first]
        assert sum(longest - held for held in blocks[first:end]) <= padding_blocks


def test_a_batch_is_packed_as_attention_reads_it():
    """Decodes first, by falling length, then chunks; ids, positions and slots in one row; samples where sequences reach their last token."""
    packer = Packer(rows=3, blocks_per_sequence=3, block_tokens=4, scored_places=100, device=CPU)
    short = Sequence(key=0, prompt_ids=(1, 2), output_ids=[3], computed_tokens=2, block_table=[7], row=0)
    long = Sequence(key=1, prompt_ids=(4, 5, 6, 7), output_ids=[8, 9], computed_tokens=5, block_table=[2, 5], row=2)
    prefill = Sequence(key=2, prompt_ids=(10, 11, 12, 13, 14, 15), computed_tokens=2, block_table=[9, 1], row=1)
    for sequence in (short, long, prefill):
        packer.admit(sequence)
    packed = packer.pack([short, long], [Chunk(prefill, 2, 3)])
    assert packed.input_ids.tolist() == [[9, 3, 12, 13, 14]]
    assert packed.position_ids.tolist() == [[5, 2, 2, 3, 4]]
    assert packed.attention.slots.tolist() == [5 * 4 + 1, 7 * 4 + 2, 9 * 4 + 2, 9 * 4 + 3, 1 * 4 + 0]
    assert packed.samples == [long, short]
    assert packed.last.tolist() == [0, 1]
    (bucket,) = packed.attention.buckets
    assert (bucket.start, bucket.sequences, bucket.padded_tokens) == (0, 2, 8)
    assert bucket.blocks.tolist() == [2, 5, 7, 7], "padding repeats the sequence's own block"
    assert bucket.lengths.tolist() == [6, 3]
    (chunk,) = packed.attention.chunks
    assert (chunk.start, chunk.tokens, chunk.context_tokens, chunk.opens) == (2, 3, 5, False)
    assert chunk.blocks.tolist() == [9, 1]
    packed = packer.pack([], [Chunk(prefill, 0, 6)])
    assert packed.samples == [prefill]
    assert packed.last.tolist() == [5]
    assert packed.attention.chunks[0].opens


def test_a_row_forgets_who_had_it_before():
    """Padding of a new sequence never reads the blocks of the old one."""
    packer = Packer(rows=1, blocks_per_sequence=4, block_tokens=4, scored_places=100, device=CPU)
    packer.admit(Sequence(key=0, prompt_ids=range(16), block_table=[1, 2, 3, 4], row=0))
    grown = Sequence(key=1, prompt_ids=range(4), block_table=[8], row=0)
    packer.admit(grown)
    assert packer._tables.tolist() == [[8, 8, 8, 8]]
    grown.block_table.append(6)
    packer.grow(grown)
    assert packer._tables.tolist() == [[8, 6, 8, 8]]


def test_places_that_are_to_be_scored_follow_those_that_are_sampled():
    """Every place of the prompt but the last, from where scores are wanted, wherever the chunk lies in the row."""
    packer = Packer(rows=3, blocks_per_sequence=3, block_tokens=4, scored_places=100, device=CPU)
    decode = Sequence(key=0, prompt_ids=(1, 2), output_ids=[3], computed_tokens=2, block_table=[7], row=0)
    scored = Sequence(key=1, prompt_ids=(4, 5, 6, 7, 8), computed_tokens=1, block_table=[2, 5], row=2)
    scored.group = Group([scored], scores_prompt=True, scored_tokens=2)
    plain = Sequence(key=2, prompt_ids=(10, 11, 12), block_table=[9], row=1)
    for sequence in (decode, scored, plain):
        packer.admit(sequence)
    packed = packer.pack([decode], [Chunk(plain, 0, 3), Chunk(scored, 1, 4)])
    assert packed.samples == [decode, plain, scored]
    assert packed.scored == [[Chunk(scored, 2, 2)]]
    assert packed.last.tolist() == [0, 3, 7, 5, 6]
    scored.group.scored_tokens = 4
    packed = packer.pack([decode], [Chunk(plain, 0, 3), Chunk(scored, 1, 4)])
    assert (packed.scored, packed.last.tolist()) == ([], [0, 3, 7])


@pytest.mark.parametrize("most", [1, 2, 3, 5, 100])
def test_what_is_scored_comes_in_slices_of_bounded_size(most):
    """Every place once and in order, cut across chunks and within them; the first slice is with the samples."""
    packer = Packer(rows=2, blocks_per_sequence=3, block_tokens=4, scored_places=most, device=CPU)
    first, second = (Sequence(key=row, prompt_ids=range(6), block_table=[2 * row, 2 * row + 1], row=row) for row in range(2))
    for sequence in (first, second):
        sequence.group = Group([sequence], scores_prompt=True)
        packer.admit(sequence)
    packed = packer.pack([], [Chunk(first, 0, 6), Chunk(second, 1, 3)])
    expected = [(0, place) for place in range(5)] + [(1, place) for place in range(1, 4)]
    assert [(chunk.sequence.key, chunk.start + i) for chunks in packed.scored for chunk in chunks for i in range(chunk.count)] == expected
    counts = [sum(chunk.count for chunk in chunks) for chunks in packed.scored]
    assert counts == [most] * (8 // most) + [8 % most] * (8 % most > 0)
    assert [packed.last.tolist()[1:], *(places.tolist() for places in packed.further)] == cut([0, 1, 2, 3, 4, 6, 7, 8], counts)
    assert (packed.samples, packed.last.tolist()[0]) == ([first], 5)


def cut(places, counts):
    """Cuts a list into parts of these lengths."""
    rest = iter(places)
    return [list(islice(rest, count)) for count in counts]
