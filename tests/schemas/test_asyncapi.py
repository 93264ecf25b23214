import copy
import json
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft7Validator

from schemas.asyncapi import document
from schemas.codec import encode_event, encode_request, encode_request_batch, encode_result
from schemas.control import Assigned, Cancel, encode_control
from schemas.dead_letter import encode_dead_letter
from schemas.errors import BY_CODE
from schemas.events import Begin, Chunk, End, Error, Event
from schemas.record import Encoded
from schemas.topics import Topics
from tests.schemas.samples import any_request, batch_rows, custom_ids, dead_letters, events, repeatable, request_headers, result_lines
from tests.schemas.specification import asyncapi_schema

DOCUMENT = document(Topics())


@pytest.fixture(scope="module")
def specification() -> Draft7Validator:
    """Validates documents against AsyncAPI's own schema."""
    return Draft7Validator(asyncapi_schema())


@pytest.mark.parametrize("prefix", ["penstock", "team-a.prod"])
def test_the_document_is_asyncapi_3(specification, prefix):
    """AsyncAPI's own schema finds nothing to object to, whatever the topics are called."""
    described = json.loads(json.dumps(document(Topics(prefix))))
    assert [error.message for error in specification.iter_errors(described)] == []


@pytest.mark.parametrize("path", [(), ("channels", "requests"), ("operations", "clientSubmits"), ("components", "messages", "begin")])
def test_the_schema_would_object(specification, path):
    """A made-up member anywhere is found, so the test above can fail."""
    broken = copy.deepcopy(DOCUMENT)
    place: Any = broken
    for name in path:
        place = place[name]
    place["madeUp"] = 1
    assert not specification.is_valid(broken)


def test_every_reference_leads_somewhere():
    """Within the document, and to an object."""

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            here = [value["$ref"]] if "$ref" in value else []
            return here + [ref for entry in value.values() for ref in references(entry)]
        return [ref for entry in value for ref in references(entry)] if isinstance(value, list) else []

    found = references(DOCUMENT)
    assert len(found) > 50
    for reference in found:
        place: Any = DOCUMENT
        assert reference.startswith("#/")
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
        assert isinstance(place, dict)


def test_every_topic_is_a_channel_and_every_code_is_listed():
    """Under the prefix, with the partitions of the contract."""
    channels = document(Topics("x"))["channels"]
    kafka = {channel["address"]: channel["bindings"]["kafka"]["partitions"] for channel in channels.values()}
    assert kafka == {"x.requests": 12, "x.chunks": 12, "x.results": 12, "x.control": 1, "x.dlq": 1}
    codes = DOCUMENT["components"]["messages"]["deadLetter"]["headers"]["properties"]["penstock_error_code"]["enum"]
    assert codes == sorted(BY_CODE)


def problems(name: str, record: Encoded, payload: Any) -> list[str]:
    """What the document's message has against a record: its value, its headers and its key."""
    message = DOCUMENT["components"]["messages"][name]
    headers = {header: content.decode() for header, content in record.headers}
    found = Draft7Validator({**DOCUMENT, **wrapped(message["payload"])}).iter_errors(payload)
    found_in_headers = Draft7Validator(message["headers"]).iter_errors(headers)
    key = message.get("bindings", {}).get("kafka", {}).get("key", {})
    found_in_key = Draft7Validator(key).iter_errors((record.key or b"").decode()) if record.key is not None else []
    return [f"{list(error.path)}: {error.message}" for found in (found, found_in_headers, found_in_key) for error in found]


def wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema beside whose reference the rest of the document may stand."""
    return {"allOf": [schema]}


def message_of(event: Event) -> str:
    """The message that an event is."""
    match event:
        case Chunk() | End():
            kind = "chat" if event.head.object == "chat.completion.chunk" else "text"
            return f"{kind}{type(event).__name__}"
        case Begin() | Error() | _:
            return type(event).__name__.lower()


@repeatable
@given(event=events, custom_id=custom_ids)
def test_every_event_is_as_described(event, custom_id):
    """Value, headers and key of what a worker writes fit the document."""
    custom_id = event.custom_id if isinstance(event, Begin) else custom_id
    record = encode_event(event, custom_id=custom_id)
    assert problems(message_of(event), record, json.loads(record.value or b"")) == []


@repeatable
@given(pair=any_request, custom_id=custom_ids, headers=request_headers)
def test_every_request_is_as_described(pair, custom_id, headers):
    """What the worker takes fits the document."""
    endpoint, body = pair
    record = encode_request(custom_id=custom_id, endpoint=endpoint, body=body, deadline_ms=headers.deadline_ms, traceparent=headers.traceparent)
    assert problems("request", record, json.loads(record.value or b"")) == []


@repeatable
@given(rows=batch_rows, headers=request_headers)
def test_every_batch_is_as_described(rows, headers):
    """Its headers, that is: JSON schemas cannot describe Arrow."""
    assert problems("requestBatch", encode_request_batch(rows, key="k", headers=headers), "") == []


@repeatable
@given(line=result_lines, custom_id=custom_ids)
def test_every_result_is_as_described(line, custom_id):
    """Results, refused ones included."""
    record = encode_result(line, custom_id)
    assert problems("result", record, json.loads(record.value or b"")) == []


@repeatable
@given(letter=dead_letters)
def test_every_dead_letter_is_as_described(letter):
    """Its added headers."""
    assert problems("deadLetter", encode_dead_letter(b"k", b"", (), letter), "") == []


@pytest.mark.parametrize(("name", "message"), [("cancel", Cancel("c")), ("assigned", Assigned("m", ("t/0",)))])
def test_every_control_message_is_as_described(name, message):
    """Clients' and workers' own."""
    record = encode_control(message)
    assert problems(name, record, json.loads(record.value or b"")) == []


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("request", {"custom_id": "", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}),
        ("request", {"custom_id": "c", "method": "POST", "url": "/v1/nothing", "body": {"model": "m", "prompt": "x"}}),
        ("request", {"custom_id": "c", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "x", "foo": 1}}),
        ("request", {"custom_id": "c", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": ""}}),
        ("cancel", {"type": "cancel", "custom_id": ""}),
        ("reset", {}),
    ],
)
def test_the_document_describes_something(name, payload):
    """What the contract refuses, the document refuses too."""
    assert problems(name, Encoded(key=b"k", value=b""), payload) != []
