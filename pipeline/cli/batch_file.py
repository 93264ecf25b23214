"""Lines of an OpenAI Batch file, in and out."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.client import Result
from schemas.errors import InvalidJson, InvalidRequest, PenstockError


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One request of a file."""

    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no request."""

    number: int
    error: InvalidRequest


def read(lines: Iterable[str]) -> Iterator[Line | BadLine]:
    """Reads lines one by one; empty ones are passed over."""
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                yield _parse(text)
            except InvalidRequest as error:
                yield BadLine(number=number, error=error)


def succeeded(result: Result) -> dict[str, Any]:
    """The output line of a request that was answered."""
    response = {"status_code": 200, "request_id": result.body.get("id"), "body": result.body}
    return {"custom_id": result.custom_id, "response": response, "error": None}


def failed(custom_id: str | None, error: PenstockError) -> dict[str, Any]:
    """The output line of a request that was not."""
    return {"custom_id": custom_id, "response": None, "error": {"code": error.code, "message": error.message}}


def _parse(text: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        raise InvalidJson("not JSON") from None
    if not isinstance(line, dict):
        raise InvalidJson("not a JSON object")
    for name, kind in (("custom_id", str), ("url", str), ("body", dict)):
        if not isinstance(line.get(name), kind):
            raise InvalidRequest(f"{name} is missing or no {'object' if kind is dict else 'string'}", param=name)
    if line.get("method", "POST") != "POST":
        raise InvalidRequest("method must be POST", param="method")
    return Line(custom_id=line["custom_id"], url=line["url"], body=line["body"])
