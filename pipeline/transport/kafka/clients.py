"""Making the library's clients: their options, and why one could not be made."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakSet

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from pipeline.settings import KafkaSettings
from pipeline.transport.base import BrokerUnavailable
from pipeline.transport.kafka.errors import LOGIN_REFUSED, explain
from pipeline.transport.kafka.sockets import DIRECT, tls_context

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 15.0  # a broker that is silent for so long is given up, and the request sent again


class Made(NamedTuple):
    """A client of the library, the event loop that drives it, and what it has of connections and threads."""

    client: Any
    loop: Any
    network: Any


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # the library has no types
    """Finds out why no connection came about.

    A broker that refuses a login says so and hangs up. The library throws away what came right before the end of a connection,
    and when it does read the refusal, it searches on until its time is over.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.last_failure: Exception | None = None
        self.transports: WeakSet[Any] = WeakSet()

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        if self.bootstrapped:
            return super().get_connection(*arguments, **options)
        if isinstance(self.last_failure, LOGIN_REFUSED):
            raise self.last_failure
        connection = super().get_connection(*arguments, **options)
        connection.init_future.add_errback(self._note)
        return connection

    async def _build_transport(self, *arguments: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*arguments, **options)
        self.transports.add(transport)
        receive = transport._sock_recv  # noqa: SLF001 -- where the end of a connection hides its last words
        held_back: list[Exception] = []

        def words_before_the_end() -> tuple[bytes, Exception | None]:
            if held_back:
                return b"", held_back.pop()
            data, end = receive()
            if data and end is not None:
                held_back.append(end)
                return data, None
            return data, end

        transport._sock_recv = words_before_the_end  # noqa: SLF001
        return transport

    def _note(self, failure: Exception) -> None:
        self.last_failure = failure


class _Network(KafkaNetClient):  # type: ignore[misc]  # the library has no types
    """Ends its thread, then closes every socket.

    The library takes sockets away under a thread that reads from them, which then logs a traceback, and leaves those that still have
    something to write to the garbage collector.
    """

    def close(self, node_id: Any = None) -> None:
        if node_id is not None:
            super().close(node_id)
            return
        self._net.stop()
        super().close()
        for transport in list(self._manager.transports):
            if transport._sock is not None:  # noqa: SLF001
                transport._sock.close()  # noqa: SLF001


class Clients:
    """Makes clients of one cluster.

    Args:
        settings: How to reach it.
        timeout_s: How long a new client looks for a broker.
    """

    def __init__(self, settings: KafkaSettings, timeout_s: float = CONNECT_TIMEOUT_S):
        self.settings = settings
        self.timeout_s = timeout_s

    def make(self, kind: Callable[..., Any], extra: Mapping[str, Any] | None = None, timeout_s: float | None = None) -> Made:
        """Makes a client and waits until it has found the cluster.

        Args:
            kind: The library's class.
            extra: Further options.
            timeout_s: How long to look for a broker, where it is not as long as usual.

        Raises:
            BrokerUnavailable: None answers in time.
            TransportError: The broker refuses, or an option is wrong.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        begun: list[tuple[_Network, NetworkSelector, _Connections]] = []

        def network(**config: Any) -> _Network:
            # A step of the loop is slow when the engine has the interpreter; the library would blame itself, in the log.
            loop = NetworkSelector(**config, slow_task_threshold_secs=0)
            connections = _Connections(loop, **config)
            # The clients' own option of that name does not reach the requests: asking for a topic would create it.
            connections.cluster.config["allow_auto_create_topics"] = False
            client = _Network(net=loop, manager=connections, **config)
            begun.append((client, loop, connections))
            return client

        try:
            made = kind(kafka_client=network, **{**self._options(timeout_s), **(extra or {})})
        except Exception as error:
            for client, _, _ in begun:
                client.close()  # else its thread goes on trying for ever
            cause = begun[0][2].last_failure if begun else None
            raise self._explain(error, cause, timeout_s) from error
        return Made(made, begun[0][1], begun[0][0])

    def _explain(self, error: Exception, cause: Exception | None, timeout_s: float) -> Exception:
        failure = explain(error, f"connecting to {self.settings.bootstrap_servers}")
        if not isinstance(failure, BrokerUnavailable):
            return failure
        return BrokerUnavailable(
            f"no Kafka broker at {self.settings.bootstrap_servers} answered within {timeout_s:.1f} s with "
            f"{self.settings.security_protocol} ({cause or error}): check kafka.bootstrap_servers and kafka.security_protocol"
        )

    def _options(self, timeout_s: float) -> dict[str, Any]:
        """The library's options for reaching the brokers. They hold the passwords: never log them."""
        settings = self.settings
        return {
            "bootstrap_servers": settings.bootstrap_servers.split(","),
            "bootstrap_timeout_ms": max(1, int(timeout_s * 1_000)),
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1_000),
            "reconnect_backoff_max_ms": 2_000,  # 30 s by default: too long a wait after an outage
            "client_id": "penstock",
            "proxy_url": f"{DIRECT}://",
            "security_protocol": settings.security_protocol,
            "ssl_context": tls_context(settings),
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
        }
