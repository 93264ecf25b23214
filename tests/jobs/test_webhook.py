"""Webhooks: where they may go, what they say, and who can tell that they are ours."""

import base64
import hashlib
import hmac
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipeline.offline.jobs.notices import FIRST_S, tell
from pipeline.offline.jobs.registry import Registry, Submission, job_id_of
from pipeline.offline.jobs.webhook import WebhookFailed, WebhookRefused, is_public, parse_target, post, sign
from pipeline.settings import JobsSettings
from tests.jobs import certificates
from tests.offline.conftest import make_spec


@dataclass
class Ear:
    """A server over TLS that notes what it hears."""

    url: str = ""
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 204


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One of localhost."""
    return certificates.make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def ear(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    """A server whose certificate is trusted."""
    heard = Ear()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.heard.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(heard.status)
            self.send_header("Location", "https://localhost:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    heard.url = f"https://localhost:{server.server_address[1]}/hook?a=1"
    yield heard
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_is_signed_as_the_standard_says(ear: Ear):
    """The other side can check id, time and body with the secret alone."""
    secret = b"0123456789abcdef"
    post(ear.url, "job-1", {"type": "job.completed"}, secret="whsec_" + base64.b64encode(secret).decode(), allows_private=True)
    [(headers, body)] = ear.heard
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}" == sign(secret.decode(), "job-1", int(headers["webhook-timestamp"]), body)
    assert headers["webhook-id"] == "job-1"
    assert json.loads(body) == {"type": "job.completed"}


def test_a_private_address_is_refused_unless_it_is_allowed(ear: Ear):
    """Nothing is sent there, whatever the name looks like."""
    with pytest.raises(WebhookRefused, match="private network"):
        post(ear.url, "job-1", {}, secret=None, allows_private=False)
    assert ear.heard == []


def test_a_redirect_is_not_followed(ear: Ear):
    """It counts as not taken."""
    ear.status = 302
    with pytest.raises(WebhookFailed, match="answered 302"):
        post(ear.url, "job-1", {}, secret=None, allows_private=True)
    assert len(ear.heard) == 1


def test_the_connection_goes_to_the_address_that_was_looked_at(ear: Ear, monkeypatch: pytest.MonkeyPatch):
    """A name that resolves to another address a moment later gains nothing: it is resolved once."""
    asked = []
    real = socket.getaddrinfo

    def resolve(host, *rest, **options):
        asked.append(host)
        return real("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    post(ear.url, "job-1", {}, secret=None, allows_private=True)
    assert asked.count("localhost") == 1


def test_a_certificate_of_another_name_is_not_trusted(ear: Ear, monkeypatch: pytest.MonkeyPatch):
    """The address alone is not enough."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *rest, **options: real("127.0.0.1", *rest, **options))
    with pytest.raises(WebhookFailed, match="SSLCertVerificationError"):
        post(ear.url.replace("localhost", "elsewhere.example"), "job-1", {}, secret=None, allows_private=True)
    assert ear.heard == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://example.com:port/",
        "https://example.com/a b",
        "https://example.com/\r\nX: 1",
        "https://example.com/" + "a" * 2_100,
        "ftp://example.com",
    ],
)
def test_what_is_no_plain_https_address_is_refused(url: str):
    """Before anything is resolved."""
    with pytest.raises(WebhookRefused):
        parse_target(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:0a00:0001::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "100.64.0.1",
    ],
)
def test_addresses_that_are_not_of_the_open_internet(address: str):
    """Also those that wrap one which is not."""
    assert not is_public(address)


def test_addresses_of_the_open_internet():
    """Of both kinds."""
    assert is_public("93.184.215.14")
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_a_webhook_that_is_not_taken_is_sent_again_later_and_at_last_settled(ear: Ear, tmp_path: Path):
    """Waits grow; once it is taken it is sent no more."""
    out = tmp_path / "out"
    home = Registry(tmp_path / "jobs").submit(
        Submission(id=job_id_of(str(out)), inputs=("in.parquet",), out=str(out), spec=make_spec(), shard_rows=1, webhook=ear.url, submitted_ms=1)
    )
    home.fail("the input is gone")
    settings = JobsSettings(webhook_private_addresses=True)
    ear.status = 500
    tell(home, settings)
    tell(home, settings)
    assert len(ear.heard) == 1
    assert not home.owes_notice
    assert FIRST_S - 1 <= home.notice_file.stat().st_mtime - time.time() <= FIRST_S
    os.utime(home.notice_file, (0, 0))
    ear.status = 200
    tell(home, settings)
    assert not home.notice_file.exists()
    tell(home, settings)
    first, second = (json.loads(body) for _, body in ear.heard)
    assert first["type"] == second["type"] == "job.failed"
    assert second["data"]["failure"] == "the input is gone"
    assert ear.heard[0][0]["webhook-id"] == ear.heard[1][0]["webhook-id"]
