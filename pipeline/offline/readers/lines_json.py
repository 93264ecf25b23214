"""JSON Lines: an object per line. A line that is none is a row of nulls with a fault."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.offline.readers.lines import Entry, Values
from pipeline.offline.readers.shapes import JSON_FIELD, join, shape_of, to_field
from pipeline.offline.refusals import Fault


class JsonForm:
    """Rows of objects. A column whose values have no common type is kept as JSON text."""

    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def header(self, lines: Iterator[bytes]) -> int:  # noqa: ARG002 -- there is none
        """There is none."""
        return 0

    def rows(self, lines: Iterator[bytes]) -> Iterator[Entry]:
        """Parses lines; empty ones are no rows, but count as bytes of the next."""
        skipped_bytes = 0
        for line in lines:
            if not line.strip():
                skipped_bytes += len(line)
                continue
            yield _parse(line), len(line) + skipped_bytes
            skipped_bytes = 0

    def see(self, row: Values) -> None:
        """Widens the columns' shapes."""
        for name, value in row.items():
            self._shapes[name] = join(self._shapes.get(name, pa.null()), shape_of(value))

    def schema(self) -> Any:
        """One field per name, in the order in which they were met."""
        return pa.schema([to_field(name, shape) for name, shape in self._shapes.items()])

    def column(self, values: list[Any], field: Any) -> Any:
        """The values; where the column is JSON text, spelt as that."""
        if field.metadata and JSON_FIELD in field.metadata:
            values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        elif pa.types.is_floating(field.type):  # integers that a float64 cannot hold are rounded, as a JSON reader would
            values = [None if value is None else float(value) for value in values]
        return pa.array(values, field.type)


def _parse(line: bytes) -> Values | Fault:
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return Fault("invalid_json", "the line is not JSON in UTF-8")
    if not isinstance(value, dict):
        return Fault("invalid_json", "the line is not a JSON object")
    if b"\\ud" in line.lower() and not _is_text(value):
        return Fault("invalid_json", "the line holds half a surrogate pair")
    return Values(value)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # NaN and Infinity are not JSON


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
