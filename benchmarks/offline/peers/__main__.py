"""One peer's process: `python -m benchmarks.offline.peers NAME MODEL THREADS DTYPE`, in an interpreter that has its libraries.

Says once that it is ready; then a line of JSON for each turn, answered with what it took. What libraries print goes to standard error.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.openmp import VARIABLES


def main() -> None:
    """Serves its parent until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for variable in VARIABLES:
        os.environ.pop(variable, None)  # set for ours; the peers run as they come

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    name, model, threads, dtype = sys.argv[1:]
    work = import_module(f"{__spec__.parent}.{name}").start(Path(model), int(threads), dtype)
    say(cpu_s=time.process_time())
    for line in sys.stdin:
        turn = json.loads(line)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        work(Path(turn["source"]), Path(turn["out"]), turn["batch"])
        say(wall_s=time.perf_counter() - wall_s, cpu_s=time.process_time() - cpu_s)


if __name__ == "__main__":
    main()
