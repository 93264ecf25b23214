"""The Kafka broker that integration tests talk to: one per session, or one of their own to kill and restart."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from compose.kafka import java
from compose.kafka.broker import KafkaBroker

__all__ = ["ExternalBroker", "KafkaBroker", "PrivateBrokers", "complaints", "delete_topics", "require_kafka"]


@dataclass(frozen=True, slots=True)
class ExternalBroker:
    """A broker that somebody else runs, named by PENSTOCK_TEST_KAFKA."""

    bootstrap_servers: str


@dataclass(slots=True)
class PrivateBrokers:
    """Starts brokers for one test, which may kill, pause and restart them at will."""

    directory: Path
    brokers: list[KafkaBroker] = field(default_factory=list)

    def __call__(self, *, security: bool = False, settings: Mapping[str, str] | None = None) -> KafkaBroker:
        """Starts one more broker and returns it once it answers."""
        broker = KafkaBroker(self.directory / f"kafka-{len(self.brokers)}", security=security, settings=settings)
        self.brokers.append(broker)
        broker.start()
        return broker

    def close(self) -> None:
        """Ends them all and removes their data; their logs stay."""
        for broker in self.brokers:
            broker.close()


def require_kafka() -> None:
    """Skips the test where no broker can be started; fails it in CI, where nothing may go missing unnoticed."""
    missing = java.missing()
    if missing is None:
        return
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def complaints(broker: KafkaBroker) -> str:
    """Returns the last warnings and errors of the broker's log."""
    lines = broker.log_tail(1_000).splitlines()
    return "\n".join([line for line in lines if " WARN " in line or " ERROR " in line][-20:]) or "(no warnings, no errors)"


def delete_topics(bootstrap_servers: str, prefix: str) -> None:
    """Deletes the topics whose names start with `prefix`, so that a shared broker stays as it was found."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    try:
        names = [name for name in admin.list_topics() if name.startswith(prefix)]
        if names:
            admin.delete_topics(names)
    finally:
        admin.close()
