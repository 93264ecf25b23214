"""A fault in what a request comes in: the line around its body, the record's type and its headers."""

import pytest

from schemas.codec import Limits
from tests.schemas.lines import line, refusal
from tests.schemas.samples import LIMITS, ORIGIN

ENVELOPE_FAULTS = [
    (None, "invalid_json", None),
    (b"", "invalid_json", None),
    (b"{", "invalid_json", None),
    (b"[]", "invalid_json", None),
    (b'"x"', "invalid_json", None),
    (b"\xff{}", "invalid_json", None),
    ("{}".encode("utf-16"), "invalid_json", None),
    (b"\xef\xbb\xbf{}", "invalid_json", None),
    (b"[" * 200_000, "invalid_json", None),
    (b'{"custom_id": ' + b"1" * 5_000 + b"}", "invalid_json", None),
    (b"{}", "invalid_request", "custom_id"),
    (line(custom_id=None), "invalid_request", "custom_id"),
    (line(custom_id=""), "invalid_request", "custom_id"),
    (line(custom_id=42), "invalid_request", "custom_id"),
    (line(custom_id="x" * 257), "invalid_request", "custom_id"),
    (line(custom_id="\ud800"), "invalid_request", "custom_id"),
    (line(method=...), "invalid_request", "method"),
    (line(method="GET"), "invalid_request", "method"),
    (line(url=...), "invalid_request", "url"),
    (line(url=["/v1/completions"]), "invalid_request", "url"),
    (line(url="/v1/nothing"), "unknown_url", "url"),
    (line(url="/v1/completions/"), "unknown_url", "url"),
    (b'{"x": "' + b"a" * LIMITS.record_bytes + b'"}', "record_too_large", None),
]


@pytest.mark.parametrize(("value", "code", "param"), ENVELOPE_FAULTS)
def test_what_cannot_be_read_as_a_request_is_a_dead_letter(value, code, param):
    """Faults of the envelope name what is wrong with it and keep the record."""
    refused = refusal(value)
    assert (refused.error.code, refused.error.param, refused.dead_letter) == (code, param, True)
    assert refused.origin == ORIGIN


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"foo": 1}, "unsupported_field", "foo"),
        ({"body": ...}, "invalid_request", "body"),
        ({"body": None}, "invalid_request", "body"),
        ({"body": "x"}, "invalid_request", "body"),
    ],
)
def test_a_line_with_an_odd_member_is_answered(changes, code, param):
    """The line can be read, so its requester is told and the record is no dead letter."""
    refused = refusal(line(**changes))
    assert (refused.error.code, refused.error.param, refused.dead_letter) == (code, param, False)
    assert refused.reply.custom_id == "c-42"


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"deadline": b"soon"}, "deadline"),
        ({"deadline": b"-1"}, "deadline"),
        ({"deadline": b"1e3"}, "deadline"),
        ({"deadline": b""}, "deadline"),
        ({"deadline": "\u0663".encode()}, "deadline"),
        ({"deadline": str(2**63).encode()}, "deadline"),
        ({"reply_partition": b"x"}, "reply_partition"),
        ({"reply_partition": str(2**31).encode()}, "reply_partition"),
        ({"reply_to": b"\xff"}, "reply_to"),
        ({"correlation_id": b"\xff"}, "correlation_id"),
    ],
)
def test_a_malformed_header_is_refused_by_its_name(headers, param):
    """The body is fine and the requester known, so it is answered."""
    refused = refusal(line(), headers)
    assert (refused.error.code, refused.error.param, refused.dead_letter) == ("invalid_request", param, False)
    assert (refused.reply.custom_id, refused.reply.correlation_id) == ("c-42", "c-42")


@pytest.mark.parametrize("content_type", [b"text/plain", b"application/json+x", b"\xff", b";"])
def test_an_unknown_content_type_is_a_dead_letter(content_type):
    """Nothing is guessed about a value of another type."""
    refused = refusal(line(), {"content-type": content_type})
    assert (refused.error.code, refused.error.param, refused.dead_letter) == ("invalid_request", "content-type", True)


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({f"h{number}": b"" for number in range(10_000)}, Limits()),
        ({"h": b"x" * 20_000}, Limits()),
        ({"a": b"", "b": b""}, Limits(headers=1)),
        ({"four": b"four"}, Limits(header_bytes=7)),
    ],
)
def test_headers_are_bounded_before_anything_is_parsed(headers, limits):
    """Too many, or too large, refuses a record whose value is not even JSON for its size."""
    refused = refusal(b"{", headers, limits)
    assert (refused.error.code, refused.error.param, refused.dead_letter) == ("record_too_large", "headers", True)


def test_a_record_that_cannot_be_read_is_answered_where_its_headers_say():
    """Correlation id and reply address survive a value that is not JSON; the topic of streams is the default."""
    reply = refusal(b"{", {"correlation_id": b"k", "reply_to": b"team.replies", "reply_partition": b"4"}).reply
    assert (reply.custom_id, reply.correlation_id, reply.reply_to, reply.reply_partition, reply.stream) == (None, "k", "team.replies", 4, True)
