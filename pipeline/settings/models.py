"""The models to serve."""

from enum import StrEnum
from typing import Self

from pydantic import Field, SecretStr, model_validator

from pipeline.models import TINY
from pipeline.settings.group import Group
from schemas.model_ref import ModelRef


class EngineKind(StrEnum):
    """What computes a model."""

    TRANSFORMERS = "transformers"
    OPENAI = "openai"
    FAKE = "fake"


class Dialect(StrEnum):
    """Which fields a remote server takes: OpenAI's own, or vLLM's too, with which it also returns token ids."""

    OPENAI = "openai"
    VLLM = "vllm"


class ModelSettings(ModelRef, Group):
    """One model to serve."""

    engine: EngineKind = Field(
        default=EngineKind.TRANSFORMERS, description="transformers, openai: a server elsewhere, or fake: words without a model"
    )
    url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$", description="engine openai: the server's address, up to its /v1")
    api_key: SecretStr | None = Field(default=None, description="engine openai: the key that the server wants")
    dialect: Dialect = Field(default=Dialect.OPENAI, description="engine openai: fields that the server takes, openai or vllm")
    silence_s: float = Field(default=300.0, gt=0.0, description="engine openai: longest wait for the server's next byte")

    @model_validator(mode="after")
    def _remote(self) -> Self:
        is_remote = self.engine is EngineKind.OPENAI
        if is_remote and self.url is None:
            raise ValueError("engine openai needs a url, such as http://127.0.0.1:8000/v1")
        fields = type(self).model_fields
        given = [name for name in ("api_key", "dialect", "silence_s", "url") if getattr(self, name) != fields[name].default]
        if given and not is_remote:
            raise ValueError(f"{', '.join(given)}: only a model with engine openai has them")
        return self


SHIPPED = ModelSettings(name="tiny", source=str(TINY))
"""The model that ships with Penstock."""
