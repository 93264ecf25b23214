"""Making the library's clients: their options, and cleaning up after one that could not be made."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector

from pipeline.settings import KafkaSettings
from pipeline.transport.base import BrokerUnavailable
from pipeline.transport.kafka.errors import explain

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 15.0  # a broker that is silent for so long is given up, and the request sent again


class Made(NamedTuple):
    """A client of the library and the event loop that drives it."""

    client: Any
    loop: Any


def options(settings: KafkaSettings) -> dict[str, Any]:
    """The library's options for reaching the brokers. They hold the passwords: never log them."""
    return {
        "bootstrap_servers": settings.bootstrap_servers.split(","),
        "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1_000),
        "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1_000),
        "reconnect_backoff_max_ms": 2_000,  # 30 s by default: too long a wait after an outage
        "client_id": "penstock",
        "security_protocol": settings.security_protocol,
        "ssl_check_hostname": settings.ssl_check_hostname,
        "ssl_cafile": _path(settings.ssl_cafile),
        "ssl_certfile": _path(settings.ssl_certfile),
        "ssl_keyfile": _path(settings.ssl_keyfile),
        "ssl_password": settings.ssl_password.get_secret_value() if settings.ssl_password else None,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }


def make(kind: Callable[..., Any], settings: KafkaSettings, extra: Mapping[str, Any], timeout_s: float = CONNECT_TIMEOUT_S) -> Made:
    """Makes a client and waits until it has found the cluster.

    Args:
        kind: The library's class.
        settings: How to reach the brokers.
        extra: Further options.
        timeout_s: How long to look for a broker.

    Raises:
        BrokerUnavailable: None answers in time.
        TransportError: The broker refuses, or an option is wrong.
    """
    begun: list[Made] = []

    def client(**config: Any) -> KafkaNetClient:
        loop = NetworkSelector(**config)
        network = KafkaNetClient(net=loop, **config)
        # The clients' own option of that name does not reach the requests: asking for a topic would create it.
        network.cluster.config["allow_auto_create_topics"] = False
        begun.append(Made(network, loop))
        return network

    try:
        made = kind(kafka_client=client, **{**options(settings), "bootstrap_timeout_ms": int(timeout_s * 1_000), **extra})
    except Exception as error:
        for network, _ in begun:
            network.close()  # else its thread goes on trying for ever
        failure = explain(error, f"connecting to {settings.bootstrap_servers}")
        if isinstance(failure, BrokerUnavailable):
            raise BrokerUnavailable(
                f"no Kafka broker at {settings.bootstrap_servers} answered within {timeout_s:.0f} s with "
                f"{settings.security_protocol}: check kafka.bootstrap_servers and kafka.security_protocol"
            ) from error
        raise failure from error
    return Made(made, begun[0].loop)


def _path(path: object) -> str | None:
    return None if path is None else str(path)
