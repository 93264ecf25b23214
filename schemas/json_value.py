"""JSON between bytes and objects: strict UTF-8 both ways, whole characters only."""

import json
import re
from typing import Any

from schemas.errors import InvalidJson, InvalidRequest
from schemas.faults import dotted

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dump(value: Any) -> bytes:
    """Encodes compactly. NaN and lone surrogates raise ValueError: nobody could read them back."""
    return _ENCODER.encode(value).encode("utf-8")


def load_object(data: bytes, *, what: str) -> dict[str, Any]:
    """Parses one JSON object. Lone surrogates and the literals NaN and Infinity get through, for the caller to name the field.

    Args:
        data: The bytes, at most as many as the caller is willing to parse.
        what: What they are, for messages.

    Raises:
        InvalidJson: They are not UTF-8, not JSON, nested too deep, or not an object.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidJson(f"{what} is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidJson(f"{what} is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise InvalidJson(f"{what} is nested too deep") from None
    except ValueError:  # more digits than the interpreter converts
        raise InvalidJson(f"{what} holds an integer of too many digits") from None
    if not isinstance(value, dict):
        raise InvalidJson(f"{what} must be one JSON object")
    return value


def refuse_surrogates(data: bytes, value: dict[str, Any]) -> None:
    """Refuses half characters, which no UTF-8 text can hold: only the escape of one surrogate brings them in.

    Args:
        data: What `value` was parsed from: without such an escape there is nothing to look for.
        value: The parsed object.

    Raises:
        InvalidRequest: Naming the field that holds one.
    """
    if _SURROGATE_ESCAPE.search(data) is None:
        return
    path = _path_of_half_character(value)
    if path is not None:
        raise InvalidRequest(f"{path} holds half of a surrogate pair: escape both halves or send UTF-8", param=path)


def is_whole(text: str) -> bool:
    """Tells whether a text can be encoded: it holds no lone surrogate."""
    return text.isascii() or _SURROGATE.search(text) is None


_Path = tuple[Any, Any] | None
"""A path as (path of the parent, name or number): siblings share their parents' part, so a path costs the same at any depth."""


def _path_of_half_character(root: dict[str, Any]) -> str | None:
    """Searches all strings, names of fields included, without recursion."""
    waiting: list[tuple[_Path, Any]] = [(None, root)]
    while waiting:
        path, container = waiting.pop()
        entries = container.items() if isinstance(container, dict) else enumerate(container)
        for name, entry in entries:
            if (isinstance(name, str) and not is_whole(name)) or (isinstance(entry, str) and not is_whole(entry)):
                return dotted(_unrolled((path, name)))
            if isinstance(entry, dict | list):
                waiting.append(((path, name), entry))
    return None


def _unrolled(path: _Path) -> tuple[Any, ...]:
    parts = []
    while path is not None:
        path, part = path
        parts.append(part)
    return tuple(reversed(parts))
