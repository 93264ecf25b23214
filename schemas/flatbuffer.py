"""Reads one thing out of Arrow's message headers: how large the compressed buffers of a record batch become.

Arrow's Python library tells neither whether a batch is compressed nor its size before it has decompressed it. The layout is
that of Message.fbs and Schema.fbs of the Arrow format (version 1.5) over FlatBuffers: a table starts with the signed distance
back to its vtable; the vtable holds its own size, the table's size, then one 16-bit offset per field, 0 for an absent one.
"""

import struct

import pyarrow as pa

_MESSAGE_HEADER, _BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 2, 3  # field numbers
_LENGTH_PREFIX = 8  # a compressed buffer begins with its inflated size; -1 means that it is stored as it is


def inflated_bytes(metadata: pa.Buffer, body: pa.Buffer) -> int:
    """Adds up what the buffers of a record batch declare to become, 0 where the batch is not compressed.

    Arrow itself allocates these sizes and fails when the data becomes another, so the sum bounds what decoding takes.

    Args:
        metadata: The encapsulated message's FlatBuffer.
        body: The message's body.

    Raises:
        ValueError: The layout leads outside the bytes, or a size is negative.
    """
    header, data = memoryview(metadata), memoryview(body)
    try:
        batch = _follow(header, _field(header, _follow(header, 0), _MESSAGE_HEADER))
        if _field(header, batch, _BATCH_COMPRESSION) == 0:
            return 0
        return sum(_inflated(data, offset, length) for offset, length in _buffers(header, _field(header, batch, _BATCH_BUFFERS)))
    except struct.error:
        raise ValueError("the message's metadata leads outside the message") from None


def _inflated(body: memoryview, offset: int, length: int) -> int:
    if length == 0:
        return 0
    (size,) = _unpack("<q", body, offset)
    if size < -1:
        raise ValueError("a buffer declares a negative size")
    return 0 if size == -1 else int(size)


def _buffers(header: memoryview, field: int) -> list[tuple[int, int]]:
    if field == 0:
        return []
    vector = _follow(header, field)
    (count,) = _unpack("<I", header, vector)
    entries = header[vector + 4 : vector + 4 + 16 * count]
    if len(entries) != 16 * count:
        raise ValueError("the message declares more buffers than it holds")
    return list(struct.iter_unpack("<qq", entries))


def _field(header: memoryview, table: int, number: int) -> int:
    """Position of a table's field, 0 where it is absent."""
    (back,) = _unpack("<i", header, table)
    vtable = table - back
    (size,) = _unpack("<H", header, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = _unpack("<H", header, vtable + 4 + 2 * number)
    return table + offset if offset else 0


def _follow(header: memoryview, position: int) -> int:
    """Where the offset at a position points."""
    (offset,) = _unpack("<I", header, position)
    return position + int(offset)


def _unpack(layout: str, data: memoryview, position: int) -> tuple[int, ...]:
    if position < 0:
        raise ValueError("the message's metadata leads outside the message")
    return struct.unpack_from(layout, data, position)
