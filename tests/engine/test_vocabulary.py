"""What each id stands for."""

import copy

import pytest
from tokenizers import decoders

from pipeline.engine.vocabulary import Vocabulary
from tests.engine.tiny_tokenizers import CONTROL, byte_level, sentencepiece_like

BYTE_LEVEL, PIECES = Vocabulary(byte_level()), Vocabulary(sentencepiece_like())


def test_control_tokens_are_those_that_the_tokenizer_calls_special():
    """An added token that is not special is text."""
    assert BYTE_LEVEL.control_ids == set(BYTE_LEVEL.tokenizer.convert_tokens_to_ids(CONTROL))
    assert BYTE_LEVEL.tokenizer.convert_tokens_to_ids("<tool>") not in BYTE_LEVEL.control_ids


@pytest.mark.parametrize("text", ["water", " the", "é", "🌊", "\n\n", "水の"])
def test_pieces_of_a_text_spell_it(text):
    """Byte for byte, broken characters included; spaces before words are kept."""
    assert b"".join(map(BYTE_LEVEL.piece_bytes, BYTE_LEVEL.tokenizer.encode(text))) == text.encode()
    spelt = b"".join(map(PIECES.piece_bytes, PIECES.tokenizer.encode(text, add_special_tokens=False)))
    assert spelt.decode() == " " + text


def test_control_tokens_are_spelt_out_and_unknown_ids_are_nothing():
    """For log-probabilities, where they may be among the best."""
    assert [BYTE_LEVEL.piece_bytes(i).decode() for i in sorted(BYTE_LEVEL.control_ids)] == CONTROL
    assert BYTE_LEVEL.piece_bytes(10_000) == b""
    assert PIECES.piece_bytes(10_000) == b""


def test_a_table_that_does_not_hold_is_not_used():
    """A tokenizer that decodes otherwise than its bytes say falls back to the general way."""
    tokenizer = copy.deepcopy(byte_level())
    tokenizer.decode = lambda *_, **__: "something else"
    assert Vocabulary(tokenizer).token_bytes is None
    tokenizer = copy.deepcopy(byte_level())
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    assert Vocabulary(tokenizer).token_bytes is None
