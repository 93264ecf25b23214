"""The door of a worker through which rows of datasets come."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from pipeline.settings.group import Group


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
