"""A contender's process: loads what it is told to, says so, and then runs one load per line of its standard input.

Answers are lines of JSON on what was standard output; all that libraries print goes to standard error.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from pipeline.openmp import VARIABLES


def main() -> None:
    """Serves its parent until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    name, setup = sys.argv[1], json.loads(sys.argv[2])
    from benchmarks.engine import contenders  # noqa: PLC0415 -- after the streams are in place

    if name != contenders.OURS:
        for variable in VARIABLES:
            os.environ.pop(variable, None)  # set for our own worker's sake; the peers run as they come

    from benchmarks.engine.contenders.base import Setup  # noqa: PLC0415
    from benchmarks.engine.loads import Ask  # noqa: PLC0415

    try:
        contender = contenders.make(name, Setup(**setup))
        say(ready=True)
        for line in sys.stdin:
            load = json.loads(line)
            asks = [Ask(prompt_ids=tuple(ask["prompt_ids"]), max_tokens=ask["max_tokens"]) for ask in load["asks"]]
            measured = contender.run(asks, load["concurrent"])
            say(measured=measured.to_json(), peak_rss_bytes=peak_rss_bytes())
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is this contender's result
        traceback.print_exc()
        say(error=f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:300]}")
    answers.close()
    sys.stderr.flush()
    os._exit(0)  # some leave threads behind that would not let the process end


def peak_rss_bytes() -> int:
    """The most memory that this process has held; `getrusage` would say its parent's, where that is more, since it outlives `exec`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
