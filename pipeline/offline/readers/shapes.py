"""What type JSON values have in common. Pure.

Types widen from null over bool, int64, float64, text, lists and objects; what has nothing in common becomes JSON text, and so
does an object of very many names, which is a map rather than a record.
"""

from functools import reduce
from typing import Any

import pyarrow as pa

JSON_FIELD = b"penstock.json"
"""Marks a column of JSON text."""
JSON_TEXT = pa.large_utf8()
"""Stands for JSON text among shapes; nothing else is read as this type."""
MAX_NAMES = 32
INT64 = 2**63

_SCALARS: dict[type, Any] = {type(None): pa.null(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.utf8()}


def shape_of(value: Any) -> Any:
    """The Arrow type of one value."""
    if isinstance(value, list):
        return _list_of(reduce(join, map(shape_of, value), pa.null()))
    if isinstance(value, dict):
        return _object_of({name: shape_of(entry) for name, entry in value.items()})
    if type(value) is int and not -INT64 <= value < INT64:
        return JSON_TEXT
    return _SCALARS[type(value)]


def join(one: Any, other: Any) -> Any:
    """The narrowest type that holds values of both."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        return _list_of(join(one.value_type, other.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        return _object_of(fields | {field.name: join(fields.get(field.name, pa.null()), field.type) for field in other})
    return JSON_TEXT


def to_field(name: str, shape: Any) -> Any:
    """A column of that shape."""
    if shape == JSON_TEXT:
        return pa.field(name, pa.utf8(), metadata={JSON_FIELD: b"1"})
    return pa.field(name, shape)


def _list_of(element: Any) -> Any:
    return JSON_TEXT if element == JSON_TEXT else pa.list_(element)


def _object_of(fields: dict[str, Any]) -> Any:
    if not 0 < len(fields) <= MAX_NAMES or JSON_TEXT in fields.values():
        return JSON_TEXT
    return pa.struct(list(fields.items()))
