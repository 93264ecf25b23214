"""From ids to text, one at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.detokenizer import ByteDetokenizer, SilentDetokenizer, WindowDetokenizer, detokenizer
from pipeline.engine.vocabulary import Vocabulary
from tests.engine.tiny_tokenizers import byte_level, sentencepiece_like

BYTE_LEVEL = Vocabulary(byte_level())
PIECES = Vocabulary(sentencepiece_like())
BYTE_TOKENS = frozenset(i for piece, i in PIECES.tokenizer.get_vocab().items() if piece.startswith("<0x"))


def increments(vocabulary: Vocabulary, token_ids: list[int]) -> list[str]:
    """What each id adds, and the flush."""
    one = detokenizer(vocabulary)
    return [*(one.feed(token) for token in token_ids), one.flush()]


def spelt(text: str) -> list[int]:
    """The ids of a text, without control tokens."""
    return PIECES.tokenizer.encode(text, add_special_tokens=False)


def test_each_way_of_spelling_gets_its_detokenizer():
    """Bytes where ids are bytes, a window elsewhere, silence without a tokenizer."""
    assert isinstance(detokenizer(BYTE_LEVEL), ByteDetokenizer)
    assert isinstance(detokenizer(PIECES), WindowDetokenizer)
    assert isinstance(detokenizer(None), SilentDetokenizer)
    assert increments(None, [1, 2]) == ["", "", ""]


@given(st.lists(st.integers(0, len(BYTE_LEVEL.tokenizer) + 3), max_size=40))
def test_bytes_add_up_to_the_decoding_of_all_ids(token_ids):
    """For any ids, broken characters, control tokens and unknown ids included."""
    assert "".join(increments(BYTE_LEVEL, token_ids)) == BYTE_LEVEL.decode(token_ids)


@given(st.lists(st.integers(0, len(BYTE_LEVEL.tokenizer) - 1), max_size=40))
def test_a_window_over_bytes_adds_up_as_well(token_ids):
    """The general way, on the spelling that breaks characters most."""
    one = WindowDetokenizer(BYTE_LEVEL)
    text = "".join(one.feed(token) for token in token_ids) + one.flush()
    assert text == BYTE_LEVEL.decode(token_ids)


@given(
    st.lists(
        st.lists(st.sampled_from(sorted(set(range(len(PIECES.tokenizer))) - BYTE_TOKENS)), max_size=6) | st.text("aé水🌊 \n", max_size=5).map(spelt),
        max_size=8,
    )
)
def test_pieces_add_up_to_the_decoding_of_all_ids(runs):
    """For any ids, leading spaces and control tokens included, and characters that are spelt byte by byte."""
    token_ids = [token for run in runs for token in run]
    assert "".join(increments(PIECES, token_ids)) == PIECES.decode(token_ids)


def test_bytes_that_turn_out_broken_take_back_nothing_that_was_shown():
    """A character that was whole stays; the bytes after it that never become one are replaced, and the text goes on."""
    broken = PIECES.tokenizer.convert_tokens_to_ids("<0xFF>")
    shown = increments(PIECES, [*spelt("🦆"), broken, broken, *spelt("water")])
    assert "".join(shown).startswith("🦆")
    assert "".join(shown).endswith("water")
    assert "\ufffd" in "".join(shown)


@given(st.lists(st.integers(0, len(PIECES.tokenizer) - 1), max_size=40))
def test_control_tokens_and_broken_bytes_aside_no_piece_is_lost(token_ids):
    """Every ordinary piece of any output is in the text, in order, whatever surrounds it."""
    text = "".join(increments(PIECES, token_ids)).replace(" ", "")
    position = 0
    for token in token_ids:
        if token not in BYTE_TOKENS and token not in PIECES.control_ids:
            piece = PIECES.tokenizer.convert_ids_to_tokens(token).replace("▁", "")
            found = text.find(piece, position)
            assert found >= position
            position = found + len(piece)


@pytest.mark.parametrize("vocabulary", [BYTE_LEVEL, PIECES], ids=["bytes", "pieces"])
def test_half_a_character_is_held_back_until_it_is_whole(vocabulary):
    """A character of several tokens appears with its last one, never as a replacement character before."""
    token_ids = vocabulary.tokenizer.encode("🦆", add_special_tokens=False)
    assert len(token_ids) > 2
    shown = increments(vocabulary, token_ids)
    assert "".join(shown[:-2]).strip() == ""
    assert shown[-2] == "🦆"


def test_half_a_character_at_the_end_is_flushed_as_a_replacement():
    """What never becomes whole is shown when the output ends."""
    token_ids = BYTE_LEVEL.tokenizer.encode("🦆", add_special_tokens=False)[:2]
    *fed, flushed = increments(BYTE_LEVEL, token_ids)
    assert "".join(fed) == ""
    assert flushed == BYTE_LEVEL.decode(token_ids) == "\ufffd"


def test_the_window_stays_short_however_long_the_output():
    """Each token costs the same: no run of ids, shown or silent, makes the window grow without bound."""
    space = PIECES.tokenizer.convert_tokens_to_ids("▁")
    broken = PIECES.tokenizer.convert_tokens_to_ids("<0xFF>")
    for token in (space, broken, spelt("water")[0]):
        one = WindowDetokenizer(PIECES)
        longest = 0
        for _ in range(500):
            one.feed(token)
            longest = max(longest, len(one._window))
        assert longest <= 130
