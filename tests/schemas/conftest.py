"""Fixtures of the wire contract's tests."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

NULLABLE = pa.schema([("custom_id", pa.utf8()), ("url", pa.utf8()), ("body", pa.utf8()), ("deadline", pa.int64())])


@pytest.fixture(scope="session")
def arrow_value() -> Callable[..., bytes]:
    """Writes rows as an Arrow stream, as any writer might: other schemas, nulls, several batches, compression."""

    def write(rows: Sequence[Sequence[Any]], schema: pa.Schema = NULLABLE, batches: int = 1, **options: Any) -> bytes:
        sink = pa.BufferOutputStream()
        columns = [pa.array([row[number] for row in rows], field.type) for number, field in enumerate(schema)]
        with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            for _ in range(batches):
                writer.write_batch(pa.record_batch(columns, schema=schema))
        return bytes(sink.getvalue())

    return write
