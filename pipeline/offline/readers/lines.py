"""Files of text lines, in groups that can be read by themselves: the survey notes the byte at which each begins."""

import io
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from pipeline.offline.inputs import Source
from pipeline.offline.reaching import reaching
from pipeline.offline.readers.base import PIECE_BYTES, PIECE_ROWS, Piece, Survey
from pipeline.offline.refusals import Fault, JobRefused
from schemas.job import RowGroup

GROUP_ROWS = 4_096
GROUP_BYTES = 16 * 1024 * 1024
LINE_BYTES = 64 * 1024 * 1024
"""The longest line; one that goes on is no line of a dataset."""
BUFFER_BYTES = 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Values(dict[str, Any]):
    """A row by column."""


Entry = tuple[Values | Fault, int]
"""A row, or why it is none, and how many bytes of the file it takes."""


class Form(Protocol):
    """How lines become rows."""

    def header(self, lines: Iterator[bytes]) -> int:
        """Takes what comes before the rows; returns its bytes."""
        ...

    def rows(self, lines: Iterator[bytes]) -> Iterator[Entry]:
        """Takes one row after the other, and no line more than it needs."""
        ...

    def see(self, row: Values) -> None:
        """Learns of a row what its columns may be."""
        ...

    def schema(self) -> Any:
        """What the columns of all the rows seen are."""
        ...

    def column(self, values: list[Any], field: Any) -> Any:
        """An Arrow array of one column's values.

        Raises:
            ArrowException: One of them is not of the column's type.
        """
        ...


class LinesReader:
    """One file of lines, in UTF-8."""

    def __init__(self, source: Source, form: Form, groups: Sequence[RowGroup]):
        self._uri = source.uri
        self._form = form
        self._groups = groups
        self._stream = io.BufferedReader(source.open(), BUFFER_BYTES)

    def survey(self) -> Survey:
        """Reads the whole file once, a line at a time."""
        offset = self._start()
        groups: list[RowGroup] = []
        rows = size_bytes = 0
        for row, taken_bytes in self._form.rows(self._lines()):
            if isinstance(row, Values):
                self._form.see(row)
            rows, size_bytes = rows + 1, size_bytes + taken_bytes
            if rows == GROUP_ROWS or size_bytes >= GROUP_BYTES:
                groups.append(RowGroup(rows=rows, offset_bytes=offset, text_bytes=size_bytes))
                offset, rows, size_bytes = offset + size_bytes, 0, 0
        if rows:
            groups.append(RowGroup(rows=rows, offset_bytes=offset, text_bytes=size_bytes))
        return Survey(self._form.schema(), tuple(groups))

    def read(self, group: int, start: int, rows: int, schema: Any, columns: Collection[str]) -> Iterator[Piece]:
        """Parses the group's lines from its first byte on."""
        self._start()
        self._stream.seek(self._groups[group].offset_bytes)
        entries = islice(self._form.rows(self._lines()), start, start + rows)
        fields = [field for field in schema if field.name in columns]
        left = rows
        while left:
            taken = _take(entries, min(left, PIECE_ROWS))
            if not taken:
                raise JobRefused(f"{self._uri}: has fewer rows than it had")
            left -= len(taken)
            yield self._piece(taken, fields)

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()

    def _piece(self, rows: list[Values | Fault], fields: list[Any]) -> Piece:
        faults = {place: row for place, row in enumerate(rows) if isinstance(row, Fault)}
        parsed = [Values() if isinstance(row, Fault) else row for row in rows]
        try:
            arrays = [self._form.column([row.get(field.name) for row in parsed], field) for field in fields]
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise JobRefused(f"{self._uri}: its rows are not what they were when the job was planned ({type(error).__name__})") from None
        return Piece(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)), faults)

    def _start(self) -> int:
        """Goes to where rows begin; returns the byte."""
        self._stream.seek(0)
        mark_bytes = len(BYTE_ORDER_MARK) if self._stream.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
        self._stream.seek(mark_bytes)
        return mark_bytes + self._form.header(self._lines())

    def _lines(self) -> Iterator[bytes]:
        with reaching(self._uri):
            while line := self._stream.readline(LINE_BYTES):
                if len(line) == LINE_BYTES:
                    raise JobRefused(f"{self._uri}: has a line of more than {LINE_BYTES // 1024**2} MiB: is it what its ending says?")
                yield line


def _take(entries: Iterator[Entry], rows: int) -> list[Values | Fault]:
    """The next rows, until they are many or large."""
    taken: list[Values | Fault] = []
    size_bytes = 0
    for row, row_bytes in entries:
        taken.append(row)
        size_bytes += row_bytes
        if len(taken) == rows or size_bytes >= PIECE_BYTES:
            break
    return taken
