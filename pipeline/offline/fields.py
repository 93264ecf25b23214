"""What a row's text or messages are in a request of each task: one rule for jobs, and for mappers of somebody else's cluster."""

import json
from collections.abc import Mapping
from typing import Any

from schemas.errors import InvalidJson, InvalidRequest
from schemas.job import Task

QUERY_COLUMN = "query"
Fields = dict[str, Any]
"""Fields of a request's body, as JSON has them."""


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text that a column holds in a row; numbers are spelt, for CSV may have made them of text.

    Raises:
        InvalidRequest: It is null, or no text.
    """
    value = row[column]
    if value is None:
        raise InvalidRequest(f"the column {column} is null in this row", param="prompt")
    if not isinstance(value, str | bool | int | float):
        raise InvalidRequest(f"the column {column} holds no text", param="prompt")
    return str(value)


def of_text(task: Task, text: str, query: str = "") -> Fields:
    """What a text is in the task's request; `query` is what a document is ranked for.

    Raises:
        InvalidRequest: It is empty.
    """
    if not text:
        raise InvalidRequest("the prompt is empty", param="prompt")
    match task:
        case Task.GENERATE | Task.SCORE:
            return {"prompt": text}
        case Task.CHAT:
            return {"messages": [{"role": "user", "content": text}]}
        case Task.EMBED | Task.CLASSIFY:
            return {"input": text}
        case Task.RERANK:
            return {"query": query, "documents": [text]}


def of_messages(value: Any) -> Fields:
    """What messages are in a chat's request, from a column of lists or of JSON text. Nulls in them are fields that were left out.

    Raises:
        InvalidRequest: They are null, or no list of objects.
    """
    value = parse(value) if isinstance(value, str) else value
    if value is None:
        raise InvalidRequest("the messages are null in this row", param="messages")
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise InvalidRequest("messages must be a list of objects with role and content", param="messages")
    return {"messages": [{name: entry for name, entry in message.items() if entry is not None} for message in value]}


def parse(text: str) -> Any:
    """Reads a column of JSON.

    Raises:
        InvalidJson: It is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidJson("the column does not hold JSON") from None
