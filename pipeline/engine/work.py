"""What `prepare` makes of a request, and every later stage reads."""

from dataclasses import dataclass

from schemas.request import SamplingParams


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Work:
    """A generation, validated against the model.

    Attributes:
        prompt_ids: The tokenised prompt.
        sampling: As asked for, except that `seed` is always set; its `max_tokens` and `min_tokens` do not count.
        max_tokens: Bound of each choice's output, within what the context leaves.
        min_tokens: Output tokens before which nothing ends a choice.
        end_ids: Tokens that end a choice: the model's end-of-sequence set and the request's own.
        echo: The prompt's text, where the answer begins with it.
        is_chat: Whether the answer is a chat completion, for the form of log-probabilities.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    max_tokens: int
    min_tokens: int
    end_ids: frozenset[int]
    is_chat: bool
    echo: str | None = None

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are wanted."""
        return self.echo is not None and self.sampling.logprobs is not None
