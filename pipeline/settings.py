"""Every knob, as one frozen tree: flags win over the environment (`PENSTOCK_KAFKA__GROUP_ID`), the environment over a TOML file.

An unknown name, a wrong value or a contradiction refuses to start and says which setting it is.
"""

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from schemas.topics import DEFAULT_PREFIX, Topics

ENV_PREFIX = "PENSTOCK_"
TOPIC_NAME = r"^[a-zA-Z0-9._-]{1,200}$"
MIB = 1024 * 1024


class BadConfiguration(Exception):
    """A setting is wrong; the message names it and the process exits with 78."""


class TransportKind(StrEnum):
    """Which log carries the requests."""

    KAFKA = "kafka"
    EMBEDDED = "embedded"


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


class EngineKind(StrEnum):
    """What computes a model."""

    TRANSFORMERS = "transformers"
    OPENAI = "openai"
    FAKE = "fake"


class KernelCompiling(StrEnum):
    """When a worker compiles kernels that are not on disk yet."""

    BACKGROUND = "background"
    BEFORE = "before"


class Dialect(StrEnum):
    """Which fields a remote server takes: OpenAI's own, or vLLM's too, with which it also returns token ids."""

    OPENAI = "openai"
    VLLM = "vllm"


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class StoreLoss(StrEnum):
    """What rate limits do while the store that workers share is away."""

    LOCAL = "local"
    ADMIT = "admit"
    REFUSE = "refuse"


class Overflow(StrEnum):
    """What happens to requests for which the queue has no room."""

    PAUSE = "pause"
    REFUSE = "refuse"


class Group(BaseModel):
    """A group of settings: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestTopic(Group):
    """A further topic to take requests from, on behalf of one tenant."""

    topic: str = Field(pattern=TOPIC_NAME, description="name of the topic")
    tenant: str = Field(min_length=1, max_length=128, description="whose requests it carries")


class Tenant(Group):
    """What one tenant may do. `reply_topics` are names or shell patterns (`team-a.*`) that its `reply_to` may name."""

    reply_topics: tuple[str, ...] = Field(default=(), description="topics or patterns that its reply_to may name")
    weight: float = Field(default=1.0, gt=0.0, le=1_000.0, description="its share of a lane when tenants compete, relative to the others'")


class KafkaSettings(Group):
    """How to reach Kafka. Security settings go to the client as they are."""

    bootstrap_servers: str = Field(default="127.0.0.1:9092", description="brokers to start from: host:port, separated by commas")
    group_id: str = Field(default="penstock", min_length=1, description="consumer group: workers of one group share the requests")
    topic_prefix: str = Field(default=DEFAULT_PREFIX, pattern=TOPIC_NAME, description="what the names of all topics begin with")
    session_timeout_ms: int = Field(default=15_000, ge=1_000, le=300_000, description="silence after which the group takes a worker for dead")
    partitions: int = Field(default=12, ge=1, le=1_000, description="partitions of the topics that `topics apply` creates")
    replication_factor: int = Field(default=-1, ge=-1, description="-1: the broker's default")
    create_topics: bool = Field(default=True, description="a worker creates the topics that are missing when it starts")
    request_topics: tuple[RequestTopic, ...] = Field(default=(), description="further topics to take requests from, each for one tenant")
    security_protocol: str = Field(
        default="PLAINTEXT", pattern=r"^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    ssl_cafile: Path | None = Field(default=None, description="certificates of the authorities to trust; unset: the system's")
    ssl_certfile: Path | None = Field(default=None, description="the client's own certificate")
    ssl_keyfile: Path | None = Field(default=None, description="its private key")
    ssl_password: SecretStr | None = Field(default=None, description="password of the private key")
    ssl_check_hostname: bool = Field(default=True, description="whether the broker's certificate must name its host")
    sasl_mechanism: str | None = Field(
        default=None,
        pattern=r"^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|GSSAPI|OAUTHBEARER)$",
        description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI or OAUTHBEARER",
    )
    sasl_username: str | None = Field(default=None, description="who logs in")
    sasl_password: SecretStr | None = Field(default=None, description="the password for it")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism is None:
            raise ValueError("security_protocol asks for SASL: set sasl_mechanism, sasl_username and sasl_password")
        if self.sasl_mechanism in {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} and not (self.sasl_username and self.sasl_password):
            raise ValueError(f"sasl_mechanism {self.sasl_mechanism} needs sasl_username and sasl_password")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together")
        return self


class HttpSettings(Group):
    """The worker's door for health and metrics."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65_535, description="0: any free port")


class EngineSettings(Group):
    """Size of a step and of the KV cache."""

    max_sequences: int = Field(default=64, ge=1, le=4_096, description="running sequences per step")
    token_budget: int = Field(default=1_024, ge=16, le=1_048_576, description="tokens per step, prefill and decode together")
    block_tokens: int = Field(default=16, ge=1, le=1_024, description="tokens per KV block")
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


class StreamSettings(Group):
    """How output tokens become events."""

    flush_interval_ms: int = Field(default=50, ge=0, le=10_000, description="longest wait of a token for its event, after the first")
    flush_tokens: int = Field(default=32, ge=1, le=4_096, description="tokens that are sent without waiting longer")
    max_unacknowledged_mib: int = Field(default=32, ge=1, le=4_096, description="above it decoding and intake pause")


class LimitSettings(Group):
    """Bounds on what is taken in; everything beyond is refused or left in the log."""

    record_bytes: int = Field(default=MIB, ge=1_024, le=64 * MIB, description="largest request record")
    record_headers: int = Field(default=64, ge=1, le=1_000, description="headers per request record")
    rows: int = Field(default=4_096, ge=1, le=65_536, description="requests per Arrow record")
    waiting_requests: int = Field(default=2_048, ge=1, description="requests held in memory and not yet running; at the bound partitions pause")
    waiting_tokens: int = Field(default=1_048_576, ge=1, description="their prompt tokens")
    partition_window: int = Field(default=1_024, ge=1, le=1_024, description="offsets taken past the committed one")
    duplicate_window_s: float = Field(default=600.0, ge=0.0, description="how long a finished custom_id is remembered")
    drain_s: float = Field(default=30.0, ge=0.0, description="how long running requests may go on after SIGTERM or a rebalance")


class RateSettings(Group):
    """What one tenant may ask for in a minute."""

    requests_per_minute: float | None = Field(default=None, gt=0.0, description="requests per minute; unset: no limit")
    tokens_per_minute: float | None = Field(default=None, gt=0.0, description="tokens per minute, prompts and outputs; unset: no limit")


class RateLimitSettings(RateSettings):
    """Rates of tenants. Beyond them requests are refused with `rate_limited` and a time after which to try again."""

    tenants: Mapping[str, RateSettings] = Field(
        default_factory=dict, description="rates by tenant, each in place of the default's; what it leaves out is not limited"
    )
    burst_s: float = Field(default=60.0, gt=0.0, le=86_400.0, description="how many seconds' worth of its rate a tenant may use at once")
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


class AdmissionSettings(Group):
    """What happens when more comes than can be served in time."""

    overflow: Overflow = Field(
        default=Overflow.PAUSE,
        description="pause: requests wait in the log; refuse: beyond the queue, or past their deadline by prediction, they get overloaded",
    )
    max_wait_s: float | None = Field(default=None, gt=0.0, description="the queue is full when its predicted wait is longer; unset: any wait")


class ResponseCacheSettings(Group):
    """Answers to greedy, seeded and pooled requests, given again to the same tenant's same request.

    Off unless asked for: it keeps outputs in memory after they were delivered, and who repeats a request to measure or to probe the
    model wants it computed.
    """

    enabled: bool = Field(default=False, description="keep answers to deterministic requests and give them again")
    max_mib: int = Field(default=64, ge=1, le=65_536, description="memory that answers may take; the least recently used go first")
    max_age_s: float = Field(default=3_600.0, gt=0.0, description="how long an answer is given again")


class OfflineSettings(Group):
    """Jobs over datasets."""

    shard_rows: int = Field(default=4_096, ge=1, le=1_048_576, description="rows computed and committed together; a planned job keeps its own")


class JobsSettings(Group):
    """Background jobs: who is told of their work, and how much of it at a time."""

    broker_url: SecretStr = Field(
        default=SecretStr("memory://"), description="Celery's broker: redis://, rediss:// or amqp://; memory://: only `penstock up` works on jobs"
    )
    folder: Path | None = Field(
        default=None, description="where submitted jobs are listed, on a disk that all who work on them share; unset: in data_dir"
    )
    worker: str = Field(
        default="auto", description="whose door rows go through: auto, the worker of this machine, unix:///PATH or grpc+tls://HOST:PORT"
    )
    worker_wait_s: float = Field(default=60.0, gt=0.0, description="how long a shard waits for a worker that is away, before others get their turn")
    window: int = Field(default=4, ge=1, le=1_024, description="shards of one job that are queued or computed at a time")
    concurrency: int = Field(
        default=2, ge=1, le=256, description="tasks that one Celery worker runs at a time; two keep a GPU busy from shard to shard"
    )
    visibility_timeout_s: int = Field(
        default=3_600, ge=60, description="silence after which the broker delivers a task again; above any shard's time"
    )
    reconcile_s: float = Field(default=15.0, gt=0.0, description="how often workers look for shards whose message was lost")
    signing_key: Path | None = Field(default=None, description="private key, PEM: messages are signed, and unsigned ones refused")
    signing_certificate: Path | None = Field(default=None, description="its certificate, PEM")
    signing_trusted: str | None = Field(default=None, description="certificates of all who may sign, as a shell pattern: certs/*.pem")
    webhook_secret: SecretStr | None = Field(
        default=None, description="webhooks are signed with it as Standard Webhooks says; whsec_ and base64, or text"
    )
    webhook_private_addresses: bool = Field(default=False, description="whether webhooks may go to addresses of private networks")

    @field_validator("broker_url")
    @classmethod
    def _is_safe(cls, url: SecretStr) -> SecretStr:
        known = ("redis://", "rediss://", "amqp://", "amqps://", "memory://")
        if not url.get_secret_value().startswith(known):
            raise ValueError(f"must begin with one of {', '.join(known)}: others lose tasks when a worker is killed")
        return url

    @model_validator(mode="after")
    def _signs_in_full(self) -> Self:
        parts = (self.signing_key, self.signing_certificate, self.signing_trusted)
        if any(part is not None for part in parts) and None in parts:
            raise ValueError("signing_key, signing_certificate and signing_trusted go together")
        return self


class BulkSettings(Group):
    """The door for rows of datasets. Over a network it opens only with TLS and a token."""

    url: str | None = Field(
        default=None, description="unix:///PATH, grpc+tls://HOST:PORT, or off; unset: a socket in data_dir, which only this user may open"
    )
    certificate: Path | None = Field(default=None, description="grpc+tls: the worker's certificate and those above it, in PEM")
    key: Path | None = Field(default=None, description="grpc+tls: its private key, in PEM")
    token: SecretStr | None = Field(default=None, min_length=16, description="grpc+tls: what a caller has to know, on both sides the same")
    authorities: Path | None = Field(default=None, description="grpc+tls, the caller's side: certificates to trust, in PEM; unset: the system's")
    tokens: int = Field(default=262_144, ge=1, description="tokens of all rows that are computed or wait for it, prompts and longest outputs")
    exchanges: int = Field(default=16, ge=1, le=256, description="callers at a time; beyond that they are asked to come again")

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        url = self.url or "unix://"
        if url != "off" and not url.startswith(("unix://", "grpc+tls://")):
            raise ValueError("url must be unix:///PATH, grpc+tls://HOST:PORT or off; rows don't cross a network in the clear")
        if url.startswith("grpc+tls://") and None in (self.certificate, self.key, self.token):
            raise ValueError("a url with grpc+tls needs certificate, key and token")
        return self


class ModelSettings(Group):
    """One model to serve."""

    name: str = Field(min_length=1, max_length=128, description="what requests call it")
    source: str = Field(min_length=1, description="folder or hub id; with engine openai, what the server calls it")
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub model")
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


class LogSettings(Group):
    """Logging: never prompts, never outputs."""

    level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR")
    format: LogFormat = Field(default=LogFormat.AUTO, description="auto: lines for people on a terminal, JSON elsewhere")


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "penstock"


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True)

    transport: TransportKind = Field(default=TransportKind.KAFKA, description="kafka, or embedded: a SQLite log on this machine")
    data_dir: Path = Field(default_factory=_data_home, description="where the embedded log and a worker's card lie")
    device: DeviceChoice = Field(default=DeviceChoice.AUTO, description="cuda, mps or cpu; auto: the first of them that is there")
    dtype: DtypeChoice = Field(default=DtypeChoice.AUTO, description="auto: the checkpoint's where the device computes it natively, else float32")
    models: tuple[ModelSettings, ...] = Field(default=(), description="models to serve; none: the small one that ships")
    tenants: Mapping[str, Tenant] = Field(default_factory=dict, description="what each tenant may do, by name")
    kafka: KafkaSettings = KafkaSettings()
    http: HttpSettings = HttpSettings()
    engine: EngineSettings = EngineSettings()
    targets: TargetSettings = TargetSettings()
    stream: StreamSettings = StreamSettings()
    limits: LimitSettings = LimitSettings()
    offline: OfflineSettings = OfflineSettings()
    bulk: BulkSettings = BulkSettings()
    jobs: JobsSettings = JobsSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    admission: AdmissionSettings = AdmissionSettings()
    response_cache: ResponseCacheSettings = ResponseCacheSettings()
    log: LogSettings = LogSettings()

    @property
    def topics(self) -> Topics:
        """Topic names under the prefix."""
        return Topics(self.kafka.topic_prefix)

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        names = [model.name for model in models]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two models share the name {', '.join(sorted(twice))}")
        return models


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Reads file, environment and flags, the later over the earlier.

    Args:
        flags: Nested settings from the command line; None values are absent.
        config: A TOML file with the same names.

    Raises:
        BadConfiguration: A setting is unknown, wrong or contradictory; the message names each.
    """
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name.split("__")[0] not in known | {ENV_PREFIX + "TEST_KAFKA"}:
            raise BadConfiguration(f"{name}: no such setting (penstock config show lists them)")
    file = _read(config)

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- pydantic-settings passes it by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 -- likewise
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=file))

    try:
        return Sourced(**_without_none(flags or {}))
    except ValidationError as error:
        raise BadConfiguration("; ".join(_explain(e) for e in error.errors())) from None


def _read(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"{config}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"{config}: not TOML: {error}") from None


def _without_none(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _without_none(value) if isinstance(value, Mapping) else value for name, value in flags.items() if value is not None}


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    variable = ENV_PREFIX + "__".join(str(part) for part in error["loc"]).upper()
    return f"{path} ({variable}): {error['msg']}"
