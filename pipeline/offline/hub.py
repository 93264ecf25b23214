"""The Hugging Face hub as a file system of pyarrow's, with the errors that jobs know.

Its library raises those of its HTTP client, which are no `OSError`, and takes an answer of the kind "try again" for "there is no such file".
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from pyarrow import fs

from pipeline.offline.reaching import first_line

PASSING = frozenset({408, 429})
"""Answers that another try may not get; so are all from 500 on."""

CLIENTS = ("httpx2", "httpx")
"""HTTP clients of the library's versions, which call their errors alike."""


def errors_of_clients(kind: str) -> tuple[type[Exception], ...]:
    """The errors of that name, of every client that is installed."""
    found: list[type[Exception]] = []
    for client in CLIENTS:
        with suppress(ModuleNotFoundError):
            found.append(getattr(importlib.import_module(client), kind))
    return tuple(found)


TRANSPORT_ERRORS = errors_of_clients("TransportError")
FAULTS: tuple[type[Exception], ...] = (*errors_of_clients("HTTPError"), ValueError, NotImplementedError)


def open_hub(uri: str) -> tuple[Any, str]:
    """The file system and the path of an address; nobody is asked yet."""
    filesystem, path = fs.FileSystem.from_uri(uri)
    return fs.PyFileSystem(Hub(filesystem.handler.fs)), path


class Hub(fs.FSSpecHandler):  # type: ignore[misc]  # the library ships no types
    """As pyarrow's own, but for the errors."""

    def get_file_info(self, paths: list[str]) -> list[Any]:
        """Looks for files."""
        with _told():
            return list(super().get_file_info(paths))

    def get_file_info_selector(self, selector: Any) -> list[Any]:
        """Lists a folder."""
        with _told():
            with suppress(FileNotFoundError):
                self.fs.info(selector.base_dir)  # what follows takes every error for "no folder"
            return list(super().get_file_info_selector(selector))

    def open_input_file(self, path: str) -> Any:
        """Opens a file for reading."""
        with _told():
            self.fs.info(path)
            return pa.PythonFile(HubFile(self.fs.open(path, mode="rb")), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> Any:  # noqa: ARG002 -- the library's signature
        """Opens one for writing."""
        with _told():
            return pa.PythonFile(HubFile(self.fs.open(path, mode="wb")), mode="w")


class HubFile:
    """A file there, as far as pyarrow uses one."""

    def __init__(self, file: Any):
        self._file = file

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return bool(self._file.closed)

    def read(self, size: int = -1) -> bytes:
        """Reads on."""
        with _told():
            return bytes(self._file.read(size))

    def write(self, data: bytes) -> int:
        """Writes on."""
        with _told():
            return int(self._file.write(data))

    def seek(self, place: int, whence: int = 0) -> int:
        """Goes to a place."""
        with _told():
            return int(self._file.seek(place, whence))

    def tell(self) -> int:
        """The place."""
        return int(self._file.tell())

    def flush(self) -> None:
        """Sends what there is."""
        with _told():
            self._file.flush()

    def close(self) -> None:
        """Ends it; what was written is there then."""
        with _told():
            self._file.close()


@contextmanager
def _told() -> Iterator[None]:
    """Says by the kind of an error whether it may pass.

    Raises:
        ConnectionError: It may.
        OSError: It will not.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:  # which is a connection's error by its class
        raise OSError(first_line(error)) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise (ConnectionError if status in PASSING or status >= 500 else OSError)(first_line(error)) from None
    except TRANSPORT_ERRORS as error:
        raise ConnectionError(first_line(error)) from None
    except FAULTS as error:
        raise OSError(first_line(error)) from None
