"""Results as Parquet, JSON lines or an Arrow file, written batch by batch and named when they are whole."""

import base64
import json
import math
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import parquet

from pipeline.offline import files
from pipeline.offline.readers.shapes import JSON_FIELD
from schemas.job import OutputFormat
from schemas.outcome import OutputFile

SUFFIXES = {OutputFormat.PARQUET: ".parquet", OutputFormat.JSONL: ".jsonl", OutputFormat.ARROW: ".arrow"}
ROW_GROUP_BYTES = 16 * 1024 * 1024
"""Rows are gathered into row groups of about this size: small enough to hold, large enough to read well."""

PAGE_BYTES = 1024 * 1024
PAGE_ROWS = 1_024


class Sink(Protocol):
    """A file being written."""

    def write(self, batch: Any) -> None:
        """Adds rows."""
        ...

    def close(self) -> None:
        """Completes the file."""
        ...


class ResultFile:
    """One file of results; it is there once it is sealed, and never if it has no rows."""

    def __init__(self, folder: Path, stem: str, form: OutputFormat, schema: Any):
        self._stem = stem
        self._form = form
        self._schema = schema
        self._temporary = files.temporary_beside(folder / stem)
        self._sink: Sink | None = None
        self.rows = 0

    def write(self, batch: Any) -> None:
        """Adds rows."""
        if batch.num_rows:
            if self._sink is None:
                self._sink = _open(self._form, self._temporary, self._schema)
            self._sink.write(batch)
            self.rows += batch.num_rows

    def seal(self) -> OutputFile | None:
        """Names the file by its content."""
        if self._sink is None:
            return None
        self._sink.close()
        self._sink = None
        return files.seal(self._temporary, self._stem, SUFFIXES[self._form], self.rows)

    def discard(self) -> None:
        """Leaves nothing of a file that was not sealed."""
        if self._sink is not None:
            try:
                self._sink.close()
            finally:
                self._sink = None
                self._temporary.unlink(missing_ok=True)


def _open(form: OutputFormat, path: Path, schema: Any) -> Sink:
    match form:
        case OutputFormat.PARQUET:
            return ParquetSink(path, schema)
        case OutputFormat.JSONL:
            return JsonSink(path)
        case OutputFormat.ARROW:
            return ArrowSink(path, schema)


class ParquetSink:
    """Gathers batches into row groups."""

    def __init__(self, path: Path, schema: Any):
        self._writer: Any = None
        self._path = path
        self._schema = schema
        self._waiting: list[Any] = []
        self._bytes = 0

    def write(self, batch: Any) -> None:
        """Adds rows."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()
            pa.default_memory_pool().release_unused()  # blocks of a few megabytes come and go, and libc keeps what lies between them

    def close(self) -> None:
        """Writes what is left, and the footer."""
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer = self._writer or self._opened(self._bytes / sum(batch.num_rows for batch in self._waiting))
            self._writer.write_table(pa.Table.from_batches(self._waiting, schema=self._schema))
            self._waiting, self._bytes = [], 0

    def _opened(self, row_bytes: float) -> Any:
        """Opens the file. The writer looks at a page's size only after so many rows: of wide ones a page would be huge, for its readers too."""
        rows = max(1, min(PAGE_ROWS, int(PAGE_BYTES / max(row_bytes, 1.0))))
        return parquet.ParquetWriter(str(self._path), self._schema, compression="zstd", write_batch_size=rows)


class ArrowSink:
    """An IPC file of the batches as they come."""

    def __init__(self, path: Path, schema: Any):
        self._writer = pa.ipc.new_file(str(path), schema)

    def write(self, batch: Any) -> None:
        """Adds rows."""
        self._writer.write_batch(batch)

    def close(self) -> None:
        """Writes the footer."""
        self._writer.close()


class JsonSink:
    """An object per line. What JSON has no word for is text, bytes are base64, and numbers that are none are null."""

    def __init__(self, path: Path):
        self._file = path.open("x", encoding="utf-8", newline="\n")

    def write(self, batch: Any) -> None:
        """Adds rows."""
        is_json = {field.name for field in batch.schema if field.metadata and JSON_FIELD in field.metadata}
        for row in batch.to_pylist():
            plain = {name: json.loads(value) if name in is_json and value is not None else _plain(value) for name, value in row.items()}
            self._file.write(json.dumps(plain, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Completes the file."""
        self._file.close()


def _plain(value: Any) -> Any:
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case dict():
            return {str(name): _plain(entry) for name, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
