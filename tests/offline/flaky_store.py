"""A store that is away when it is told to be, in the middle of a file too. A folder stands for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

from pipeline.offline import inputs, store

AWAY = "When asked for 'x' in bucket 'b': AWS Error SERVICE_UNAVAILABLE during HeadObject operation: No response body."
DENIED = "When asked for 'x' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject operation: No response body."


class FlakyStore:
    """A file system as far as jobs use one."""

    def __init__(self) -> None:
        self._real = fs.LocalFileSystem()
        self._fails: Callable[[str, str], bool] = lambda _verb, _path: False
        self._reason = ""

    @contextmanager
    def failing(self, verb: str, part: str = "", reason: str = AWAY) -> Iterator[None]:
        """One of info, list, open, read, put fails meanwhile, for paths that hold `part`."""
        self._fails, self._reason = (lambda asked, path: asked == verb and part in path), reason
        yield
        self._fails = lambda _verb, _path: False

    def check(self, verb: str, path: str) -> None:
        """Fails if it is to."""
        if self._fails(verb, path):
            raise OSError(self._reason)

    def get_file_info(self, what: Any) -> Any:
        """Looks for a file, or for those in a folder."""
        is_list = isinstance(what, fs.FileSelector)
        self.check("list" if is_list else "info", what.base_dir if is_list else what)
        return self._real.get_file_info(what)

    def open_input_file(self, path: str) -> Any:
        """Opens a file for reading."""
        self.check("open", path)
        return pa.PythonFile(FlakyFile(self, path), mode="r")

    def open_output_stream(self, path: str, compression: None) -> Any:
        """Opens one for writing."""
        self.check("put", path)
        Path(path).parent.mkdir(exist_ok=True)
        return self._real.open_output_stream(path, compression=compression)

    def delete_file(self, path: str) -> None:
        """Removes one."""
        self._real.delete_file(path)


class FlakyFile:
    """A file there."""

    def __init__(self, store: FlakyStore, path: str):
        self._store, self._path = store, path
        self._file = Path(path).open("rb")  # noqa: SIM115 -- closed by who reads it
        self.seek, self.tell, self.close = self._file.seek, self._file.tell, self._file.close

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._file.closed

    def read(self, size: int = -1) -> bytes:
        """Reads on."""
        self._store.check("read", self._path)
        return self._file.read(size)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FlakyStore:
    """Every address is in it, of inputs and of results."""
    flaky = FlakyStore()
    for module in (inputs, store):
        monkeypatch.setattr(module, "open_filesystem", lambda uri: (flaky, uri.partition("://")[2]))
    return flaky
