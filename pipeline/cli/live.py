"""Shows an answer while it is written."""

from pipeline.cli.console import is_terminal, say, write, write_line
from pipeline.client import Handle, Result


def show(handle: Handle, timeout_s: float | None) -> Result:
    """Writes a streamed answer to stdout and returns it.

    A person's terminal gets every piece at once, and hears on stderr when the answer starts over. Anything else gets the
    text when it is final, since what was written cannot be taken back.

    Args:
        handle: A request that is streamed.
        timeout_s: The longest silence to wait through.
    """
    if is_terminal():
        _follow(handle, timeout_s)
        return handle.result()
    result = handle.result(timeout_s)
    write_line(result.text)
    return result


def _follow(handle: Handle, timeout_s: float | None) -> None:
    for delta in handle.deltas(timeout_s):
        if delta.restarted:
            write_line()
            say("(a worker was lost; the answer starts over)")
        elif delta.index == 0:
            write(delta.text)
    write_line()
