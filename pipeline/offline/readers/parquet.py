"""Parquet files, read page by page: of a row group that is larger than memory only a few megabytes are there at a time."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pipeline.offline.inputs import Source
from pipeline.offline.reaching import misread
from pipeline.offline.readers.base import PIECE_BYTES, PIECE_ROWS, Piece, Survey
from pipeline.offline.refusals import JobRefused
from schemas.job import RowGroup

BUFFER_BYTES = 1024 * 1024
NARROW_BYTES = 64 * 1024
"""Wider rows are not probed: a page of them is large, and to hold one more of them is worse than a guess."""
PROBE_ROWS = 8
"""Rows that tell how large rows are: a dictionary may hold little and stand for much."""


@dataclass(slots=True)
class _Cursor:
    """A row group that is being read: reading on where one stopped costs nothing, beginning anew decodes all that is skipped."""

    key: tuple[int, tuple[str, ...]]
    batches: Iterator[Any]
    next_row: int = 0
    left: Any = None

    def take(self, rows: int) -> Any:
        """The next rows, at most so many."""
        batch = self.left if self.left is not None else next(self.batches, None)
        if batch is None:
            return None
        self.left = batch.slice(rows) if batch.num_rows > rows else None
        batch = batch.slice(0, rows)
        self.next_row += batch.num_rows
        return batch


class ParquetReader:
    """One Parquet file. It remembers where it stopped, so that one who reads in order reads everything once."""

    def __init__(self, source: Source):
        self._uri = source.uri
        self._stream = source.open()
        try:
            self._file = parquet.ParquetFile(self._stream, buffer_size=BUFFER_BYTES, pre_buffer=False, memory_map=False)
        except (pa.ArrowException, OSError) as error:
            self._stream.close()
            raise misread(source.uri, error, "not a sound Parquet file") from None
        self._cursor: _Cursor | None = None

    def survey(self) -> Survey:
        """Reads the footer alone."""
        metadata = self._file.metadata
        found = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        groups = tuple(RowGroup(rows=group.num_rows, text_bytes=max(group.total_byte_size, 0)) for group in found)
        return Survey(self._file.schema_arrow, groups)

    def read(self, group: int, start: int, rows: int, schema: Any, columns: Collection[str]) -> Iterator[Piece]:  # noqa: ARG002 -- the file has its own
        """Decodes the pages that hold these rows, and those before them where it did not stop there."""
        cursor = self._cursor_at(group, start, tuple(name for name in self._file.schema_arrow.names if name in columns))
        try:
            while cursor.next_row < start:
                self._advance(cursor, start - cursor.next_row)
            end = start + rows
            while cursor.next_row < end:
                yield Piece(self._advance(cursor, end - cursor.next_row))
        except (pa.ArrowException, OSError) as error:
            self._cursor = None
            raise misread(self._uri, error, f"row group {group} cannot be read") from None

    def close(self) -> None:
        """Closes the file."""
        self._cursor = None
        self._file.close()
        self._stream.close()

    def _advance(self, cursor: _Cursor, rows: int) -> Any:
        batch = cursor.take(rows)
        if batch is None:
            raise JobRefused(f"{self._uri}: row group {cursor.key[0]} has fewer rows than its footer says")
        return batch

    def _cursor_at(self, group: int, start: int, columns: tuple[str, ...]) -> _Cursor:
        cursor = self._cursor
        if cursor is None or cursor.key != (group, columns) or cursor.next_row > start:
            batch_rows = self._rows_per_piece(group, columns)
            batches = self._file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=list(columns), use_threads=False)
            cursor = self._cursor = _Cursor((group, columns), batches)
        return cursor

    def _rows_per_piece(self, group: int, columns: tuple[str, ...]) -> int:
        metadata = self._file.metadata.row_group(group)
        chunks = [metadata.column(number) for number in range(metadata.num_columns)]
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
        row_bytes = sum(chunk.total_uncompressed_size for chunk in chunks) / max(metadata.num_rows, 1)
        if row_bytes < NARROW_BYTES and any("DICTIONARY" in encoding for chunk in chunks for encoding in chunk.encodings):
            row_bytes = max(row_bytes, self._decoded_row_bytes(group, columns))
        return max(1, min(PIECE_ROWS, int(PIECE_BYTES / max(row_bytes, 1))))

    def _decoded_row_bytes(self, group: int, columns: tuple[str, ...]) -> float:
        probe = next(self._file.iter_batches(batch_size=PROBE_ROWS, row_groups=[group], columns=list(columns), use_threads=False), None)
        return 0.0 if probe is None or not probe.num_rows else probe.nbytes / probe.num_rows
