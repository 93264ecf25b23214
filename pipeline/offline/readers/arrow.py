"""Arrow IPC files, whose record batches are the row groups; and IPC streams, which are read from the start."""

from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from pipeline.offline.inputs import Source
from pipeline.offline.reaching import misread, reaching
from pipeline.offline.readers.base import PIECE_BYTES, PIECE_ROWS, Piece, Survey
from pipeline.offline.refusals import JobRefused, StoreAway
from schemas.job import RowGroup

FILE_MAGIC = b"ARROW1"


class ArrowReader:
    """One IPC file or stream. Every batch is validated before it is used: offsets that point elsewhere read other memory."""

    def __init__(self, source: Source):
        self._uri = source.uri
        self._stream = source.open()
        try:
            with reaching(self._uri):
                self._is_file = self._stream.read(len(FILE_MAGIC)) == FILE_MAGIC
            self._schema = self._open().schema
        except BaseException:
            self._stream.close()
            raise
        self._batches: Iterator[Any] = iter(())
        self._at = -1
        self._batch: Any = None

    def survey(self) -> Survey:
        """Reads every batch's size, one batch at a time."""
        groups = [RowGroup(rows=batch.num_rows, text_bytes=batch.nbytes) for batch in self._iterate()]
        return Survey(self._schema, tuple(groups))

    def read(self, group: int, start: int, rows: int, schema: Any, columns: Collection[str]) -> Iterator[Piece]:  # noqa: ARG002 -- the file has its own
        """Slices a batch."""
        batch = self._group(group)
        if batch.num_rows < start + rows:
            raise JobRefused(f"{self._uri}: batch {group} has fewer rows than it had")
        batch = batch.select([name for name in batch.schema.names if name in columns])
        step = max(1, min(PIECE_ROWS, PIECE_BYTES * batch.num_rows // max(batch.nbytes, 1)))
        for place in range(start, start + rows, step):
            yield Piece(batch.slice(place, min(step, start + rows - place)))

    def close(self) -> None:
        """Closes the file."""
        self._batch = None
        self._stream.close()

    def _group(self, group: int) -> Any:
        """The batch of that number. One who reads in order reads every batch once."""
        if group < self._at or self._at < 0:
            self._batches, self._at = self._iterate(), -1
        while self._at < group:
            self._batch = next(self._batches, None)
            if self._batch is None:
                raise JobRefused(f"{self._uri}: has fewer batches than it had")
            self._at += 1
        return self._batch

    def _iterate(self) -> Iterator[Any]:
        reader = self._open()
        try:
            for batch in (reader.get_batch(number) for number in range(reader.num_record_batches)) if self._is_file else reader:
                batch.validate(full=True)
                yield batch
        except (pa.ArrowException, OSError) as error:
            raise self._unsound(error) from None

    def _open(self) -> Any:
        self._stream.seek(0)
        try:
            return pa.ipc.open_file(self._stream) if self._is_file else pa.ipc.open_stream(self._stream)
        except (pa.ArrowException, OSError) as error:
            raise self._unsound(error) from None

    def _unsound(self, error: Exception) -> JobRefused | StoreAway:
        return misread(self._uri, error, "not a sound Arrow file")
