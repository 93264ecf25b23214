"""Webhooks: where they may go, what they say, and who can tell that they are ours."""

import base64
import hashlib
import hmac
import json
import socket

import pytest

from pipeline.offline.jobs.webhook import WebhookFailed, WebhookRefused, is_public, parse_target, post, sign
from tests.jobs.ear import Ear, certificate, ear

__all__ = ["certificate", "ear"]


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


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 499])
def test_a_refusal_that_waiting_does_not_mend_is_told_apart(ear: Ear, status: int):
    """Its reason names the host alone: the rest of an address is often a secret."""
    ear.status = status
    with pytest.raises(WebhookRefused) as refused:
        post(ear.url, "job-1", {}, secret=None, allows_private=True)
    assert str(refused.value) == f"localhost answered {status}"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_an_answer_that_another_try_may_not_get_is_told_apart(ear: Ear, status: int):
    """The other side is busy or broken, and may not be later."""
    ear.status = status
    with pytest.raises(WebhookFailed) as failed:
        post(ear.url, "job-1", {}, secret=None, allows_private=True)
    assert str(failed.value) == f"localhost answered {status}"


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
        "https://example..com/",
        "https://" + "a" * 64 + ".com/",
        "https://example.com/a b",
        "https://example.com/\r\nX: 1",
        "https://example.com/\x7f",
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
