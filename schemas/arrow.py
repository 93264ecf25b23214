"""Many requests in one record: an Arrow IPC stream, read as if its writer were hostile.

The schema is checked before any data is read, so that only four flat columns ever get decoded. Compressed buffers say how
large they become; that is added up before Arrow allocates it. A batch counts only after Arrow's full validation, which
alone finds string offsets that point elsewhere.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from schemas.errors import InvalidRequest, RecordTooLarge, UnsupportedField
from schemas.faults import dotted
from schemas.flatbuffer import inflated_bytes

DECODED_RATIO = 16
"""How much larger than the largest record its decoded form may be."""

SCHEMA = pa.schema(
    [
        pa.field("custom_id", pa.utf8(), nullable=False),
        pa.field("url", pa.utf8(), nullable=False),
        pa.field("body", pa.utf8(), nullable=False),
        pa.field("deadline", pa.int64()),
    ]
)
"""What `write_rows` writes."""

_TEXTS = (pa.utf8(), pa.large_utf8())
_ALLOWED = {"custom_id": _TEXTS, "url": _TEXTS, "body": _TEXTS, "deadline": (pa.int64(),)}
_REQUIRED = ("custom_id", "url", "body")


class Row(NamedTuple):
    """One request: `body` is JSON, `deadline_ms` in epoch milliseconds. A null is None."""

    custom_id: str | None
    url: str | None
    body: str | None
    deadline_ms: int | None = None


def write_rows(rows: Sequence[Row]) -> bytes:
    """Encodes rows as one stream of one batch."""
    columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    return bytes(sink.getvalue())


def read_rows(value: bytes, *, max_rows: int, max_decoded_bytes: int) -> list[Row]:
    """Decodes a stream of at least one row.

    Raises:
        InvalidRequest: The stream is corrupt, empty, or has another schema.
        RecordTooLarge: It has more rows, or becomes larger, than allowed.
    """
    rows: list[Row] = []
    try:
        for batch in _batches(value, max_decoded_bytes):
            if len(rows) + batch.num_rows > max_rows:
                raise RecordTooLarge(f"the record has more than {max_rows} rows: send several records")
            rows.extend(_rows(batch))
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise InvalidRequest(f"the value is not a sound Arrow IPC stream ({type(error).__name__})") from None
    if not rows:
        raise InvalidRequest("the Arrow stream has no rows")
    return rows


def _batches(value: bytes, max_decoded_bytes: int) -> Iterator[pa.RecordBatch]:
    messages = iter(pa.ipc.MessageReader.open_stream(value))
    first = next(messages, None)
    if first is None or first.type != "schema":
        raise InvalidRequest("the Arrow stream does not begin with a schema")
    schema = pa.ipc.read_schema(first)
    _check_schema(schema)
    decoded_bytes = 0
    for message in messages:
        if message.type != "record batch":
            raise InvalidRequest("the Arrow stream holds something else than a schema and record batches")
        if message.metadata_version != pa.ipc.MetadataVersion.V5:  # older ones may be compressed without saying so where it is looked for
            raise InvalidRequest("the Arrow stream is in a format older than 1.0: write it with metadata version 5")
        decoded_bytes += message.body.size + inflated_bytes(message.metadata, message.body)
        if decoded_bytes > max_decoded_bytes:
            raise RecordTooLarge(f"the Arrow stream becomes larger than {max_decoded_bytes} bytes: send several records")
        yield pa.ipc.read_record_batch(message, schema)


def _check_schema(schema: pa.Schema) -> None:
    for field in schema:
        name = dotted((field.name,))
        if field.name not in _ALLOWED:
            raise UnsupportedField(f"{name} is not a column of requests; they are {', '.join(_ALLOWED)}", param=name)
        if field.type not in _ALLOWED[field.name]:
            raise InvalidRequest(f"column {name} must be {' or '.join(map(str, _ALLOWED[field.name]))}", param=name)
    if len(set(schema.names)) < len(schema.names):
        raise InvalidRequest("the Arrow schema names a column twice")
    for name in _REQUIRED:
        if name not in schema.names:
            raise InvalidRequest(f"the Arrow schema lacks the column {name}", param=name)


def _rows(batch: pa.RecordBatch) -> Iterator[Row]:
    batch.validate(full=True)
    columns = [batch.column(name).to_pylist() for name in _REQUIRED]
    deadlines = batch.column("deadline").to_pylist() if "deadline" in batch.schema.names else [None] * batch.num_rows
    return map(Row, *columns, deadlines)
