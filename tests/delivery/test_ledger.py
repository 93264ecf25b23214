"""The commit ledger."""

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.delivery.ledger import METADATA_BYTES, PartitionLedger, decode_metadata, encode_metadata


def ledger(next_offset: int = 0, window: int = 1_024, done_before: frozenset[int] = frozenset()) -> PartitionLedger:
    """A ledger of epoch 1."""
    return PartitionLedger(next_offset=next_offset, epoch=1, window=window, done_before=done_before)


def test_nothing_is_committed_past_an_open_offset():
    """The lowest offset in flight holds the commit back, whatever is done above it."""
    book = ledger(5)
    for offset in (5, 6, 7):
        assert book.receive(offset, 1)
    book.done(6)
    book.done(7)
    assert book.committable() == 5
    book.done(5)
    assert book.committable() == 8


def test_gaps_need_no_answer():
    """Offsets that the log never delivered (markers, compaction) count as done."""
    book = ledger(0)
    book.receive(3, 1)
    book.receive(9, 1)
    assert book.committable() == 3
    book.done(3)
    assert book.committable() == 9
    book.done(9)
    assert book.committable() == 10


def test_a_record_of_many_requests_is_done_with_its_last():
    """An Arrow record's offset waits for every row."""
    book = ledger(0)
    book.receive(0, 3)
    book.done(0)
    book.done(0)
    assert book.committable() == 0
    book.done(0)
    assert book.committable() == 1


def test_a_record_without_requests_is_done_at_once():
    """An empty batch holds nothing back."""
    book = ledger(4)
    assert not book.receive(4, 0)
    assert book.committable() == 5


def test_an_offset_is_taken_once():
    """A record delivered again by the same assignment is not a new one."""
    book = ledger(0)
    assert book.receive(0, 1)
    assert not book.receive(0, 1)


def test_the_window_pauses_the_partition():
    """A partition is full when so many offsets lie past the committable one."""
    book = ledger(0, window=3)
    for offset in range(3):
        assert not book.is_full()
        book.receive(offset, 1)
    assert book.is_full()
    book.done(1)
    assert book.is_full()
    book.done(0)
    assert not book.is_full()


def test_a_successor_skips_what_the_metadata_marks_done():
    """What was finished above the committed offset is not done again."""
    first = ledger(10)
    for offset in range(10, 20):
        first.receive(offset, 1)
    for offset in (12, 13, 17):
        first.done(offset)
    second = ledger(first.committable(), done_before=decode_metadata(first.committable(), first.metadata()))
    assert [offset for offset in range(10, 20) if second.receive(offset, 1)] == [10, 11, 14, 15, 16, 18, 19]


@given(offset=st.integers(0, 2**60), above=st.sets(st.integers(1, 1_024)))
def test_metadata_decodes_to_what_was_encoded(offset, above):
    """Every done offset within the window survives the trip, below the broker's bound."""
    done = {offset + gap for gap in above}
    metadata = encode_metadata(offset, done)
    assert len(metadata) <= METADATA_BYTES
    assert decode_metadata(offset, metadata) == done


@given(offset=st.integers(0, 2**40), metadata=st.text())
@example(offset=0, metadata='{"v":1,"done":7}')
@example(offset=0, metadata='{"v":2}')
@example(offset=0, metadata="[]")
@example(offset=0, metadata='{"v":1,"done":"\\u0000"}')
@example(offset=0, metadata="[" * 9_000)
def test_foreign_metadata_is_ignored(offset, metadata):
    """Metadata that can't be decoded means replay, never skip and never a crash."""
    assert decode_metadata(offset, metadata) == frozenset()


@given(data=st.data())
def test_commits_never_move_back_and_never_pass_what_is_open(data):
    """Whatever the order of receiving and finishing, both invariants hold at every point, and all is committed at the end."""
    book = ledger(0)
    open_offsets: dict[int, int] = {}
    last = next_offset = 0
    for _ in range(data.draw(st.integers(0, 40))):
        if open_offsets and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(sorted(open_offsets)))
            book.done(offset)
            open_offsets[offset] -= 1
            if not open_offsets[offset]:
                del open_offsets[offset]
        else:
            next_offset += data.draw(st.integers(0, 3))
            requests = data.draw(st.integers(0, 3))
            if book.receive(next_offset, requests):
                open_offsets[next_offset] = requests
            next_offset += 1
        assert book.committable() >= last
        assert book.committable() == min(open_offsets, default=next_offset)
        assert book.open_offsets() == len(open_offsets)
        last = book.committable()
    for offset, left in list(open_offsets.items()):
        for _ in range(left):
            book.done(offset)
    assert book.committable() == next_offset
