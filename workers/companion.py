"""`penstock celery` as a child of `penstock up`: background jobs on one machine with nothing installed."""

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from types import TracebackType
from typing import Self

import structlog

from pipeline.cli.options import Given

log = structlog.get_logger(__name__)

STOP_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class Companion:
    """Runs the child from entering to leaving, and starts it again where it dies. It never outlives this process."""

    def __init__(self, arguments: Sequence[str]):
        self._command = [sys.executable, "-m", "pipeline.cli", "celery", "--with-parent", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_leaving = threading.Event()
        self._guard = threading.Lock()
        # The kernel ends the child with the thread that started it, so that this one lives as long as it is wanted.
        self._thread = threading.Thread(target=self._run, name="companion", daemon=True)

    @classmethod
    def of(cls, given: Given) -> Self:
        """One with the same settings as a verb was given."""
        values = {field.name.replace("_", "-"): getattr(given, field.name) for field in fields(given)}
        pairs = [(f"--{name}", str(value.value if isinstance(value, Enum) else value)) for name, value in values.items() if value is not None]
        return cls([word for pair in pairs for word in pair])

    def __enter__(self) -> Self:
        """Starts the child."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Lets it write down where it stands, and ends it."""
        with self._guard:
            self._is_leaving.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join(STOP_S)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            with self._guard:
                if self._is_leaving.is_set():
                    return
                self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)  # noqa: S603 -- this program's own verb
            code = self._process.wait()
            if code == 0 or self._is_leaving.wait(pause_s):  # 0: it was asked to leave, by a signal that came to both
                return
            log.warning("companion_ended", code=code)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
