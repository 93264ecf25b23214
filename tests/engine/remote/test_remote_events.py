from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.remote.events import MAX_EVENT_BYTES, EventReader
from schemas.errors import EngineError

STREAM = b": a comment\r\ndata: one\r\n\r\nevent: x\ndata:two\n\ndata: three\ndata: lines\n\nid: 5\n\n\ndata: unfinished"
EVENTS = [b"one", b"two", b"three\nlines"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]):
    """Lines, events and even the two bytes of a line's end may arrive apart."""
    reader, edges = EventReader(), [0, *sorted(cuts), len(STREAM)]
    assert [event for start, end in pairwise(edges) for event in reader.feed(STREAM[start:end])] == EVENTS


@pytest.mark.parametrize("piece", [b"x" * 1_000, b"data: " + b"x" * 1_000 + b"\n"], ids=["one line", "many lines"])
def test_an_event_without_an_end_is_cut_off(piece: bytes):
    """Whether it is one line or thousands of them."""
    reader = EventReader()

    def feed_twice_the_bound() -> None:
        for _ in range(2 * MAX_EVENT_BYTES // len(piece)):
            assert list(reader.feed(piece)) == []

    with pytest.raises(EngineError, match="never ends"):
        feed_twice_the_bound()
