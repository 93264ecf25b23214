"""Kafka: how to reach it, and the names of what lies there."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from pipeline.settings.group import Group
from schemas.topics import DEFAULT_PREFIX

TOPIC_NAME = r"^[a-zA-Z0-9._-]{1,200}$"


class RequestTopic(Group):
    """A further topic to take requests from, on behalf of one tenant."""

    topic: str = Field(pattern=TOPIC_NAME, description="name of the topic")
    tenant: str = Field(min_length=1, max_length=128, description="whose requests it carries")


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
