"""Log-probabilities in OpenAI's words, for chat and for completions."""

from collections.abc import Sequence as Seq
from itertools import repeat
from typing import Any

from pipeline.engine.sampler import TokenLogprobs
from pipeline.engine.vocabulary import Vocabulary


def chat_logprobs(token_id: int, logprobs: TokenLogprobs, vocabulary: Vocabulary | None) -> dict[str, Any]:
    """The `logprobs` object of a chat chunk that adds one token."""
    top = [_entry(i, value, vocabulary) for i, value in logprobs.top]
    return {"content": [_entry(token_id, logprobs.chosen, vocabulary) | {"top_logprobs": top}], "refusal": None}


def completion_logprobs(token_id: int, logprobs: TokenLogprobs, vocabulary: Vocabulary | None, text_offset: int) -> dict[str, Any]:
    """The `logprobs` object of a completion chunk that adds one token, `text_offset` characters into the output."""
    # Two ids may share a spelling (halves of characters); the likelier one, which comes first, keeps the name.
    top = {_text(i, vocabulary): value for i, value in reversed(logprobs.top)}
    own = _text(token_id, vocabulary)
    return {
        "tokens": [own],
        "token_logprobs": [logprobs.chosen],
        "top_logprobs": [{own: logprobs.chosen} | top],
        "text_offset": [text_offset],
    }


def prompt_logprobs(prompt_ids: Seq[int], scores: Seq[TokenLogprobs], offsets: Seq[int], vocabulary: Vocabulary | None) -> dict[str, Any]:
    """The `logprobs` object of an echoed prompt. Nothing comes before its first token, so that one has no log-probability.

    Args:
        prompt_ids: The prompt.
        scores: Of each token but the first.
        offsets: Where each token's text begins.
        vocabulary: What the tokens stand for.
    """
    first = {"tokens": [_text(prompt_ids[0], vocabulary)], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [offsets[0]]}
    parts = [first, *map(completion_logprobs, prompt_ids[1:], scores, repeat(vocabulary), offsets[1:])]
    return {name: [value for part in parts for value in part[name]] for name in first}


def _entry(token_id: int, logprob: float, vocabulary: Vocabulary | None) -> dict[str, Any]:
    spelling = b"" if vocabulary is None else vocabulary.piece_bytes(token_id)
    return {"token": spelling.decode(errors="replace"), "logprob": logprob, "bytes": list(spelling)}


def _text(token_id: int, vocabulary: Vocabulary | None) -> str:
    return f"token_id:{token_id}" if vocabulary is None else vocabulary.piece_bytes(token_id).decode(errors="replace")
