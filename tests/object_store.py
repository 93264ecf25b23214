"""A real S3 server on this machine, which may be told to hold requests back or to refuse them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pyarrow import fs

BUCKET = "data"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class ObjectStore:
    """The server, with one bucket."""

    def __init__(self, serve: Callable[..., Iterable[bytes]]):
        self._serve = serve
        self.address = ""
        self.held = threading.Event()
        self._holds: Callable[[str, str], bool] = lambda _method, _path: False
        self._denies: Callable[[str, str], bool] = lambda _method, _path: False
        self._released = threading.Event()

    @property
    def query(self) -> str:
        """What makes an address one of this server."""
        return f"?endpoint_override={self.address}&scheme=http&region=us-east-1"

    @property
    def filesystem(self) -> Any:
        """A way in for tests."""
        return fs.S3FileSystem(endpoint_override=self.address, scheme="http", region="us-east-1", allow_bucket_creation=True)

    def names(self, folder: str) -> list[str]:
        """What lies there."""
        return sorted(info.base_name for info in self.filesystem.get_file_info(fs.FileSelector(f"{BUCKET}/{folder}", allow_not_found=True)))

    def hold(self, wanted: Callable[[str, str], bool]) -> None:
        """Leaves requests of such a method and path without an answer, until `release`; `held` tells of the first one."""
        self._released.clear()
        self.held.clear()
        self._holds = wanted

    def release(self) -> None:
        """Lets requests through again."""
        self._holds = lambda _method, _path: False
        self._released.set()

    def deny(self, wanted: Callable[[str, str], bool]) -> None:
        """Refuses requests of such a method and path."""
        self._denies = wanted

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serves a request."""
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self._holds(*asked):
            self.held.set()
            self._released.wait()
        if self._denies(*asked):
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
            return [DENIED]
        return self._serve(environ, start_response)


@contextmanager
def serving(port: int = 0) -> Iterator[ObjectStore]:
    """Runs a server, at a port that is free unless one is given."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            """Says nothing."""

    store = ObjectStore(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", port, store, threaded=True, request_handler=Quiet)
    store.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        urlopen(Request(f"http://{store.address}/moto-api/reset", method="POST")).close()  # objects are the process's, not the server's
        store.filesystem.create_dir(BUCKET)
        yield store
    finally:
        store.release()
        server.shutdown()
        thread.join()
        server.server_close()


def give_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the keys for a server in the environment."""
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A server, and the keys for it."""
    give_keys(monkeypatch)
    with serving() as store:
        yield store
