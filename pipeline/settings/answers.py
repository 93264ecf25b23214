"""How answers leave, and which are kept."""

from pydantic import Field

from pipeline.settings.group import Group


class StreamSettings(Group):
    """How output tokens become events."""

    flush_interval_ms: int = Field(default=50, ge=0, le=10_000, description="longest wait of a token for its event, after the first")
    flex_flush_interval_ms: int = Field(default=250, ge=0, le=10_000, description="the same for flex work, which nobody reads along")
    flush_tokens: int = Field(default=32, ge=1, le=4_096, description="tokens that are sent without waiting longer")
    max_unacknowledged_mib: int = Field(default=32, ge=1, le=4_096, description="above it decoding and intake pause")


class ResponseCacheSettings(Group):
    """Answers to greedy, seeded and pooled requests, given again to the same tenant's same request.

    Off unless asked for: it keeps outputs in memory after they were delivered, and who repeats a request to measure or to probe the
    model wants it computed.
    """

    enabled: bool = Field(default=False, description="keep answers to deterministic requests and give them again")
    max_mib: int = Field(default=64, ge=1, le=65_536, description="memory that answers may take; the least recently used go first")
    max_age_s: float = Field(default=3_600.0, gt=0.0, description="how long an answer is given again")
