"""Bodies of `/v1/chat/completions` and `/v1/completions`."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Self

from pydantic import FailFast, Field, Strict, model_validator

from schemas.faults import fault
from schemas.fields import LogitBias, Metadata, ModelName, Penalty, Prompt, ServiceTier, Stop, StopTokenIds, TextFormat, Tier, User
from schemas.messages import Message
from schemas.sampling import MOST_TOKENS, MinP, MinTokens, RepetitionPenalty, SamplingParams, Temperature, Tokens, TopP
from schemas.wire_model import WireModel

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for `/v1/completions`."""

MAX_CHOICES = 128
MAX_LOGPROBS = 20

Alternatives = Annotated[int, Field(ge=0, le=MAX_LOGPROBS)]

_TOOLS = frozenset({"tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "web_search_options"})
_CHAT_ONLY = frozenset({"audio", "modalities", "prediction", "reasoning_effort", "verbosity"})
_ACCOUNT = frozenset({"store", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "moderation"})
_COMPLETION_ONLY = frozenset({"best_of", "suffix"})
_VLLM = frozenset(
    {
        *("use_beam_search", "length_penalty", "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens"),
        *("truncate_prompt_tokens", "prompt_logprobs", "allowed_token_ids", "bad_words", "add_special_tokens", "response_prefix"),
        *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structural_tag"),
        *("add_generation_prompt", "continue_final_message", "chat_template", "chat_template_kwargs", "documents", "include_reasoning"),
        *("priority", "request_id", "return_token_ids", "return_tokens_as_token_ids", "cache_salt", "kv_transfer_params", "vllm_xargs"),
        *("mm_processor_kwargs", "logits_processors", "prompt_embeds"),
    }
)


class StreamOptions(WireModel):
    """Options of a stream. The log's `end` event carries usage in any case; the gateway heeds `include_usage`."""

    unsupported: ClassVar = frozenset({"include_obfuscation", "continuous_usage_stats"})

    include_usage: bool = False


class Generation(WireModel, ABC):
    """What both generating endpoints take."""

    model: ModelName
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    min_tokens: MinTokens = 0
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    top_k: Annotated[int, Field(ge=-1, le=MOST_TOKENS)] = 0
    min_p: MinP = 0.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop = ()
    stop_token_ids: StopTokenIds = ()
    ignore_eos: bool = False
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    logit_bias: LogitBias = Field(default_factory=tuple)
    top_logprobs: Alternatives | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: TextFormat = None
    service_tier: Tier = ServiceTier.DEFAULT
    metadata: Metadata = Field(default_factory=tuple)
    user: User | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise fault("invalid_request", "differs from max_tokens: send one of them", at="max_completion_tokens")
        limit = self.max_output_tokens
        if limit is not None and self.min_tokens > limit:
            raise fault("invalid_request", f"is {self.min_tokens}, but the output ends at {limit}: raise max_tokens", at="min_tokens")
        if self.stream_options is not None and not self.stream:
            raise fault("invalid_request", "needs stream to be true", at="stream_options")
        if self.top_logprobs is not None and self.logprobs_count is None:
            raise fault("invalid_request", "needs logprobs", at="top_logprobs")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether an SSE stream ends with usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def max_output_tokens(self) -> int | None:
        """Bound of each choice's output; None where only the context bounds it."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    @abstractmethod
    def logprobs_count(self) -> int | None:
        """How many alternatives each token's logprobs list; None where logprobs are off."""

    @property
    def sampling(self) -> SamplingParams:
        """The parameters for the engine."""
        return SamplingParams(
            max_tokens=self.max_output_tokens,
            min_tokens=self.min_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            seed=self.seed,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            logprobs=self.logprobs_count,
            n=self.n,
        )


class ChatBody(Generation):
    """Body of `/v1/chat/completions`."""

    unsupported: ClassVar = _TOOLS | _CHAT_ONLY | _ACCOUNT | _VLLM

    messages: Annotated[tuple[Message, ...], Strict(strict=False), FailFast(), Field(min_length=1, repr=False)]
    logprobs: bool = False

    @property
    def logprobs_count(self) -> int | None:
        """`top_logprobs`, where `logprobs` is true."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Generation):
    """Body of `/v1/completions`. `top_logprobs`, chat's name, may repeat `logprobs`; with `echo` the answer begins with the prompt."""

    unsupported: ClassVar = _COMPLETION_ONLY | _ACCOUNT | _VLLM

    prompt: Annotated[Prompt, Field(repr=False)]
    logprobs: Alternatives | None = None
    echo: bool = False

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.top_logprobs not in (None, self.logprobs):
            raise fault("invalid_request", "differs from logprobs, which holds the count here: leave top_logprobs out", at="top_logprobs")
        return self

    @property
    def max_output_tokens(self) -> int:
        """Bound of each choice's output."""
        asked = super().max_output_tokens
        return COMPLETION_MAX_TOKENS if asked is None else asked

    @property
    def logprobs_count(self) -> int | None:
        """`logprobs` as it is."""
        return self.logprobs
