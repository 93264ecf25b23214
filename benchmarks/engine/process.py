"""A contender's process, seen from the benchmark."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.engine.contenders.base import Setup
from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Measured
from benchmarks.engine.peers import ROOT, vllm_python
from pipeline.openmp import VARIABLES

START_S = 900.0
"""vLLM compiles for minutes the first time."""
RUN_S = 3_600.0
CLOSE_S = 30.0


class Failed(Exception):
    """The contender cannot run here; the message is its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one load gave, and the most memory that the process has held so far."""

    measured: Measured
    peak_rss_bytes: int


class Process:
    """One contender, loaded and warm; a context manager.

    Raises:
        Failed: It did not start.
    """

    def __init__(self, name: str, setup: Setup, log: Path):
        self._log = log
        started_s = time.perf_counter()
        command = [str(python_of(name)), "-m", "benchmarks.engine.child", name, json.dumps(asdict(setup))]
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=_environment())
        try:
            self._answer(START_S)
        except BaseException:
            self._end(wait_s=0.0)
            raise
        self.start_s = time.perf_counter() - started_s

    def run(self, asks: Sequence[Ask], concurrent: int) -> Ran:
        """Runs one load.

        Raises:
            Failed: The engine broke, or took longer than an hour.
        """
        if self._process.stdin is None:
            raise Failed("it has no standard input")
        self._process.stdin.write(json.dumps({"asks": [asdict(ask) for ask in asks], "concurrent": concurrent}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer(RUN_S)
        return Ran(measured=Measured.from_json(answer["measured"]), peak_rss_bytes=answer["peak_rss_bytes"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(wait_s=CLOSE_S if kind is None else 0.0)

    def _answer(self, within_s: float) -> dict[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type] -- a pipe, as asked for
            if not selector.select(within_s):
                raise Failed(f"no answer within {within_s:.0f} s")
        line = self._process.stdout.readline() if self._process.stdout else b""
        if not line:
            raise Failed(f"its process ended with {self._process.wait(CLOSE_S)}: {_last_line(self._log)}")
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


def python_of(name: str) -> Path:
    """The interpreter that a contender needs.

    Raises:
        Failed: Its environment has not been made.
    """
    if name != "vllm":
        return Path(sys.executable)
    if not vllm_python().exists():
        raise Failed("not set up: run python -m benchmarks.engine --prepare")
    return vllm_python()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {*VARIABLES, "VIRTUAL_ENV"}} | {"HF_HUB_OFFLINE": "1"}


def _last_line(log: Path) -> str:
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"])[-1][:300]
