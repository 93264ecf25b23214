"""What computes and how: the device, the size of a step, what it shall keep to."""

from enum import StrEnum

from pydantic import Field

from pipeline.settings.group import Group


class DtypeChoice(StrEnum):
    """Precision of weights and KV cache. `auto` keeps the checkpoint's where the device computes it natively, else float32."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class DeviceChoice(StrEnum):
    """Where the model runs. `auto` takes the first that exists of cuda, mps, cpu."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class KernelCompiling(StrEnum):
    """When a worker compiles kernels that are not on disk yet."""

    BACKGROUND = "background"
    BEFORE = "before"


class EngineSettings(Group):
    """Size of a step and of the KV cache."""

    max_sequences: int = Field(default=64, ge=1, le=4_096, description="running sequences per step")
    token_budget: int = Field(default=1_024, ge=16, le=1_048_576, description="tokens per step, prefill and decode together")
    pooling_token_budget: int = Field(default=2_048, ge=16, le=1_048_576, description="tokens per step of a model that only reads")
    block_tokens: int = Field(default=32, ge=1, le=1_024, description="tokens per KV block: fewer than fill a memory page per head are read slowly")
    kv_cache_mib: int | None = Field(default=None, ge=1, description="KV cache; unset: what max_sequences need, within half the free memory")
    context_tokens: int | None = Field(default=None, ge=1, description="longest prompt and output together; unset: the model's own")
    threads: int | None = Field(default=None, ge=1, description="compute threads; unset: the cores that there are, one for small models")
    compile: KernelCompiling = Field(
        default=KernelCompiling.BACKGROUND,
        description="kernels not on disk yet: background: a worker serves at once, and faster when they are there; before: it waits for them",
    )
    prefix_cache: bool = Field(default=True, description="keep what was computed for prompts that begin alike, for each tenant by itself")
    attempts: int = Field(default=2, ge=1, le=10, description="how often a request that fails in the engine is tried")
    max_wait_ms: int = Field(default=5, ge=0, le=1_000, description="longest wait of a text to be embedded or classified for company in its step")


class TargetSettings(Group):
    """What live requests (service tiers priority and default) shall get. Batches become as large as that allows; unset: as they can."""

    ttft_ms: float | None = Field(default=None, gt=0.0, description="time to the first token that 95 of 100 live requests stay within")
    tpot_ms: float | None = Field(default=None, gt=0.0, description="mean time between tokens that 95 of 100 live requests stay within")
