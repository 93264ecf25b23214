"""A contender's process, seen from the benchmark: JSON lines in and out, and what it complains of in a log."""

import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
CLOSE_S = 30.0
STOP_S = 60.0
EXIT_TERMINATED = 143


class Failed(Exception):
    """The contender cannot run here, or has not done the work; the message is its reason."""


def exit_when_terminated() -> None:
    """Has SIGTERM end this process as an exception does, so that those that it started end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))


def end(process: "subprocess.Popen[bytes]") -> None:
    """Asks a process to end, and then makes it."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Child:
    """One contender, loaded and warm when its first answer is there; a context manager.

    Attributes:
        ready: That answer.
        start_s: How long it took.

    Raises:
        Failed: It did not start.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, within_s: float):
        self._log = log
        started_s = time.perf_counter()
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**environment, "HF_HUB_OFFLINE": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        try:
            self.ready = self._answer(within_s)
        except BaseException:
            self._end(wait_s=0.0)
            raise
        self.start_s = time.perf_counter() - started_s

    def ask(self, question: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
        """Sends a line and waits for one.

        Raises:
            Failed: It says so, it ended, or it takes longer.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(within_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(wait_s=CLOSE_S if kind is None else 0.0)

    def _answer(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(within_s):
                raise Failed(f"no answer within {within_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
            raise Failed(f"its process ended with {self._process.wait(CLOSE_S)}: {said[-1][:300]}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def _end(self, *, wait_s: float) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
