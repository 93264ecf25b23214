"""How tokens are drawn: the bounds of the parameters, for requests and jobs alike, and the parameters of one generation, after validation."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

MOST_TOKENS = 2**31

Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
MinTokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
MinP = Annotated[float, Field(ge=0, le=1)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=10)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The requester's choices, endpoint defaults filled in.

    `max_tokens` is None where only the context bounds the output (chat). `top_k` 0 means off. `logprobs` is None when
    off, else how many alternatives go with the chosen token's own. `seed` is any signed 64-bit number; without one every
    request draws differently.
    """

    max_tokens: int | None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    n: int = 1
