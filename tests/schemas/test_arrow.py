import struct

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.arrow import Row, read_rows, write_rows
from schemas.errors import InvalidRequest, RecordTooLarge, UnsupportedField
from schemas.flatbuffer import inflated_bytes
from tests.schemas.samples import repeatable

ROW = ("c-42", "/v1/completions", '{"model": "tiny", "prompt": "Hi"}', 5)
TEXT = pa.utf8()


def read(value: bytes, max_rows: int = 4_096, max_decoded_bytes: int = 1 << 20) -> list[Row]:
    """Reads within bounds that only tests of the bounds change."""
    return read_rows(value, max_rows=max_rows, max_decoded_bytes=max_decoded_bytes)


row = st.builds(
    Row,
    custom_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    url=st.text("/v1", max_size=5),
    body=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    deadline_ms=st.none() | st.integers(-(2**63), 2**63 - 1),
)


@repeatable
@given(rows=st.lists(row, min_size=1, max_size=5))
def test_rows_come_back_as_they_were_written(rows):
    """Whatever text they hold."""
    assert read(write_rows(rows)) == rows


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("text", [pa.utf8(), pa.large_utf8()])
def test_other_writers_are_read(arrow_value, text, compression):
    """Large strings, another order of columns, several batches, no deadlines and compression are all fine."""
    schema = pa.schema([("url", text), ("body", text), ("custom_id", text)])
    value = arrow_value([("/u", "b" * 100, "a")], schema, batches=3, compression=compression)
    assert read(value) == [Row("a", "/u", "b" * 100)] * 3


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ([("custom_id", TEXT), ("url", TEXT)], InvalidRequest, "body"),
        ([("custom_id", pa.int64()), ("url", TEXT), ("body", TEXT)], InvalidRequest, "custom_id"),
        ([("custom_id", TEXT), ("url", TEXT), ("body", pa.binary())], InvalidRequest, "body"),
        ([("custom_id", TEXT), ("url", TEXT), ("body", TEXT), ("deadline", TEXT)], InvalidRequest, "deadline"),
        ([("custom_id", TEXT), ("url", TEXT), ("body", pa.dictionary(pa.int32(), TEXT))], InvalidRequest, "body"),
        ([("custom_id", TEXT), ("url", TEXT), ("body", TEXT), ("method", TEXT)], UnsupportedField, "method"),
        ([("custom_id", TEXT), ("url", TEXT), ("body", TEXT), ("body", TEXT)], InvalidRequest, None),
    ],
)
def test_another_schema_is_refused_before_any_row_is_read(arrow_value, fields, kind, param):
    """Only the contract's four columns are decoded, under their own types."""
    with pytest.raises(kind) as caught:
        read(arrow_value([], pa.schema(fields)))
    assert caught.value.param == param


def test_a_stream_without_rows_is_refused(arrow_value):
    """A record that asks for nothing would never be answered."""
    with pytest.raises(InvalidRequest, match="no rows"):
        read(arrow_value([]))


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\xff\xff\xff\x00\x00\x00\x00", b"\xff" * 64])
def test_what_is_no_stream_is_refused(value):
    """Whatever it is instead."""
    with pytest.raises(InvalidRequest):
        read(value)


def test_a_batch_without_a_schema_is_refused(arrow_value):
    """A stream begins with its schema."""
    messages = list(pa.ipc.MessageReader.open_stream(arrow_value([ROW])))
    with pytest.raises(InvalidRequest, match="begin with a schema"):
        read(messages[1].serialize().to_pybytes())


def test_only_record_batches_follow_the_schema(arrow_value):
    """A second schema, or a dictionary, has no place in the contract."""
    schema, _ = pa.ipc.MessageReader.open_stream(arrow_value([ROW]))
    with pytest.raises(InvalidRequest, match="something else"):
        read(schema.serialize().to_pybytes() * 2)


def test_old_formats_are_refused(arrow_value):
    """Metadata version 4 may carry compression where nobody looks for it."""
    with pytest.raises(InvalidRequest, match="metadata version 5"):
        read(arrow_value([ROW], metadata_version=pa.ipc.MetadataVersion.V4))


@pytest.mark.parametrize("batches", [1, 4])
def test_rows_are_counted_over_all_batches(arrow_value, batches):
    """The bound holds for the record."""
    value = arrow_value([ROW] * 3, batches=batches)
    assert len(read(value, max_rows=3 * batches)) == 3 * batches
    with pytest.raises(RecordTooLarge, match="rows"):
        read(value, max_rows=3 * batches - 1)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_bomb_is_refused_before_it_goes_off(arrow_value, compression):
    """A hundred megabytes in a small record are refused by what its buffers say they become, and never allocated."""
    value = arrow_value([("c", "/u", "x" * 100_000_000, None)], compression=compression)
    assert len(value) < 1 << 20
    before = pa.total_allocated_bytes()
    with pytest.raises(RecordTooLarge, match="becomes larger"):
        read(value, max_decoded_bytes=16 << 20)
    assert pa.total_allocated_bytes() - before < 1 << 20


def in_body(value: bytes, old: bytes, new: bytes) -> bytes:
    """Replaces the last occurrence, which lies in the body: numbers of the metadata may look the same."""
    head, found, tail = value.rpartition(old)
    assert found
    return head + new + tail


@pytest.mark.parametrize("promised", [1_000, -2])
def test_a_buffer_that_lies_about_its_size_is_corrupt(arrow_value, promised):
    """Arrow compares what came out with what was promised, so a small promise cannot hide a bomb."""
    value = arrow_value([("c", "/u", "x" * 100_000, None)], compression="zstd")
    frame = b"\x28\xb5\x2f\xfd"
    with pytest.raises(InvalidRequest, match="not a sound"):
        read(in_body(value, struct.pack("<q", 100_000) + frame, struct.pack("<q", promised) + frame))


def test_a_buffer_that_is_stored_as_it_is_becomes_no_larger(arrow_value):
    """A size of -1 stands for no compression of this one buffer."""

    def inflated(value: bytes) -> int:
        _, batch = pa.ipc.MessageReader.open_stream(value)
        return inflated_bytes(batch.metadata, batch.body)

    value = arrow_value([("c", "/u", "x" * 100_000, None)], compression="zstd")
    stored = in_body(value, struct.pack("<q", 100_000) + b"\x28\xb5\x2f\xfd", struct.pack("<q", -1) + b"\x28\xb5\x2f\xfd")
    assert inflated(value) - inflated(stored) == 100_000


@pytest.mark.parametrize("bad", [(0, 10, 2**30), (5, 10, 0), (-8, 10, 20), (0, 25, 20), (0, -1, 20)])
def test_string_offsets_that_point_elsewhere_are_found(arrow_value, bad):
    """Only full validation sees those in the middle: the stream itself is well formed, and reading them would leave the buffer."""
    value = arrow_value([("c", "/u", "0123456789", None)] * 2)
    with pytest.raises(InvalidRequest, match="not a sound"):
        read(in_body(value, struct.pack("<iii", 0, 10, 20), struct.pack("<iii", *bad)))


def test_text_that_is_no_utf8_is_found(arrow_value):
    """Likewise."""
    value = arrow_value([("c", "/u", "0123456789", None)])
    with pytest.raises(InvalidRequest, match="not a sound"):
        read(in_body(value, b"0123456789", b"\xff" * 10))


@settings(repeatable, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damaged_streams_raise_only_the_error_tree(arrow_value, compression, data):
    """Cut short, or with any bytes changed, a stream is read or refused."""
    value = bytearray(arrow_value([ROW, (None, "/u", "{}", None)], batches=2, compression=compression))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(value[: data.draw(st.sampled_from([len(value), len(value) // 2]) | st.integers(0, len(value)))])
    try:
        rows = read(damaged)
    except InvalidRequest:
        return
    assert all(isinstance(row, Row) for row in rows)


def metadata_of(*buffers: tuple[int, int], count: int | None = None, message_back: int = 12, buffers_at: int = 4, compression_at: int = 8) -> bytes:
    """Lays out by hand, in Arrow's FlatBuffers, what there is to read of a batch: its buffers' places, and that they are compressed."""
    message_vtable = struct.pack("<5H2x", 10, 8, 0, 0, 4)
    message = struct.pack("<iI", message_back, 36 - 20)
    batch_vtable = struct.pack("<6H", 12, 12, 0, 0, buffers_at, compression_at)
    batch = struct.pack("<iII", 12, 8, 0)
    vector = struct.pack("<I", len(buffers) if count is None else count) + b"".join(struct.pack("<qq", *buffer) for buffer in buffers)
    return struct.pack("<I", 16) + message_vtable + message + batch_vtable + batch + vector


BODY = struct.pack("<qqqq", 1_000, -1, -2, 7)


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        (metadata_of((0, 32)), 1_000),
        (metadata_of((0, 8), (8, 8), (24, 8)), 1_007),
        (metadata_of((16, 0), (99, 0)), 0),
        (metadata_of(), 0),
        (metadata_of((0, 32), compression_at=0), 0),
        (metadata_of((0, 32), buffers_at=0), 0),
    ],
)
def test_the_sizes_that_buffers_promise_are_added_up(metadata, size):
    """Stored and empty buffers become nothing more; without compression, or buffers, there is nothing to add."""
    assert inflated_bytes(pa.py_buffer(metadata), pa.py_buffer(BODY)) == size


@pytest.mark.parametrize(
    "metadata",
    [
        metadata_of((16, 8)),
        metadata_of((25, 8)),
        metadata_of((-8, 8)),
        metadata_of((0, 8), count=2),
        metadata_of((0, 8), count=2**32 - 1),
        metadata_of((0, 8), message_back=2**31 - 1),
        metadata_of((0, 8), message_back=-(2**31)),
        metadata_of((0, 8))[:50],
        b"",
    ],
)
def test_sizes_below_nothing_and_places_outside_are_refused(metadata):
    """Offsets are signed, and Python counts negative positions from the end: neither may be read."""
    with pytest.raises(ValueError, match=r"negative|outside|more buffers"):
        inflated_bytes(pa.py_buffer(metadata), pa.py_buffer(BODY))


@repeatable
@given(metadata=st.binary(max_size=64), body=st.binary(max_size=64))
def test_a_metadata_of_random_bytes_is_measured_or_refused(metadata, body):
    """Reading offsets never leaves the bytes."""
    try:
        size = inflated_bytes(pa.py_buffer(metadata), pa.py_buffer(body))
    except ValueError:
        return
    assert size >= 0
