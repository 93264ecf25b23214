"""Compiles one kernel into the cache, as a process of its own beside a worker that serves meanwhile.

    python -m pipeline.engine.compiling MODULE ARGUMENTS

It ends with whoever holds the other end of its standard input.
"""

import json
import os
import sys
from threading import Thread

from pipeline.engine.forms import CannotKeep, Form

NICENESS = 10
"""On busy cores about a tenth of a worker's share, so that it does come to an end."""


def main() -> None:
    """Compiles what the command line says, at low priority."""
    os.nice(NICENESS)
    Thread(target=_end_with_parent, daemon=True).start()
    module, arguments = sys.argv[1:]
    definition = Form(module, tuple(json.loads(arguments))).define()
    definition.compiled()
    if not definition.is_kept():
        raise CannotKeep("the compiled kernel did not get to the disk")


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: this ends when nobody could any more
    os._exit(1)


if __name__ == "__main__":
    main()
