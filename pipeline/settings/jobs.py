"""Jobs over datasets: their shards, and who works on them."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from pipeline.settings.group import Group


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
    roots: tuple[Path, ...] | None = Field(
        default=None,
        description="folders whose files submitted jobs may read and write; unset: none where others too can list jobs, else what this user may",
    )
    stores: tuple[str, ...] = Field(default=(), description="object stores that submitted jobs may read, as s3://BUCKET or s3://BUCKET/FOLDER")
    output_stores: tuple[str, ...] = Field(default=(), description="object stores that take results of submitted jobs; stores says which may be read")
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

    @field_validator("stores", "output_stores")
    @classmethod
    def _are_stores(cls, stores: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [store for store in stores if "://" not in store or store.startswith("file:")]:
            raise ValueError(f"{wrong[0]} is no object store: write s3://BUCKET, and folders of this machine into roots")
        return stores

    @model_validator(mode="after")
    def _confines_in_full(self) -> Self:
        if (self.stores or self.output_stores) and self.roots is None:
            raise ValueError("stores and output_stores confine jobs, and then roots must name the folders that they may use, or be [] for none")
        return self

    @model_validator(mode="after")
    def _signs_in_full(self) -> Self:
        parts = (self.signing_key, self.signing_certificate, self.signing_trusted)
        if any(part is not None for part in parts) and None in parts:
            raise ValueError("signing_key, signing_certificate and signing_trusted go together")
        return self
