"""Tenants: what each may do, and how much of it."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, SecretStr, field_validator

from pipeline.settings.group import Group


class Tenant(Group):
    """What one tenant may do. `reply_topics` are names or shell patterns (`team-a.*`) that its `reply_to` may name."""

    reply_topics: tuple[str, ...] = Field(default=(), description="topics or patterns that its reply_to may name")
    weight: float = Field(default=1.0, gt=0.0, le=1_000.0, description="its share of a lane when tenants compete, relative to the others'")


class RateSettings(Group):
    """What one tenant may ask for in a minute."""

    requests_per_minute: float | None = Field(default=None, gt=0.0, description="requests per minute; unset: no limit")
    tokens_per_minute: float | None = Field(default=None, gt=0.0, description="tokens per minute, prompts and outputs; unset: no limit")


class StoreLoss(StrEnum):
    """What rate limits do while the store that workers share is away."""

    LOCAL = "local"
    ADMIT = "admit"
    REFUSE = "refuse"


class RateLimitSettings(RateSettings):
    """Rates of tenants. Beyond them requests are refused with `rate_limited` and a time after which to try again."""

    tenants: Mapping[str, RateSettings] = Field(
        default_factory=dict, description="rates by tenant, each in place of the default's; what it leaves out is not limited"
    )
    burst_s: float = Field(default=60.0, gt=0.0, le=86_400.0, description="how many seconds' worth of its rate a tenant may use at once")
    refusals_per_s: float = Field(
        default=50.0, gt=0.0, le=100_000.0, description="refusals in a second while other tenants have requests; the rest waits in the log"
    )
    redis_url: SecretStr | None = Field(default=None, description="Redis in which workers share the rates; unset: each worker counts alone")
    redis_timeout_ms: int = Field(default=50, ge=1, le=1_000, description="longest wait for Redis; one question is asked per poll")
    on_redis_loss: StoreLoss = Field(
        default=StoreLoss.LOCAL, description="without Redis: local: each worker counts alone, admit: no limits, refuse: no requests"
    )

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url
