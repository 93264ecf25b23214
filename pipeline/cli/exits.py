"""Exit codes: what a script can tell from the end of the command (sysexits.h, where it has a word for it)."""

from pipeline.transport.base import BrokerUnavailable, TransportError
from schemas.errors import Overloaded, PenstockError, RateLimited

EXIT_ERROR = 1
EXIT_SOME_FAILED = 3
EXIT_UNAVAILABLE = 69
EXIT_TRY_AGAIN = 75
EXIT_CONFIGURATION = 78
EXIT_TIMEOUT = 124


def exit_code(error: Exception) -> int:
    """The exit code of a command that an error ended."""
    from pipeline.settings import BadConfiguration  # noqa: PLC0415 -- slow to import, and only a failing command needs it

    match error:
        case BadConfiguration():
            return EXIT_CONFIGURATION
        case BrokerUnavailable():
            return EXIT_UNAVAILABLE
        case TimeoutError():
            return EXIT_TIMEOUT
        case Overloaded() | RateLimited():
            return EXIT_TRY_AGAIN
    return EXIT_ERROR


def is_expected(error: Exception) -> bool:
    """Tells whether the error's message says everything; of any other the traceback is wanted."""
    return isinstance(error, (PenstockError, TransportError, OSError)) or exit_code(error) != EXIT_ERROR
