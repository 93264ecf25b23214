"""Where callers come: a socket of this machine, which this user alone may open, or one of the network, with TLS."""

import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.settings import BadConfiguration, BulkSettings

UNIX = "unix://"
SOCKET_BYTES = 107
"""The longest path of a socket (unix(7))."""
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that listens, and the address that callers know it by."""

    socket: socket.socket
    uri: str
    path: Path | None = None
    tls: ssl.SSLContext | None = None

    def close(self) -> None:
        """Listens no more."""
        self.socket.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def fits(path: Path) -> bool:
    """Whether a socket can have that path."""
    return len(os.fsencode(path)) <= SOCKET_BYTES


def listen_here(path: Path) -> Listening:
    """Listens on this machine.

    Raises:
        BadConfiguration: The path is taken or too long, or nothing can be made there.
    """
    if not fits(path):
        raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): the path of a socket has at most {SOCKET_BYTES} bytes, and {path} has more")
    _check_free(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)  # of one who is gone
        with private():
            listening.bind(os.fspath(path))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): can't listen on {path}: {error.strerror}") from None
    return Listening(listening, f"{UNIX}{path}", path)


def listen_for_others(url: str, bulk: BulkSettings) -> Listening:
    """Listens on the network.

    Raises:
        BadConfiguration: The address is taken, or certificate and key are not what they should be.
    """
    if bulk.certificate is None or bulk.key is None or bulk.token is None:
        raise BadConfiguration("bulk.url with grpc+tls needs bulk.certificate, bulk.key and bulk.token")
    tls = _tls(bulk.certificate, bulk.key)
    try:
        parts = urlsplit(url)
        listening = _listen(parts.hostname or "", parts.port or 0)
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): can't listen on {url}: {error}") from None
    host = parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc
    return Listening(listening, f"{parts.scheme}://{host}:{listening.getsockname()[1]}", tls=tls)


@contextmanager
def private() -> Iterator[None]:
    """A socket made here can be opened by this user alone, from its first moment."""
    former = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(former)


def _listen(host: str, port: int) -> socket.socket:
    """Listens on the first address of a name; on `::` those of both families are meant."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((address[0], address[1]), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    for name, path in (("certificate", certificate), ("key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise BadConfiguration(f"bulk.{name} (PENSTOCK_BULK__{name.upper()}): {path}: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(certificate, key, password="")  # so that the terminal is not asked for one
    except ssl.SSLError as error:
        raise BadConfiguration(f"bulk.certificate and bulk.key are no sound pair: {certificate}, {key}: {error.reason}") from None
    return context


def _check_free(path: Path) -> None:
    """Whoever listens there is not to lose the path, nor is a file.

    Raises:
        BadConfiguration: Somebody does, or it is a file.
    """
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): {path} is a file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise BadConfiguration(f"bulk.url (PENSTOCK_BULK__URL): another process listens on {path}")
