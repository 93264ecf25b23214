"""A peer's process, seen from the benchmark."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.offline.ran import Failed, Ran
from benchmarks.offline.score import LEFT_OUT

ROOT = Path(__file__).parents[2]
CLOSE_S = 30.0


class Peer:
    """One peer, loaded and warm; a context manager.

    Raises:
        Failed: It did not start.
    """

    def __init__(self, name: str, python: Path, model: Path, threads: int, log: Path):
        if not python.exists():
            raise Failed(f"{python} is not there: make it as --help says")
        self._log = log
        command = [str(python), "-m", "benchmarks.offline.peers", name, str(model), str(threads)]
        environment = {key: value for key, value in os.environ.items() if key not in {*LEFT_OUT, "PYTHONPATH"}}
        started_s = time.perf_counter()
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment | {"HF_HUB_OFFLINE": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
            )
        try:
            self.start_cpu_s = float(self._answer()["cpu_s"])
        except BaseException:
            self._end(wait_s=0.0)
            raise
        self.start_s = time.perf_counter() - started_s

    def ask(self, **turn: Any) -> dict[str, Any]:
        """Gives it a file and waits for what it took.

        Raises:
            Failed: It ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(turn).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(wait_s=CLOSE_S if kind is None else 0.0)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
            raise Failed(f"its process ended with {self._process.wait(CLOSE_S)}: {said[-1][:300]}")
        answer: dict[str, Any] = json.loads(line)
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


@dataclass(frozen=True, slots=True)
class Batched:
    """A peer at one batch size."""

    peer: Peer
    batch: int

    def run(self, source: Path, out: Path) -> Ran:
        """Does one file."""
        out = out.with_name(f"{out.name}.parquet")
        took = self.peer.ask(source=str(source), out=str(out), batch=self.batch)
        return Ran(
            scoring_s=took["wall_s"],
            scoring_cpu_s=took["cpu_s"],
            process_s=self.peer.start_s + took["wall_s"],
            process_cpu_s=self.peer.start_cpu_s + took["cpu_s"],
            results=(out,),
        )
