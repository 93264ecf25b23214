"""A tokenizer as the engine needs it: what each id stands for, and which ids are control tokens."""

import json
import random
from typing import Any

BYTE_CHARACTERS = {
    character: byte
    for byte, character in zip(
        [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173],
        [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 256)), *map(chr, range(256, 324))],
        strict=True,
    )
}
"""GPT-2's printable stand-ins for bytes (Radford et al. 2019), as byte-level tokenizers write their vocabulary."""


class Vocabulary:
    """The tokens of one tokenizer.

    Attributes:
        tokenizer: transformers' tokenizer.
        control_ids: Tokens that steer the model and are no text.
        token_bytes: For a byte-level tokenizer what each id adds to the output, control tokens nothing. None for others: there
            the text of an id depends on its neighbours.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.control_ids = frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.token_bytes = self._byte_table()

    def decode(self, token_ids: list[int]) -> str:
        """The text of a run of ids, control tokens left out and spaces left as they are."""
        text: str = self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def piece_bytes(self, token_id: int) -> bytes:
        """What one id stands for by itself, control tokens spelt out; for log-probabilities."""
        if self.token_bytes is not None and token_id not in self.control_ids:
            return self.token_bytes[token_id] if token_id < len(self.token_bytes) else b""
        piece = self.tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return str(piece).replace("\u2581", " ").encode(errors="replace")

    def _byte_table(self) -> list[bytes] | None:
        """Reads the table where the tokenizer decodes byte by byte, and proves it on random ids."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.decoder is None or json.loads(backend.decoder.__getstate__())["type"] != "ByteLevel":
            return None
        size = max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        table = [b"" if i in self.control_ids else _piece_bytes(backend.id_to_token(i) or "") for i in range(size)]
        sample = random.Random(0).choices(range(size), k=256)  # noqa: S311 -- any sample will do
        agrees = b"".join(table[i] for i in sample).decode(errors="replace") == self.decode(sample)
        return table if agrees else None


def _piece_bytes(piece: str) -> bytes:
    try:
        return bytes(BYTE_CHARACTERS[character] for character in piece)
    except KeyError:  # an added token, written as text
        return piece.encode()
