"""Text of others on its way to a terminal."""

import json
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.console import write_json
from pipeline.cli.neutral import neutral

HOSTILE = st.text(st.one_of(st.characters(max_codepoint=0x9F), st.characters(exclude_categories=["Cs"])))


@given(text=HOSTILE)
def test_no_control_character_is_left_but_newline_and_tab(text: str):
    """Whatever a model writes, nothing in it can move the cursor, set a title or ring."""
    left = {c for c in neutral(text) if unicodedata.category(c) == "Cc"}
    assert left <= {"\n", "\t"}


@given(text=HOSTILE)
def test_everything_else_is_kept(text: str):
    """Only controls are replaced, one character by one."""
    assert len(neutral(text)) == len(text)
    assert all(b == a for a, b in zip(text, neutral(text), strict=True) if unicodedata.category(a) != "Cc" or a in "\n\t")


@given(text=HOSTILE, cuts=st.lists(st.integers(0, 50), max_size=5))
def test_a_sequence_in_pieces_is_harmless_too(text: str, cuts: list[int]):
    """Neutralising piece by piece gives the same as all at once, wherever a stream is cut."""
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    assert "".join(map(neutral, pieces)) == neutral(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\u241b[31mred"),
        ("\x1b]0;title\x07", "\u241b]0;title\u2407"),
        ("\x9b2J", "\ufffd2J"),
        ("over\rwritten\x08\x7f", "over\u240dwritten\u2408\u2421"),
        ("tab\tand\nnewline, Grüße 你好 🙂", "tab\tand\nnewline, Grüße 你好 🙂"),
    ],
)
def test_known_attacks_are_shown_as_pictures(text: str, shown: str):
    """Escape sequences, titles, 8-bit controls and overwriting are made visible; text is left alone."""
    assert neutral(text) == shown


@given(text=HOSTILE)
def test_json_output_holds_no_raw_control_and_says_the_same(text: str):
    """A JSON line is safe on a terminal and parses to what was written."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout.write", lines.append)
        write_json({"text": text})
    assert not [c for c in "".join(lines)[:-1] if unicodedata.category(c) == "Cc"]
    assert json.loads("".join(lines)) == {"text": text}
