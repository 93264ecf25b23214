"""Broker properties, chosen so that one node starts fast and a test never waits for a default."""

import random
import socket
from dataclasses import dataclass
from pathlib import Path

from compose.kafka import tls

USERNAME = "alice"
PASSWORD = "alice-secret"  # noqa: S105 - of a throwaway broker that listens on loopback only
SCRAM = f"SCRAM-SHA-256=[name={USERNAME},password={PASSWORD}]"

# Below the ports that Linux hands to outgoing connections (32768 and up): while a broker is down, a client that keeps
# trying to reconnect could otherwise be given the broker's own port, connect to itself and hold the port.
_PORTS = range(20_000, 32_768)


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener; `tls` and `sasl` stay unused on a broker without security."""

    plain: int
    controller: int
    tls: int
    sasl: int


def pick_ports(plain: int | None) -> Ports:
    """Picks free ports; `plain` is taken as given when it is not None."""
    free: list[int] = []
    while len(free) < 4:
        port = random.choice(_PORTS)  # noqa: S311 - a port, not a secret
        if port not in free and port != plain and is_free(port):
            free.append(port)
    return Ports(plain or free[0], *free[1:])


def is_free(port: int) -> bool:
    """Tells whether nobody listens on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def plain(ports: Ports, data_dir: Path) -> dict[str, str]:
    """Returns the properties of a broker with the plain listener only."""
    listener = f"PLAINTEXT://127.0.0.1:{ports.plain}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"{listener},CONTROLLER://127.0.0.1:{ports.controller}",
        "advertised.listeners": listener,
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{ports.controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "log.dirs": str(data_dir),
        # A broker that was killed registers again only after its former self's session: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "auto.create.topics.enable": "false",  # a wrong topic name must show
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",  # 50 by default, all created when the first group appears
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "log.segment.delete.delay.ms": "1000",  # topics of finished tests free their files soon
    }


def secured(ports: Ports, tls_dir: Path) -> dict[str, str]:
    """Returns the properties that add a TLS and a SASL listener."""
    clients = f"PLAINTEXT://127.0.0.1:{ports.plain},SSL://127.0.0.1:{ports.tls},SASL_PLAINTEXT://127.0.0.1:{ports.sasl}"
    plain_login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    scram_login = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return {
        "listeners": f"{clients},CONTROLLER://127.0.0.1:{ports.controller}",
        "advertised.listeners": clients,
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(tls_dir / tls.KEYSTORE_FILE),
        "ssl.keystore.password": tls.STORE_PASSWORD,
        "ssl.key.password": tls.STORE_PASSWORD,
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{plain_login} required user_{USERNAME}="{PASSWORD}";',
        "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": f"{scram_login} required;",
    }
