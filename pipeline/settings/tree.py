"""All settings in one tree: the place that gathers the groups."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.settings.answers import ResponseCacheSettings, StreamSettings
from pipeline.settings.bulk import BulkSettings
from pipeline.settings.computing import DeviceChoice, DtypeChoice, EngineSettings, TargetSettings
from pipeline.settings.intake import AdmissionSettings, LimitSettings
from pipeline.settings.jobs import JobsSettings, OfflineSettings
from pipeline.settings.kafka import KafkaSettings
from pipeline.settings.models import SHIPPED, ModelSettings
from pipeline.settings.process import HttpSettings, LogSettings
from pipeline.settings.tenants import RateLimitSettings, Tenant
from schemas.topics import Topics

ENV_PREFIX = "PENSTOCK_"


class TransportKind(StrEnum):
    """Which log carries the requests."""

    KAFKA = "kafka"
    EMBEDDED = "embedded"


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

    @property
    def served_models(self) -> tuple[ModelSettings, ...]:
        """The models to serve: without any in the settings, the one that ships."""
        return self.models or (SHIPPED,)

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        names = [model.name for model in models]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two models share the name {', '.join(sorted(twice))}")
        return models
