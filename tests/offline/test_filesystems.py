"""How long the clients of stores try by themselves, and what is made of the hub's errors."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx2
import pyarrow as pa
import pytest
from huggingface_hub import HfFileSystem, constants
from pyarrow import fs, parquet

from pipeline.offline.filesystems import GOOGLE_RETRY_S, open_filesystem
from pipeline.offline.hub import CLIENTS, Hub, HubFile, errors_of_clients
from pipeline.offline.inputs import expand
from pipeline.offline.refusals import JobRefused, StoreAway

URI = "hf://datasets/somebody/some/rows.jsonl"


@pytest.mark.parametrize(("query", "tries_s"), [("", GOOGLE_RETRY_S), ("&retry_limit_seconds=5", 5)])
def test_googles_client_gives_up_soon(query: str, tries_s: int):
    """Unless the address says how long; nobody is asked before a file is."""
    filesystem, path = open_filesystem(f"gs://data/in?scheme=http&endpoint_override=127.0.0.1:1{query}")
    _, (given,) = filesystem.__reduce__()
    assert path == "data/in"
    assert given["retry_time_limit"].total_seconds() == tries_s


@contextmanager
def hub(status: int) -> Iterator[str]:
    """A server that gives one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where the hub is, for a while."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    HfFileSystem.clear_instance_cache()
    yield lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)
    HfFileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("status", "refusal"), [(500, StoreAway), (503, StoreAway), (429, StoreAway), (401, JobRefused), (403, JobRefused), (404, JobRefused)]
)
def test_the_hubs_answers_are_told_apart(endpoint, status: int, refusal: type[Exception]):
    """By their status: those that pass are waited out, others are told at once. The library itself takes either for a file that is not there."""
    with hub(status) as address:
        endpoint(address)
        with pytest.raises(refusal, match=r"^hf://[^\n]+$"):
            expand([URI])


@pytest.mark.usefixtures("endpoint")
def test_a_hub_that_nobody_is_let_out_to_is_a_setting_and_no_outage(monkeypatch: pytest.MonkeyPatch):
    """A job would wait for ever."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(JobRefused, match="HF_HUB_OFFLINE"):
        expand([URI])


@pytest.mark.usefixtures("endpoint")
def test_what_is_no_address_of_the_hub_is_told():
    """The library says so by other errors than of files."""
    with pytest.raises(JobRefused, match="hf://rows"):
        expand(["hf://rows.jsonl"])


def test_files_of_the_hub_are_listed_written_and_read():
    """As those of any store, here on one that lies in memory; what is not there is told as elsewhere."""
    memory = fs.FileSystem.from_uri("fsspec+memory:///hub")[0].handler.fs
    filesystem, path = fs.PyFileSystem(Hub(memory)), "/hub/in/rows.parquet"
    table = pa.table({"text": [f"row {number}" for number in range(1_000)]})
    with filesystem.open_output_stream(path) as file:
        parquet.write_table(table, file, row_group_size=100)
    try:
        assert [info.path for info in filesystem.get_file_info(fs.FileSelector("/hub", recursive=True)) if info.is_file] == [path]
        with filesystem.open_input_file(path) as file:
            assert parquet.ParquetFile(file).read_row_group(3).equals(table.slice(300, 100))
        assert filesystem.get_file_info("/hub/other").type == fs.FileType.NotFound
        assert filesystem.get_file_info(fs.FileSelector("/other", allow_not_found=True)) == []
        with pytest.raises(FileNotFoundError):
            filesystem.open_input_file("/hub/other")
    finally:
        memory.rm("/hub", recursive=True)


def test_the_errors_of_every_client_that_is_installed_are_known(monkeypatch: pytest.MonkeyPatch):
    """Whichever the library's version brings; those of one that is not there are not missed."""
    theirs, ours = ModuleType("theirs"), ModuleType("ours")
    theirs.TransportError, ours.TransportError = type("Theirs", (Exception,), {}), type("Ours", (Exception,), {})
    for client, module in zip(CLIENTS, (theirs, ours), strict=True):
        monkeypatch.setitem(sys.modules, client, module)
    assert errors_of_clients("TransportError") == (theirs.TransportError, ours.TransportError)
    for client in CLIENTS:
        monkeypatch.setitem(sys.modules, client, None)  # as one that is not installed
        assert errors_of_clients("TransportError") == ((ours.TransportError,) if client == CLIENTS[0] else ())


@pytest.mark.parametrize(("error", "raised"), [(httpx2.TransportError("reset"), ConnectionError), (httpx2.HTTPError("too many redirects"), OSError)])
@pytest.mark.parametrize("verb", ["read", "seek", "write", "flush", "close"])
def test_a_connection_that_breaks_within_a_file_is_an_outage(verb: str, error: Exception, raised: type[Exception]):
    """Other errors of the client are faults, and errors of files as well."""

    def fail(*_: object) -> None:
        raise error

    file = HubFile(SimpleNamespace(**{verb: fail}))
    with pytest.raises(OSError, match=str(error)) as caught:
        getattr(file, verb)(*({"write": (b"x",), "seek": (0,)}.get(verb, ())))
    assert type(caught.value) is raised
