"""The door as a caller sees it who has nothing but the library and the words of the descriptor."""

import json
import os
import shutil
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.address import WorkerAddress
from pipeline.offline.flight.client import FlightScorer
from pipeline.offline.refusals import JobRefused
from pipeline.settings import BadConfiguration, load
from tests.offline.conftest import make_spec
from tests.offline.flight.conftest import DEPTH, House
from tests.waiting import wait_for

TOKEN = "a token of many letters"


def begin(client: Any, task: str = "generate", **wanted: Any) -> tuple[Any, Any]:
    """Opens an exchange."""
    command = json.dumps({"task": task, "model": "m", **wanted}).encode()
    return client.do_exchange(flight.FlightDescriptor.for_command(command))


def write(writer: Any, texts: list[str | None], first: int = 0) -> None:
    """Sends rows."""
    batch = pa.record_batch({"row": pa.array(range(first, first + len(texts)), pa.int64()), "prompt": pa.array(texts, pa.utf8())})
    if first == 0:
        writer.begin(batch.schema)
    writer.write_batch(batch)


def said(reader: Any) -> str:
    """Reads to the end, and returns what the door says there."""
    with pytest.raises(pa.ArrowException) as caught:
        reader.read_all()
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_rows_in_answers_out_by_their_numbers(house):
    """One column is enough; what they share is said once; a row's fault is its own."""
    with house().client() as client:
        writer, reader = begin(client, fields={"max_tokens": 4, "ignore_eos": True, "temperature": 0})
        write(writer, ["one", None, "", "two words"])
        writer.done_writing()
        rows = {row["row"]: row for row in reader.read_all().to_pylist()}
        writer.close()
    assert [rows[number]["error_code"] for number in range(4)] == [None, "invalid_request", "invalid_request", None]
    assert len(rows[3]["output_token_ids"]) == rows[3]["output_tokens"] == 4
    assert rows[3]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (b"{", "command"),
        (b'{"task":"paint","model":"m"}', "task"),
        (b'{"task":"generate","model":"m","colour":1}', "colour"),
        (b'{"task":"generate","model":"other"}', "there is m"),
        (b" " * 70_000, "longer than"),
    ],
)
def test_what_is_no_question_for_a_door_is_refused(house, command: bytes, named: str):
    """In words that name what is wrong."""
    with house().client() as client:
        _, reader = client.do_exchange(flight.FlightDescriptor.for_command(command))
        assert named in said(reader)


def broken_offsets() -> Any:
    """A batch whose text offsets lead far outside."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2**30, 3)))
    text = pa.Array.from_buffers(pa.utf8(), 2, [None, offsets, pa.py_buffer(b"abc")])
    return pa.RecordBatch.from_arrays([pa.array([0, 1], pa.int64()), text], names=["row", "prompt"])


@pytest.mark.parametrize(
    ("batch", "named"),
    [
        (broken_offsets(), "corrupt"),
        (pa.record_batch({"row": [0], "prompt": ["x" * 1_100_000]}), "bytes"),
        (pa.record_batch({"row": range(5_000), "prompt": ["x"] * 5_000}), "rows"),
        (pa.record_batch({"row": pa.array([None], pa.int64()), "prompt": ["x"]}), "no number"),
        (pa.record_batch({"row": [0], "colour": ["x"]}), "a column is not one of rows"),
        (pa.record_batch({"prompt": ["x"]}), "no column 'row'"),
        (pa.record_batch({"row": [0], "prompt": pa.array(["x"]).dictionary_encode()}), "a column is not one of rows"),
        (pa.record_batch({"row": [0], "prompt": pa.array([["x"]])}), "a column is not one of rows"),
    ],
)
def test_unsound_rows_end_their_exchange_and_no_other(house, batch: Any, named: str):
    """The neighbour's rows are answered."""
    one = house()
    with one.client() as client, one.client() as neighbour:
        theirs, answers = begin(neighbour, fields={"max_tokens": 2})
        write(theirs, ["one"])
        writer, reader = begin(client)
        writer.begin(batch.schema)
        with suppress(flight.FlightServerError):  # of a schema it may hear before its rows are on the way
            writer.write_batch(batch)
        assert named in said(reader)
        write(theirs, ["two"], first=1)
        theirs.done_writing()
        assert answers.read_all().num_rows == 2


def test_a_caller_who_takes_no_answers_is_held_back(house):
    """What the worker holds of it stays within bounds however much it sends, and another one's rows get through."""
    one: House = house(FakeEngine("m", max_sequences=8))
    seen: list[Any] = []
    arrivals = one.lobby.arrivals
    one.lobby.arrivals = lambda: (came := arrivals(), seen.extend(came))[0]
    one.goes_on.clear()
    with one.client() as client, one.client() as other:
        writer, reader = begin(client, fields={"max_tokens": 2})
        for start in range(0, 600, 100):
            write(writer, ["word"] * 100, first=start)
        wait_for(lambda: bool(seen) and seen[0].most_held_rows == 2 * DEPTH)
        wait_for(lambda: one.rows_in_engine() == DEPTH)
        theirs, answers = begin(other, fields={"max_tokens": 2})
        write(theirs, ["word"])
        theirs.done_writing()
        one.goes_on.set()
        assert answers.read_all().num_rows == 1
        writer.done_writing()
        assert reader.read_all().num_rows == 600
    assert seen[0].most_held_rows == 2 * DEPTH
    assert one.most_running <= DEPTH


def test_tokens_in_engines_are_bounded(house):
    """At most one row more than the bound."""
    one: House = house(tokens=100)
    with one.client() as client:
        writer, reader = begin(client, fields={"max_tokens": 40, "ignore_eos": True})
        write(writer, ["word"] * 20)
        writer.done_writing()
        assert reader.read_all().num_rows == 20
    assert one.most_running == 3  # of 41 tokens each


def test_rows_of_a_caller_who_is_gone_are_cancelled(house):
    """Whether it hangs up or just goes."""
    one: House = house(FakeEngine("m", max_sequences=8, step_s=0.002))
    with one.client() as client:
        writer, reader = begin(client, fields={"max_tokens": 3_000, "ignore_eos": True})
        write(writer, ["word"] * 12)
        wait_for(lambda: one.rows_in_engine() == 12)
        reader.cancel()
        wait_for(lambda: one.rows_in_engine() == 0)
    wait_for(lambda: one.lobby.callers == 0)


def test_a_drain_ends_exchanges_with_a_fault_that_says_try_again(house):
    """Who has hung up hears it; who comes then, too."""
    one: House = house(FakeEngine("m", max_sequences=8, step_s=0.002))
    with one.client() as client:
        writer, reader = begin(client, fields={"max_tokens": 3_000, "ignore_eos": True})
        write(writer, ["word"] * 3)
        writer.done_writing()
        wait_for(lambda: one.rows_in_engine() == 3)
        one.call(one.desk.drain)
        with pytest.raises(flight.FlightUnavailableError, match="draining"):
            reader.read_all()
        assert one.rows_in_engine() == 0
        with pytest.raises(flight.FlightUnavailableError, match="draining"):
            list(client.do_action("welcome"))


def test_more_callers_than_there_is_room_for_are_asked_to_come_again(house):
    """Those who are here are not harmed."""
    one: House = house(exchanges=1)
    with one.client() as client, one.client() as other:
        writer, reader = begin(client, fields={"max_tokens": 2})
        write(writer, ["word"])
        reader.read_chunk()
        _, refused = begin(other)
        with pytest.raises(flight.FlightUnavailableError, match="1 callers are here already"):
            refused.read_chunk()
        writer.done_writing()
        with pytest.raises(StopIteration):
            reader.read_chunk()


def test_a_worker_with_a_caller_who_never_reads_still_closes(house):
    """It waits a moment, hangs up, and leaves no thread behind."""
    one: House = house(FakeEngine("m", max_sequences=64), exchanges=1)
    client = one.client()
    writer, reader = begin(client)
    write(writer, ["word"])
    wait_for(lambda: one.lobby.callers == 1)
    one.call(one.desk.drain)
    started_s = time.monotonic()
    assert one.close()
    assert time.monotonic() - started_s < 10
    reader.cancel()
    client.close()


def test_the_socket_is_for_this_user_alone_and_goes_with_the_door(house):
    """Mode 0600 from its first moment; in the data folder unless the settings say otherwise."""
    one: House = house()
    path = one.door.socket
    assert path.parent == one.settings.data_dir
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert one.close()
    assert not path.exists()


def test_a_path_that_is_taken_or_too_long_refuses_to_start(house, tmp_path: Path):
    """Another worker's door is not taken over; the default, which nobody asked for, only stays shut."""
    one: House = house()
    with pytest.raises(BadConfiguration, match="another process listens"):
        house(None, {"url": one.door.uri})
    (tmp_path / "file").touch()
    with pytest.raises(BadConfiguration, match="is a file"):
        house(None, {"url": f"unix://{tmp_path}/file"})
    with pytest.raises(BadConfiguration, match="at most 107 bytes"):
        house(None, {"url": f"unix://{tmp_path}/{'x' * 100}"})
    deep = load({"data_dir": tmp_path / ("y" * 100)})
    assert House(deep, FakeEngine("m")).door is None


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:0", "http://x", "grpc+tls://127.0.0.1:0"])
def test_a_network_without_tls_and_token_is_refused(url: str):
    """Before anything listens."""
    with pytest.raises(BadConfiguration, match="bulk"):
        load({"bulk": {"url": url}})


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Any]:
    """Settings of a door on loopback, with a certificate made for it."""
    assert shutil.which("openssl"), "the openssl command is needed"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", *names)
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return {"url": "grpc+tls://127.0.0.1:0", "certificate": certificate, "key": key, "token": TOKEN, "authorities": certificate}


def test_over_a_network_the_token_opens_and_nothing_else(house, tls: dict[str, Any]):
    """With it rows are computed; without it, with another, or over a connection in the clear, nobody gets in."""
    one: House = house(None, tls)
    address = one.address()
    with FlightScorer(address, make_spec()) as scorer:
        assert scorer.dtype == "none"
    for headers in ([], [(b"authorization", b"Bearer another")], [(b"authorization", TOKEN.encode())]):
        with flight.FlightClient(address.uri, tls_root_certs=tls["certificate"].read_bytes()) as client:
            options = flight.FlightCallOptions(headers=headers, timeout=5)
            with pytest.raises(flight.FlightUnauthenticatedError):
                list(client.do_action("welcome", options))
            with pytest.raises(flight.FlightUnauthenticatedError):
                client.do_exchange(flight.FlightDescriptor.for_command(b"{}"), options)[1].read_chunk()
    with flight.FlightClient(address.uri.replace("+tls", "")) as client, pytest.raises(flight.FlightUnavailableError):
        list(client.do_action("welcome", flight.FlightCallOptions(timeout=5)))


def test_a_wrong_token_is_told_and_not_waited_out(house, tls: dict[str, Any]):
    """A job ends at once; so does one without any."""
    one: House = house(None, tls)
    wrong = load({"bulk": {"token": "another of many letters", "authorities": tls["authorities"]}})
    with pytest.raises(JobRefused, match="lets nobody in"), FlightScorer(WorkerAddress.of(one.door.uri, wrong), make_spec()):
        pass
    with pytest.raises(JobRefused, match="wants a token"):
        WorkerAddress.of(one.door.uri, load({}))
    with pytest.raises(JobRefused, match="write auto"):
        WorkerAddress.of("http://x", wrong)


def test_auto_finds_the_worker_of_the_data_folder(house):
    """By its card; those of the dead are passed over."""
    one: House = house()
    folder = one.settings.data_dir
    (folder / "worker-1.json").write_text(json.dumps({"pid": 2**22 + 1, "bulk": "unix:///nowhere"}))
    (folder / f"worker-{os.getpid()}.json").write_text(json.dumps({"pid": os.getpid(), "bulk": one.door.uri}))
    with FlightScorer(WorkerAddress.of("auto", one.settings), make_spec()) as scorer:
        assert scorer.depth == one.welcome.depth
