"""The outermost frame of the command: signals in, exit codes out. The one place of the process that catches broadly."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from pipeline.cli.console import complain
from pipeline.cli.exits import exit_code, is_expected
from pipeline.cli.verbs import build


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 ok, 2 usage, 130 and 143 for signals, else as `pipeline.cli.exits` says."""
    signal.signal(signal.SIGTERM, _terminated)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        build(arguments)(arguments, prog_name="penstock")
    except BrokenPipeError:
        _leave_unheard()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:  # noqa: BLE001 -- see above
        if is_expected(error):
            complain(str(error) or type(error).__name__)
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(exit_code(error))
    sys.exit(0)


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _leave_unheard() -> NoReturn:
    """Ends as a program does whose output nobody reads any more, without a word when the interpreter flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
