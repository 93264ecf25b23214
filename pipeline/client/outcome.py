"""What an application gets back: pieces of a stream while it runs, and the whole answer."""

from dataclasses import dataclass
from typing import Any

from schemas.errors import BY_CODE, PenstockError


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One piece of a stream.

    Attributes:
        text: What this piece adds to its choice; may be empty while text is held back.
        token_ids: The output tokens that it adds.
        index: The choice, where several were asked for.
        logprobs: OpenAI's object for these tokens, where asked for.
        restarted: Everything before this piece is void, and the answer starts over: clear what you have shown. Happens
            only where a worker was lost and its successor could not go on exactly. Such a piece carries no text.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    index: int = 0
    logprobs: dict[str, Any] | None = None
    restarted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A whole answer.

    Attributes:
        custom_id: The request's.
        body: The endpoint's OpenAI response body.
        token_ids: Output tokens per choice; None where the answer was not streamed.
        restarts: How often the stream started over.
    """

    custom_id: str
    body: dict[str, Any]
    token_ids: tuple[tuple[int, ...], ...] | None = None
    restarts: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of every choice; empty for endpoints that write none."""
        return tuple(choice["message"]["content"] if "message" in choice else choice["text"] for choice in self.body.get("choices", ()))

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.texts[0]

    @property
    def finish_reason(self) -> str:
        """Why the first choice ended."""
        return str(self.body["choices"][0]["finish_reason"])

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts, as OpenAI names them."""
        return dict(self.body.get("usage") or {})


def raised(code: str | None, message: str, param: str | None = None, retry_after_ms: int | None = None) -> PenstockError:
    """Makes the exception that a wire error stands for; a code of a later contract becomes the tree's root."""
    kind = BY_CODE.get(code or "")
    error = PenstockError.__new__(kind or PenstockError)
    retry_after_s = None if retry_after_ms is None else retry_after_ms / 1000
    PenstockError.__init__(error, message if kind else f"{code}: {message}", param=param, retry_after_s=retry_after_s)
    return error
