"""Log-probabilities in OpenAI's words, for chat and for completions."""

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


def _entry(token_id: int, logprob: float, vocabulary: Vocabulary | None) -> dict[str, Any]:
    spelling = b"" if vocabulary is None else vocabulary.piece_bytes(token_id)
    return {"token": spelling.decode(errors="replace"), "logprob": logprob, "bytes": list(spelling)}


def _text(token_id: int, vocabulary: Vocabulary | None) -> str:
    return f"token_id:{token_id}" if vocabulary is None else vocabulary.piece_bytes(token_id).decode(errors="replace")
