"""The command, run in this process or in one of its own, on a log with a scripted worker."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.settings import Settings
from tests.client.conftest import Work, closes_at_once, settings, transport, work

__all__ = ["Command", "Done", "Terminal", "Work", "closes_at_once", "command", "log", "settings", "terminal", "transport", "work"]

PENSTOCK = Path(sys.executable).with_name("penstock")
WAIT_S = 60.0


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own gets in the way."""
    for name in [name for name in os.environ if name.startswith("PENSTOCK_") and name != "PENSTOCK_TEST_KAFKA"]:
        monkeypatch.delenv(name)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs `penstock` with these arguments in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(code=int(left.value.code or 0), out=out, err=err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def log(settings: Settings) -> list[object]:
    """The options that name the test's log."""
    return ["--transport", "embedded", "--data-dir", settings.data_dir]


class Terminal:
    """`penstock` in a process of its own, with a terminal for its output and, if wanted, its input."""

    def __init__(self, *arguments: object, with_input: bool = False, environment: dict[str, str] | None = None):
        self._here, there = pty.openpty()
        self._seen = b""
        self.process = subprocess.Popen(
            [str(PENSTOCK), *(str(argument) for argument in arguments)],
            stdin=there if with_input else subprocess.DEVNULL,
            stdout=there,
            stderr=there,
            env=os.environ | {"TERM": "xterm-256color"} | (environment or {}),
        )
        os.close(there)

    def type(self, text: str) -> None:
        """Presses keys."""
        os.write(self._here, text.encode())

    def interrupt(self) -> None:
        """Does what Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def read_until(self, text: str, meanwhile: Callable[[], object] = lambda: None) -> str:
        """Reads until the text appears, doing something else meanwhile, and returns all that was shown so far."""
        until_s = time.monotonic() + WAIT_S
        while text.encode() not in self._seen:
            assert time.monotonic() < until_s, self._seen
            assert self._read() or self.process.poll() is None, self._seen
            meanwhile()
        return self._seen.decode()

    def finish(self) -> tuple[int, str]:
        """Waits for the end; returns the exit code and all that was shown."""
        until_s = time.monotonic() + WAIT_S
        while self._read() or self.process.poll() is None:
            assert time.monotonic() < until_s, self._seen
        return self.process.wait(), self._seen.decode()

    def close(self) -> None:
        """Leaves nothing behind."""
        self.process.kill()
        self.process.wait()
        os.close(self._here)

    def _read(self) -> bool:
        """Takes what is there, waiting a moment for it; tells whether there was anything."""
        more = b""
        if select.select([self._here], [], [], 0.1)[0]:
            with suppress(OSError):  # the other side is closed
                more = os.read(self._here, 4_096)
        self._seen += more
        return bool(more)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts `penstock` in a terminal."""
    started: list[Terminal] = []

    def start(*arguments: object, **options: Any) -> Terminal:
        started.append(Terminal(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()
