"""A peer's process, seen from the benchmark."""

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, Failed
from benchmarks.offline.ran import Ran
from benchmarks.offline.score import LEFT_OUT

START_S = 600.0
TURN_S = 3_600.0


class Peer(Child):
    """One peer, loaded and warm; a context manager. How it computes: with so many threads, in a dtype.

    Raises:
        Failed: It did not start.
    """

    def __init__(self, name: str, python: Path, model: Path, how: tuple[int, str], log: Path):
        if not python.exists():
            raise Failed(f"{python} is not there: make it as --help says")
        command = [str(python), "-m", "benchmarks.offline.peers", name, str(model), *map(str, how)]
        environment = {key: value for key, value in os.environ.items() if key not in {*LEFT_OUT, "PYTHONPATH"}}
        super().__init__(command, environment, log, within_s=START_S)
        self.start_cpu_s = float(self.ready["cpu_s"])


@dataclass(frozen=True, slots=True)
class Batched:
    """A peer at one batch size."""

    peer: Peer
    batch: int

    def run(self, source: Path, out: Path) -> Ran:
        """Does one file."""
        out = out.with_name(f"{out.name}.parquet")
        took = self.peer.ask({"source": str(source), "out": str(out), "batch": self.batch}, within_s=TURN_S)
        return Ran(
            scoring_s=took["wall_s"],
            scoring_cpu_s=took["cpu_s"],
            process_s=self.peer.start_s + took["wall_s"],
            process_cpu_s=self.peer.start_cpu_s + took["cpu_s"],
            results=(out,),
        )
