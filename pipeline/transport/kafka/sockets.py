"""Sockets as the library should make them: closed when they found nobody, and TLS checked before the first attempt."""

import socket
import ssl
from typing import Any, cast

from kafka.net.inet import KafkaNetSocket

from pipeline.settings import KafkaSettings
from pipeline.transport.base import TransportError

DIRECT = "direct"


class DirectSocket(KafkaNetSocket):  # type: ignore[misc]  # the library has no types
    """No proxy; a socket that found nobody is closed, which the library leaves to the garbage collector."""

    SCHEMES = (DIRECT,)

    async def sock_connect(self, net: Any, sock: socket.socket, *arguments: Any, **options: Any) -> socket.socket:
        """Connects, as the library does."""
        try:
            return cast("socket.socket", await super().sock_connect(net, sock, *arguments, **options))
        except BaseException:
            sock.close()
            raise


class TlsSocket(ssl.SSLSocket):
    """Closed, too, when the handshake fails."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 -- the base class's signature
        """Takes a step of the handshake."""
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise


def tls_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """What the settings say about TLS; None where they ask for none.

    Raises:
        TransportError: A file is missing, or not what it should be.
    """
    if settings.security_protocol not in {"SSL", "SASL_SSL"}:
        return None
    password = settings.ssl_password.get_secret_value() if settings.ssl_password else None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        if settings.ssl_certfile is not None:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
    except OSError as error:
        raise TransportError(f"kafka.ssl_cafile, ssl_certfile, ssl_keyfile or ssl_password is wrong: {error}") from error
    context.check_hostname = settings.ssl_check_hostname
    context.sslsocket_class = TlsSocket
    return context
