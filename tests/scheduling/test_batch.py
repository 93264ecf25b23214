"""The plan of one step, cut where it has to be tried in parts."""

from pipeline.scheduling.batch import Batch, Chunk
from pipeline.scheduling.sequence import Sequence


def sequences(count: int) -> list[Sequence]:
    """So many of them."""
    return [Sequence(key=key, prompt_ids=range(20)) for key in range(count)]


def test_halves_compute_what_the_whole_does_and_touch_no_table_again():
    """Each sequence is in one of them, whatever the mix of decodes and chunks."""
    for decoding in range(5):
        for prefilling in range(5):
            if decoding + prefilling < 2:
                continue
            decodes = sequences(decoding)
            prefills = [Chunk(sequence, 0, 4) for sequence in sequences(prefilling)]
            batch = Batch(decodes, prefills, list(decodes), list(decodes), [(1, 2)])
            first, second = batch.halves()
            assert first.decodes + second.decodes == decodes
            assert first.prefills + second.prefills == prefills
            assert abs(first.sequences - second.sequences) <= 1
            assert not [*first.admitted, *first.grown, *first.copies, *second.admitted, *second.grown, *second.copies]


def test_a_shortened_chunk_is_the_beginning_of_the_whole_one():
    """It leaves the rest for later, so nothing is sampled."""
    (sequence,) = sequences(1)
    batch = Batch([], [Chunk(sequence, 8, 12)], [sequence], [])
    assert batch.prefills[0].samples
    (chunk,) = batch.shortened().prefills
    assert (chunk.sequence, chunk.start, chunk.count, chunk.samples) == (sequence, 8, 6, False)
