"""Bodies of the endpoints that read text and write none: embeddings as OpenAI defines them, the others as vLLM does."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from schemas.faults import fault
from schemas.fields import Inputs, ModelName, ServiceTier, Texts, Tier, User
from schemas.wire_model import WireModel

_VLLM = frozenset({"priority", "request_id", "mm_processor_kwargs", "cache_salt", "messages", "add_generation_prompt", "chat_template"})
_VLLM_ACTIVATION = frozenset({"softmax", "activation"})


class Pooled(WireModel):
    """What all of them take. `truncate_prompt_tokens` cuts a text that is longer; -1 cuts at the model's context."""

    model: ModelName
    user: User | None = None
    service_tier: Tier = ServiceTier.DEFAULT
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=2**31)] | None = None

    @model_validator(mode="after")
    def _keeps_something(self) -> Self:
        if self.truncate_prompt_tokens == 0:
            raise fault("invalid_request", "must be at least 1, or -1 for the model's context", at="truncate_prompt_tokens")
        return self


class EmbeddingsBody(Pooled):
    """Body of `/v1/embeddings`. One text, or the ids of one, is a list of one."""

    unsupported: ClassVar = _VLLM | {"add_special_tokens", "normalize", "embed_dtype", "endianness"}

    input: Annotated[Inputs, Field(repr=False)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None


class ScoreBody(Pooled):
    """Body of `/v1/score`: one text against each of several, or pairs. `queries` and `documents` are other names."""

    unsupported: ClassVar = _VLLM | _VLLM_ACTIVATION | {"data_1", "data_2", "items"}

    text_1: Annotated[Texts, Field(validation_alias=AliasChoices("text_1", "queries"), repr=False)]
    text_2: Annotated[Texts, Field(validation_alias=AliasChoices("text_2", "documents"), repr=False)]
    use_activation: bool = True

    @model_validator(mode="after")
    def _pairs_up(self) -> Self:
        if len(self.text_1) not in (1, len(self.text_2)):
            raise fault("invalid_request", "must hold one text, or as many as text_2", at="text_1")
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The pairs to score, in the order of the answer."""
        firsts = self.text_1 * len(self.text_2) if len(self.text_1) == 1 else self.text_1
        return tuple(zip(firsts, self.text_2, strict=True))


class RerankBody(Pooled):
    """Body of `/v1/rerank`. `top_n` 0 or absent means all."""

    unsupported: ClassVar = _VLLM | _VLLM_ACTIVATION | {"return_documents", "max_tokens_per_doc", "rank_fields"}

    query: Annotated[str, Field(min_length=1, repr=False)]
    documents: Annotated[Texts, Field(repr=False)]
    top_n: Annotated[int, Field(ge=0, le=2**31)] = 0
    use_activation: bool = True


class ClassifyBody(Pooled):
    """Body of `/v1/classify`. One text, or the ids of one, is a list of one."""

    unsupported: ClassVar = _VLLM | _VLLM_ACTIVATION | {"add_special_tokens"}

    input: Annotated[Inputs, Field(repr=False)]
    use_activation: bool = True
