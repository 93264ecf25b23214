"""One POST to an address that somebody else chose: over TLS, to a public address unless others are allowed, and nowhere else.

The name is resolved once, and the connection goes to the address that was looked at; redirects are not followed. Signed as
https://www.standardwebhooks.com says.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

CONNECT_S = 10.0
TOTAL_S = 30.0
"""However slowly the other side answers."""
ANSWER_BYTES = 1_024
URL_CHARACTERS = 2_048
PASSING = frozenset({408, 425, 429})
"""Refusals that another try may not meet; so are all answers from 500 on."""
SECRET_PREFIX = "whsec_"  # noqa: S105 -- what secrets begin with


class WebhookRefused(Exception):
    """It may not go there, or is not wanted there, however long one waits. The message says why, and of the address only the host."""


class WebhookFailed(Exception):
    """The other side did not take it; it may later. The message says of the address only the host."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook goes."""

    host: str
    port: int
    path: str


def parse_target(url: str) -> Target:
    """Reads a webhook's address.

    Raises:
        WebhookRefused: It is not plain https.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 443
        (parts.hostname or "").encode("idna")  # as whoever resolves it does
    except ValueError:
        raise WebhookRefused("the webhook's address is not sound") from None
    if parts.scheme != "https" or not parts.hostname:
        raise WebhookRefused("a webhook goes to an https:// address")
    if parts.username is not None or parts.password is not None or parts.fragment or len(url) > URL_CHARACTERS:
        raise WebhookRefused("a webhook's address has no user, no password and no fragment, and no more than 2,048 characters")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookRefused("a webhook's address is plain ASCII")
    return Target(parts.hostname, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def resolve(target: Target, *, allows_private: bool) -> str:
    """The address to connect to. One private address among a name's is enough to refuse it.

    Raises:
        WebhookRefused: It is an address of a private network.
        WebhookFailed: The name is not known now.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise WebhookFailed(f"the name {target.host} is not known") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not allows_private and not all(map(is_public, addresses)):
        raise WebhookRefused(f"{target.host} has an address of a private network: see jobs.webhook_private_addresses")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also by what it is a wrapping of."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.teredo is not None:
            return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The signature header of Standard Webhooks."""
    signed = hmac.new(_key(secret), f"{message_id}.{timestamp_s}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()


def post(url: str, message_id: str, payload: dict[str, Any], *, secret: str | None, allows_private: bool) -> None:
    """Sends a webhook, and returns once the other side has taken it.

    Raises:
        WebhookRefused: It may not go there, or was refused for good.
        WebhookFailed: It was not taken this time.
    """
    target = parse_target(url)
    address = resolve(target, allows_private=allows_private)
    body = json.dumps(payload, ensure_ascii=False).encode()
    timestamp_s = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "penstock",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
    }
    if secret is not None:
        headers["webhook-signature"] = sign(secret, message_id, timestamp_s, body)
    connection = _Pinned(target, address)
    timer = threading.Timer(TOTAL_S, connection.cut)
    timer.daemon = True
    timer.start()
    try:
        connection.request("POST", target.path, body, headers)
        answer = connection.getresponse()
        answer.read(ANSWER_BYTES)
    except (OSError, HTTPException, ValueError) as error:
        raise WebhookFailed(f"{target.host}: {type(error).__name__}") from None
    finally:
        timer.cancel()
        connection.close()
    if 200 <= answer.status < 300:
        return
    is_final = 400 <= answer.status < 500 and answer.status not in PASSING
    raise (WebhookRefused if is_final else WebhookFailed)(f"{target.host} answered {answer.status}")


class _Pinned(HTTPSConnection):
    """Connects to one address, whatever the name says by then; the certificate is the name's."""

    def __init__(self, target: Target, address: str):
        self._tls = ssl.create_default_context()
        super().__init__(target.host, target.port, timeout=CONNECT_S, context=self._tls)
        self._address = address

    def connect(self) -> None:
        """Opens it."""
        plain = socket.create_connection((self._address, self.port), CONNECT_S)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def cut(self) -> None:
        """Ends it from another thread."""
        if self.sock is not None:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _key(secret: str) -> bytes:
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise WebhookRefused("jobs.webhook_secret begins with whsec_ and no base64 follows") from None
