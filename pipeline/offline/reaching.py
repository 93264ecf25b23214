"""What it means when a file cannot be reached: an outage, which ends by itself, or a fault that somebody has to mend.

Files of this machine, shares among them, say so by a number; a path that is not there is a fault, though a share that is not mounted looks so:
to wait for a wrong name would be to wait for ever. Object stores say it in words, of which those of pyarrow's clients for S3,
Google Cloud Storage and Azure are known here. What is neither is taken for a fault: that is told at once, where an outage is waited out.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.offline.refusals import JobRefused, StoreAway

OUTAGES = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.EREMOTEIO),  # of shares and disks
        *(errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ESHUTDOWN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET),
        *(errno.ENOSPC, errno.EDQUOT),  # goes on when there is room
    }
)
WORDS = re.compile(
    r"AWS Error (?:NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT)"
    r"|\bHTTP status (?:408|429|5\d\d)\b"
    r"|google::cloud::Status\((?:UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|INTERNAL)\b"
    r"|\[(?:ServerBusy|InternalError|OperationTimedOut)\]"
    r"|(?:could ?n[o']t|fail(?:ed)? to|cannot) (?:connect|resolve|get a new connection)"
    r"|connection (?:refused|reset|timed out)",
    re.IGNORECASE,
)


def is_outage(error: Exception) -> bool:
    """Whether it may be better soon though nobody mends anything."""
    if not isinstance(error, OSError):
        return False
    if isinstance(error, StoreAway | ConnectionError | TimeoutError):
        return True
    return error.errno in OUTAGES if error.errno is not None else WORDS.search(str(error)) is not None


@contextmanager
def reaching(name: str) -> Iterator[None]:
    """Says in one line what came of reaching for what is named so.

    Raises:
        StoreAway: It is away.
        JobRefused: It cannot be reached, now or later.
    """
    try:
        yield
    except StoreAway:
        raise
    except OSError as error:
        raise (StoreAway if is_outage(error) else JobRefused)(f"{name}: cannot be reached: {first_line(error)}") from None


def misread(name: str, error: Exception, finding: str) -> JobRefused | StoreAway:
    """What a reader raises of an error in the middle of a file: that it is away, or what is wrong with it."""
    if is_outage(error):
        return StoreAway(f"{name}: {first_line(error)}")
    return JobRefused(f"{name}: {finding} ({first_line(error) if isinstance(error, OSError) else type(error).__name__})")  # others may quote rows


def first_line(error: Exception) -> str:
    """What a library says, without what it says below."""
    line, *_ = str(error).splitlines() or [type(error).__name__]
    return line
