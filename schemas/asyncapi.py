"""The wire contract as an AsyncAPI 3 document: channels, messages and headers, with payloads taken from the models themselves."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas import dead_letter, headers
from schemas.control import AssignedValue, CancelValue
from schemas.errors import BY_CODE
from schemas.request import BODIES, MAX_CUSTOM_ID_CHARACTERS, Endpoint
from schemas.result_line import ResultValue
from schemas.stream_values import BeginValue, ChatChunkValue, ChatEndValue, ErrorValue, ResetValue, TextChunkValue, TextEndValue
from schemas.topics import Topics

CONTRACT_VERSION = "1.0.0"

Json = dict[str, Any]

_BINDING_VERSION = "0.5.0"
_DECIMAL: Json = {"type": "string", "pattern": "^[0-9]{1,19}$"}
_CUSTOM_ID: Json = {"type": "string", "minLength": 1, "maxLength": MAX_CUSTOM_ID_CHARACTERS}
_CORRELATION: Json = {headers.CORRELATION_ID: {"type": "string", "description": "what the request asked to have echoed, else its custom_id"}}
_ATTEMPT: Json = {headers.ATTEMPT: {**_DECIMAL, "description": "offset of the attempt's own begin record"}}
_SEQ: Json = {headers.SEQ: {**_DECIMAL, "description": "counts chunks and the closing event from 0"}}
_RETRY_AFTER: Json = {headers.RETRY_AFTER_MS: {**_DECIMAL, "description": "milliseconds after which the same request may succeed, where known"}}
_REQUEST_HEADERS: Json = {
    headers.CORRELATION_ID: {"type": "string", "description": "opaque, echoed on every reply; defaults to custom_id"},
    headers.REPLY_TO: {"type": "string", "description": "reply topic, allow-listed for the tenant"},
    headers.REPLY_PARTITION: {**_DECIMAL, "description": "partition of the reply topic"},
    headers.DEADLINE: {**_DECIMAL, "description": "epoch milliseconds"},
    headers.TRACEPARENT: {"type": "string", "description": "W3C trace context"},
    headers.TRACESTATE: {"type": "string", "description": "W3C trace context"},
}
_DEAD_LETTER_HEADERS: Json = {
    dead_letter.ERROR_CODE: {"type": "string", "enum": sorted(BY_CODE)},
    dead_letter.ERROR_MESSAGE: {"type": "string"},
    dead_letter.ORIGIN: {"type": "string", "description": "topic/partition/offset"},
    dead_letter.ATTEMPTS: _DECIMAL,
    dead_letter.FAILED_AT: {**_DECIMAL, "description": "epoch milliseconds"},
}


def document(topics: Topics) -> Json:
    """Describes the contract over these topics."""
    channels = _channels(topics)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Penstock wire contract",
            "version": CONTRACT_VERSION,
            "description": "Requests in, token streams and results out. Header values are UTF-8 strings; a null field of a body counts as absent.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": headers.JSON_TYPE,
        "channels": channels,
        "operations": _operations(channels),
        "components": {"messages": _messages(), "schemas": _schemas()},
    }


def _channels(topics: Topics) -> Json:
    return {
        "requests": _channel(topics.requests, "Requests; one key goes to one partition, and so to one worker.", "request", "requestBatch"),
        "chunks": _channel(
            topics.chunks,
            "Stream events; the default reply topic of streamed requests.",
            *("begin", "chatChunk", "textChunk", "chatEnd", "textEnd", "error", "reset"),
        ),
        "results": _channel(topics.results, "Batch-output lines; the default reply topic of requests without a stream.", "result"),
        "control": _channel(topics.control, "Cancels, and the workers' own records.", "cancel", "assigned", partitions=1),
        "deadLetters": _channel(topics.dlq, "Records that could not be served.", "deadLetter", partitions=1),
    }


def _channel(topic: str, description: str, *messages: str, partitions: int = 12) -> Json:
    return {
        "address": topic,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {"topic": topic, "partitions": partitions, "bindingVersion": _BINDING_VERSION}},
    }


def _operations(channels: Json) -> Json:
    def operation(action: str, channel: str, summary: str, *messages: str) -> Json:
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages or channels[channel]["messages"]],
        }

    return {
        "workerTakesRequests": operation("receive", "requests", "A worker takes requests in."),
        "workerStreams": operation("send", "chunks", "A worker streams what a request generates."),
        "workerAnswers": operation("send", "results", "A worker answers a request without a stream."),
        "workerHeedsCancels": operation("receive", "control", "A worker ends requests.", "cancel"),
        "workerTakesOver": operation("send", "control", "A worker learns the epoch of its assignment.", "assigned"),
        "workerSetsAside": operation("send", "deadLetters", "A worker sets aside what it cannot serve."),
        "clientSubmits": operation("send", "requests", "A client submits requests."),
        "clientReadsStream": operation("receive", "chunks", "A client reads its streams by the reader's rule."),
        "clientReadsResult": operation("receive", "results", "A client reads results; the first record of an origin counts."),
        "clientCancels": operation("send", "control", "A client cancels a request.", "cancel"),
    }


def _messages() -> Json:
    attempt = {**_CORRELATION, **_ATTEMPT}
    sequenced = {**attempt, **_SEQ}
    begun = {**_CORRELATION, headers.EPOCH: _DECIMAL, headers.RESUME: {"type": "string", "enum": ["true", "false"]}}
    refused = "Closes a stream that failed, or, without attempt and seq, refuses a request."
    return {
        "request": _message("One line of an OpenAI Batch input file.", _ref("RequestLine"), _REQUEST_HEADERS, key={"type": "string"}),
        "requestBatch": {
            **_message(
                "An Arrow IPC stream with the columns custom_id, url, body (JSON) as utf8, and optionally deadline as int64.",
                {"type": "string", "format": "binary"},
                {headers.CONTENT_TYPE: {"type": "string", "const": headers.ARROW_TYPE}, **_REQUEST_HEADERS},
                required=(headers.CONTENT_TYPE,),
                key={"type": "string"},
            ),
            "contentType": headers.ARROW_TYPE,
        },
        "begin": _event("begin", "Opens an attempt.", BeginValue, begun),
        "chatChunk": _event("chunk", "Adds tokens to a chat.", ChatChunkValue, sequenced),
        "textChunk": _event("chunk", "Adds tokens to a completion.", TextChunkValue, sequenced),
        "chatEnd": _event("end", "Closes a chat that went well.", ChatEndValue, sequenced),
        "textEnd": _event("end", "Closes a completion that went well.", TextEndValue, sequenced),
        "error": _event("error", refused, ErrorValue, {**sequenced, **_RETRY_AFTER}, optional={**sequenced, **_RETRY_AFTER}),
        "reset": _event("reset", "Voids what was accepted.", ResetValue, attempt),
        "result": _message(
            "One line of an OpenAI Batch output file.",
            _ref(ResultValue.__name__),
            {**attempt, headers.ORIGIN: {"type": "string"}, **_RETRY_AFTER},
            required=(headers.ORIGIN, headers.ATTEMPT),
        ),
        "cancel": _message("Ends a request.", _ref(CancelValue.__name__), {}),
        "assigned": _message("A worker was assigned partitions; clients ignore it.", _ref(AssignedValue.__name__), {}, key=None),
        "deadLetter": _message("The original record.", {"description": "original value"}, _DEAD_LETTER_HEADERS, required=dead_letter.ADDED, key={}),
    }


def _event(event: str, summary: str, value: type[BaseModel], properties: Json, *, optional: Json | None = None) -> Json:
    named = {headers.EVENT: {"type": "string", "const": event}, **properties}
    required = tuple(name for name in named if name not in (optional or _CORRELATION))
    return _message(summary, _ref(value.__name__), named, required=required)


def _message(summary: str, payload: Json, properties: Json, *, required: tuple[str, ...] = (), key: Json | None = _CUSTOM_ID) -> Json:
    message: Json = {
        "summary": summary,
        "headers": {"type": "object", "properties": properties, "required": list(required)},
        "payload": payload,
    }
    if key is not None:
        message["bindings"] = {"kafka": {"key": key, "bindingVersion": _BINDING_VERSION}}
    return message


def _schemas() -> Json:
    values = (BeginValue, ChatChunkValue, TextChunkValue, ChatEndValue, TextEndValue, ErrorValue, ResetValue, ResultValue, CancelValue, AssignedValue)
    models: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in (*BODIES.values(), *values)]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")
    return {**definitions["$defs"], "RequestLine": {"oneOf": [_line(endpoint) for endpoint in Endpoint]}}


def _line(endpoint: Endpoint) -> Json:
    return {
        "type": "object",
        "properties": {
            "custom_id": {**_CUSTOM_ID, "description": "identity of the request within its tenant"},
            "method": {"type": "string", "const": "POST"},
            "url": {"type": "string", "const": endpoint.value},
            "body": _ref(BODIES[endpoint].__name__),
        },
        "required": ["custom_id", "method", "url", "body"],
        "additionalProperties": False,
    }


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}
