"""What is measured of bytes that come in parts of any size."""

from collections.abc import Sequence
from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.offline.flight.frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE_BYTES, RESET, STATUS_200, write_frame
from pipeline.offline.flight.meter import STREAMS, UNAVAILABLE, UNIMPLEMENTED, Answering, Excess, Meter, Room

LIMIT = 300
PREFACE = bytes(PREFACE_BYTES)
CUTS = st.lists(st.integers(0, 4_000), max_size=30)


def message(size_bytes: int, *, is_compressed: bool = False) -> bytes:
    """As gRPC sends it."""
    return pack(">?I", is_compressed, size_bytes) + bytes(size_bytes)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The bytes in parts."""
    ends = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in pairwise(ends)]


def feed(meter: Meter, data: bytes, places: Sequence[int] = ()) -> None:
    """Gives it all."""
    for part in cut(data, places):
        meter.feed(part)


CALLS = st.dictionaries(st.sampled_from([1, 3, 5]), st.tuples(st.lists(st.integers(0, LIMIT), max_size=5), CUTS), max_size=3)


@given(calls=CALLS, places=CUTS, data=st.data())
def test_messages_within_the_limit_pass_however_they_are_cut(calls, places: list[int], data):
    """Into frames, beside each other, and by the network; nothing is held of them at the end."""
    frames = {call: [write_frame(DATA, 0, call, part) for part in cut(b"".join(map(message, sizes)), cuts)] for call, (sizes, cuts) in calls.items()}
    turns = data.draw(st.permutations([call for call, mine in frames.items() for _ in mine]))
    room = Room(len(calls) * LIMIT)
    feed(Meter(room, LIMIT), PREFACE + b"".join(frames[call].pop(0) for call in turns), places)
    assert room.used_bytes == 0


@given(sizes=st.lists(st.integers(0, LIMIT), max_size=5), cuts=CUTS, places=CUTS, too_large=st.integers(LIMIT + 1, 2**32 - 1))
def test_no_byte_of_a_message_beyond_the_limit_passes(sizes: list[int], cuts: list[int], places: list[int], too_large: int):
    """Its length is enough, whatever came before it and wherever that was cut."""
    frames = b"".join(write_frame(DATA, 0, 1, part) for part in cut(b"".join(map(message, sizes)), cuts))
    meter = Meter(Room(LIMIT), LIMIT)
    feed(meter, PREFACE + frames, places)
    with pytest.raises(Excess, match=f"{too_large} bytes") as caught:
        feed(meter, write_frame(DATA, 0, 3, pack(">?I", False, too_large)), places)
    assert caught.value.stream == 3


def test_what_gzip_hides_does_not_pass():
    """A compressed message says nothing of what it stands for."""
    with pytest.raises(Excess, match="compressed") as caught:
        feed(Meter(Room(LIMIT), LIMIT), PREFACE + write_frame(DATA, 0, 1, message(10, is_compressed=True)))
    assert caught.value.code == UNIMPLEMENTED


def test_parts_of_messages_share_a_room():
    """Of all callers; who does not end them, or goes, makes room again."""
    room = Room(LIMIT)
    first, other = Meter(room, LIMIT), Meter(room, LIMIT)
    feed(first, PREFACE + write_frame(DATA, 0, 1, message(200)[:-1]))
    assert room.used_bytes == 199
    with pytest.raises(Excess, match="try again") as caught:
        feed(other, PREFACE + write_frame(DATA, 0, 1, message(200)))
    assert caught.value.code == UNAVAILABLE
    feed(first, write_frame(RESET, 0, 1, bytes(4)))
    assert room.used_bytes == 0
    feed(first, write_frame(DATA, 0, 3, message(200)[:-1]))
    first.close()
    other.close()
    assert room.used_bytes == 0


def test_calls_that_never_end_are_bounded():
    """Those that end make room for others."""
    meter = Meter(Room(LIMIT), LIMIT)
    feed(meter, PREFACE + b"".join(write_frame(DATA, END_STREAM, 2 * call + 1, message(1)) for call in range(2 * STREAMS)))
    with pytest.raises(Excess, match="calls at a time"):
        feed(meter, b"".join(write_frame(DATA, 0, 2 * call + 1, message(1)) for call in range(STREAMS + 1)))


@given(sizes=st.lists(st.integers(0, 50), max_size=6), is_split=st.booleans(), place=st.integers(0, 400))
def test_a_last_word_fits_between_frames_only(sizes: list[int], is_split: bool, place: int):
    """Nor does it fit between the frames of one call's headers."""
    headers = [write_frame(HEADERS, 0, 1, b"x"), write_frame(CONTINUATION, END_HEADERS, 1, b"y")] if is_split else []
    frames = [*headers, *(write_frame(DATA, 0, 1, bytes(size)) for size in sizes)]
    ends = {sum(map(len, frames[:count])) for count in range(len(frames) + 1)} - ({len(headers[0])} if headers else set())
    whole = b"".join(frames)
    answering = Answering()
    answering.feed(whole[:place])
    assert answering.is_between == (min(place, len(whole)) in ends)


@pytest.mark.parametrize(
    ("frames", "begins"),
    [
        ([], True),
        ([write_frame(HEADERS, END_HEADERS, 1, b"x")], False),
        ([write_frame(HEADERS, END_HEADERS, 3, b"x")], True),
        ([write_frame(HEADERS, END_HEADERS | END_STREAM, 1, b"x")], True),
    ],
)
def test_a_last_word_is_a_whole_answer_where_there_is_none_yet(frames: list[bytes], begins: bool):
    """Where the answer has begun it is its end."""
    answering = Answering()
    answering.feed(b"".join(frames))
    word = answering.last_word(Excess("why", 1, 8))
    assert (word[9:10] == STATUS_200) == begins
    assert b"\x0cgrpc-message\x03why" in word
