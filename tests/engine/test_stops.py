"""Stop strings."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.stops import StopStrings

SMALL = st.text("ab", min_size=1, max_size=5)


@given(pieces=st.lists(st.text("abc", max_size=4), max_size=20), stops=st.lists(SMALL, max_size=3))
def test_text_ends_before_the_stop_string_that_is_complete_first(pieces, stops):
    """However the text is cut into pieces, what is shown is the text up to the first stop string, and nothing of it leaks."""
    watch = StopStrings(stops)
    shown = "".join(watch.feed(piece) for piece in pieces)
    text = "".join(pieces)
    ends = sorted((text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text)
    if ends:
        assert watch.matched
        assert shown == text[: ends[0][1]]
        assert watch.flush() == ""
    else:
        assert not watch.matched
        assert text.startswith(shown)
        assert shown + watch.flush() == text


@given(text=st.text("ab", max_size=30), stop=SMALL)
def test_no_more_is_held_back_than_could_begin_a_stop_string(text, stop):
    """The held text is the longest suffix that is a proper prefix of the stop string."""
    watch = StopStrings((stop,))
    shown = watch.feed(text)
    if not watch.matched:
        held = next(n for n in range(min(len(stop) - 1, len(text)), -1, -1) if stop.startswith(text[len(text) - n :]))
        assert len(text) - len(shown) == held


def test_nothing_follows_a_match():
    """Text after the stop string is swallowed."""
    watch = StopStrings(("\n\n",))
    assert watch.feed("one\n") == "one"
    assert watch.feed("\ntwo") == ""
    assert watch.feed("three") == ""
