"""From ids to text, one token at a time: what is shown is never taken back.

Half a character is held back until it is whole or known to be broken. The increments of a sequence and its flush add up
to the decoding of all its ids at once. One exception: with tokenizers that spell rare characters as byte tokens, a run of
these that turns out broken is replaced from the break on, where decoding at once would replace the whole run.
"""

import codecs
from typing import Protocol

from pipeline.engine.vocabulary import Vocabulary

PENDING_TOKENS = 8
"""Tokens held back at most: no character takes more, so what is incomplete by then is broken."""

WINDOW_TOKENS = 64
"""Tokens without any text after which the window moves on all the same."""


class Detokenizer(Protocol):
    """Decodes one choice."""

    def feed(self, token_id: int) -> str:
        """Takes the next id and returns the text that is certain now."""
        ...

    def flush(self) -> str:
        """Returns what is held back; nothing follows."""
        ...


class ByteDetokenizer:
    """For byte-level tokenizers: ids are bytes, and UTF-8 tells where a character ends."""

    __slots__ = ("_decode", "_table")

    def __init__(self, table: list[bytes]):
        self._table = table
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, token_id: int) -> str:
        """Takes the next id and returns the text that is certain now."""
        return self._decode(self._table[token_id]) if token_id < len(self._table) else ""

    def flush(self) -> str:
        """Returns what is held back."""
        return self._decode(b"", final=True)


class WindowDetokenizer:
    """For all other tokenizers: decodes a short window again and again, and shows by how much its text grew.

    The window starts a little before what is new, because a token's text depends on those before it (a leading space is
    dropped at the start of a text). The scheme is that of text-generation-inference.
    """

    __slots__ = ("_shown", "_text", "_vocabulary", "_window")

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self._window: list[int] = []  # ids whose text is shown, then ids whose text is not
        self._shown = 0  # how many of the window's ids are
        self._text = ""  # the text of these

    def feed(self, token_id: int) -> str:
        """Takes the next id and returns the text that is certain now."""
        if token_id in self._vocabulary.control_ids:
            return ""
        self._window.append(token_id)
        text = self._vocabulary.decode(self._window)
        if text.endswith("\ufffd") and len(self._window) - self._shown < PENDING_TOKENS:
            return ""
        return self._show(text)

    def flush(self) -> str:
        """Returns what is held back."""
        return self._show(self._vocabulary.decode(self._window)) if self._window else ""

    def _show(self, text: str) -> str:
        new = text[len(self._text) :]
        if new or len(self._window) > WINDOW_TOKENS:
            del self._window[: self._shown]
            self._shown = len(self._window)
            self._text = self._vocabulary.decode(self._window)
        return new


class SilentDetokenizer:
    """For a model without a tokenizer: ids have no text."""

    def feed(self, token_id: int) -> str:  # noqa: ARG002 -- the protocol's
        """There is no text."""
        return ""

    def flush(self) -> str:
        """There is no text."""
        return ""


def detokenizer(vocabulary: Vocabulary | None) -> Detokenizer:
    """Makes the fitting detokenizer for one choice."""
    if vocabulary is None:
        return SilentDetokenizer()
    if vocabulary.token_bytes is not None:
        return ByteDetokenizer(vocabulary.token_bytes)
    return WindowDetokenizer(vocabulary)
