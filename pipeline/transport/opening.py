"""The transport that the settings ask for."""

from pipeline.settings import Settings, TransportKind
from pipeline.transport.base import Transport
from pipeline.transport.embedded.database import FILE_NAME


def open_transport(settings: Settings, *, producers_apart: bool = False) -> Transport:
    """Makes the transport without touching it: a log that is away shows at the first use.

    Only the client library of the chosen log is imported.

    Args:
        settings: Which log, and how to reach it.
        producers_apart: Whether Kafka's producers get a process of their own. The embedded log has no use for one: it sends nothing.
    """
    session_timeout_s = settings.kafka.session_timeout_ms / 1_000
    # A hand-over has to end before the group takes its owner for dead.
    revoke_budget_s = min(settings.limits.drain_s, session_timeout_s / 2)
    if settings.transport is TransportKind.EMBEDDED:
        from pipeline.transport.embedded import EmbeddedTransport  # noqa: PLC0415 -- only what is used is loaded

        return EmbeddedTransport(settings.data_dir / FILE_NAME, session_timeout_s=session_timeout_s, revoke_budget_s=revoke_budget_s)
    from pipeline.transport.kafka import KafkaTransport  # noqa: PLC0415 -- likewise

    return KafkaTransport(settings.kafka, revoke_budget_s=revoke_budget_s, producers_apart=producers_apart)
