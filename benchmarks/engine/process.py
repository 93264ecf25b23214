"""A contender's process, seen from the benchmark."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.child import Child, Failed
from benchmarks.engine.contenders.base import Setup
from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Measured
from benchmarks.engine.peers import vllm_python
from pipeline.openmp import VARIABLES

START_S = 900.0
"""vLLM compiles for minutes the first time."""
RUN_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one load gave, and the most memory that the process has held so far."""

    measured: Measured
    peak_rss_bytes: int


class Process(Child):
    """One contender, loaded and warm; a context manager.

    Raises:
        Failed: It did not start.
    """

    def __init__(self, name: str, setup: Setup, log: Path):
        command = [str(python_of(name)), "-m", "benchmarks.engine.child", name, json.dumps(asdict(setup))]
        super().__init__(command, _environment(), log, within_s=START_S)

    def run(self, asks: Sequence[Ask], concurrent: int) -> Ran:
        """Runs one load.

        Raises:
            Failed: The engine broke, or took longer than an hour.
        """
        answer = self.ask({"asks": [asdict(ask) for ask in asks], "concurrent": concurrent}, within_s=RUN_S)
        return Ran(measured=Measured.from_json(answer["measured"]), peak_rss_bytes=answer["peak_rss_bytes"])


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
    return {name: value for name, value in os.environ.items() if name not in {*VARIABLES, "VIRTUAL_ENV"}}
