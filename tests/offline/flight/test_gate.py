"""What does not get to the door, and what a caller hears of it."""

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from pipeline.offline.flight.meter import MESSAGE_BYTES
from tests.offline.flight.conftest import House
from tests.offline.flight.test_door import TOKEN, begin, said, tls, write
from tests.waiting import wait_for

__all__ = ["tls"]

ALGORITHM = "grpc.default_compression_algorithm"
GZIP = 2


def connect(one: House, algorithm: int) -> Any:
    """A caller with a connection of its own: gRPC shares one among those of a process that have the same options."""
    return flight.FlightClient(one.door.uri.replace("unix", "grpc+unix"), generic_options=[(ALGORITHM, algorithm)])


def large(size_bytes: int) -> Any:
    """Rows with a text of that size."""
    return pa.record_batch({"row": pa.array([0], pa.int64()), "prompt": ["x" * size_bytes]})


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_message_beyond_the_limit_is_refused_in_words(house, when: str):
    """Whether answers have begun or not; the same caller may come again, and a neighbour does not notice."""
    one: House = house()
    with one.client() as client, connect(one, 0) as neighbour:
        theirs, answers = begin(neighbour, fields={"max_tokens": 2})
        write(theirs, ["one"])
        batch = large(MESSAGE_BYTES)
        writer, reader = begin(client, fields={"max_tokens": 2})
        writer.begin(batch.schema)
        if when == "later":
            writer.write_batch(large(1))
            reader.read_chunk()
        writer.write_batch(batch)
        assert "bytes: send record batches of at most 1 MiB" in said(reader)
        write(theirs, ["two"], first=1)
        theirs.done_writing()
        assert answers.read_all().num_rows == 2
        assert list(client.do_action("welcome"))
    wait_for(lambda: one.lobby.callers == 0)


def test_a_message_that_grpc_compressed_is_refused_in_words(house):
    """It would be unpacked before anybody could look at its size."""
    one: House = house()
    with connect(one, GZIP) as client:
        batch = large(100_000)
        writer, reader = begin(client)
        with suppress(pa.ArrowException):  # it may hear of it before it has sent all
            writer.begin(batch.schema)
            writer.write_batch(batch)
        assert "compressed by gRPC" in said(reader)


def test_who_has_no_token_sends_no_large_message_either(house, tls: dict[str, Any]):
    """Flight reads what an action carries before it looks at the token; the gate does not let it in."""
    one: House = house(None, tls)
    with flight.FlightClient(one.address().uri, tls_root_certs=tls["certificate"].read_bytes()) as client:
        with pytest.raises(pa.ArrowException, match=r"a message has \d+ bytes"):
            list(client.do_action(flight.Action("welcome", bytes(MESSAGE_BYTES + 1)), flight.FlightCallOptions(timeout=20)))
        options = flight.FlightCallOptions(timeout=20, headers=[(b"authorization", f"Bearer {TOKEN}".encode())])
        assert list(client.do_action("welcome", options))


def test_a_door_that_closes_hangs_up_on_those_who_only_wait(house):
    """And ends its thread."""
    one: House = house()
    with one.client() as client:
        assert list(client.do_action("welcome"))
        assert one.close()
        with pytest.raises(flight.FlightUnavailableError):
            list(client.do_action("welcome"))
    assert not one.door.gate._thread.is_alive()
