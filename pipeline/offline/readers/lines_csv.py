"""CSV with a header line, quoted as RFC 4180 says. A row with another number of fields is a row of nulls with a fault.

A column is of numbers only where every value is spelt as the number would be: `007` and `1.50` stay text.
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.offline.readers.lines import Entry, Values
from pipeline.offline.refusals import Fault, JobRefused

INT64 = 2**63
FIELD_CHARACTERS = 64 * 1024 * 1024


class CsvForm:
    """Rows of fields."""

    def __init__(self, delimiter: str):
        self._delimiter = delimiter
        self._names: list[str] = []
        self._types: dict[str, Any] = {}

    def header(self, lines: Iterator[bytes]) -> int:
        """Takes the names of the columns."""
        first = next(self._records(lines), None)
        names, taken_bytes = first or ([], 0)
        if isinstance(names, Fault) or not names:
            raise JobRefused("a CSV file needs a header line in UTF-8 with the names of its columns")
        self._names = names
        if len(set(self._names)) < len(self._names):
            raise JobRefused("a CSV file names a column twice in its header")
        return taken_bytes

    def rows(self, lines: Iterator[bytes]) -> Iterator[Entry]:
        """Parses records, which may go over several lines."""
        for fields, taken_bytes in self._records(lines):
            if isinstance(fields, Fault):
                yield fields, taken_bytes
            elif len(fields) != len(self._names):
                yield Fault("invalid_request", f"the row has {len(fields)} fields, the header {len(self._names)}"), taken_bytes
            else:
                yield Values(zip(self._names, fields, strict=True)), taken_bytes

    def see(self, row: Values) -> None:
        """Widens the columns' types, from whole numbers over numbers to text; an empty field fits all."""
        for name, text in row.items():
            kind = self._types.get(name, pa.null())
            while text and not _FITS[kind](text):
                kind = _WIDER[kind]
            self._types[name] = kind

    def schema(self) -> Any:
        """The header's columns. One without any value is text."""
        kinds = {name: self._types.get(name, pa.null()) for name in self._names}
        return pa.schema([(name, pa.utf8() if pa.types.is_null(kind) else kind) for name, kind in kinds.items()])

    def column(self, values: list[Any], field: Any) -> Any:
        """Empty fields are null among numbers, and empty text in text."""
        if pa.types.is_integer(field.type):
            values = [int(value) if value else None for value in values]
        elif pa.types.is_floating(field.type):
            values = [float(value) if value else None for value in values]
        return pa.array(values, field.type)

    def _records(self, lines: Iterator[bytes]) -> Iterator[tuple[list[str] | Fault, int]]:
        """Records and their bytes. The parser takes a line only when a record needs it, so what it took is the record's."""
        taken = _Taken(lines)
        csv.field_size_limit(FIELD_CHARACTERS)
        parser = csv.reader(taken, delimiter=self._delimiter, strict=True)
        while True:
            try:
                fields = next(parser, None)
            except csv.Error:
                parser = csv.reader(taken, delimiter=self._delimiter, strict=True)
                yield Fault("invalid_request", "the row is not quoted as CSV is"), taken.reset()
                continue
            if fields is None:
                return
            if fields or taken.is_broken:
                broken = taken.is_broken
                yield Fault("invalid_request", "the row is not UTF-8") if broken else fields, taken.reset()


class _Taken:
    """Lines as text, which counts what was taken since the last record."""

    def __init__(self, lines: Iterator[bytes]):
        self._lines = lines
        self._bytes = 0
        self.is_broken = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._bytes += len(line)
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.is_broken = True
            return line.decode(errors="replace")

    def reset(self) -> int:
        """Begins a record; returns the bytes of the one before."""
        taken_bytes, self._bytes, self.is_broken = self._bytes, 0, False
        return taken_bytes


def _is_int(text: str) -> bool:
    try:
        return str(int(text)) == text and -INT64 <= int(text) < INT64
    except ValueError:
        return False


def _is_float(text: str) -> bool:
    try:
        return _is_int(text) or repr(float(text)) == text
    except ValueError:
        return False


_FITS: dict[Any, Callable[[str], bool]] = {
    pa.null(): lambda text: not text,
    pa.int64(): _is_int,
    pa.float64(): _is_float,
    pa.utf8(): lambda _: True,
}
_WIDER = {pa.null(): pa.int64(), pa.int64(): pa.float64(), pa.float64(): pa.utf8()}


def narrowest(texts: Iterable[str | None]) -> Any:
    """The type of a column that holds these texts; null and empty ones fit all."""
    kind = pa.null()
    for text in texts:
        while text and not _FITS[kind](text):
            kind = _WIDER[kind]
    return pa.utf8() if pa.types.is_null(kind) else kind
