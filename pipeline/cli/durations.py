"""Durations as people write them."""

import re
import time

import typer

_FORM = re.compile(r"(\d+)(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def since_ms(text: str | None) -> int | None:
    """The moment so long ago, in epoch milliseconds; `90s`, `10m`, `2h`, `1d`."""
    if text is None:
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text}: write a number and s, m, h or d, as in 10m")
    return int(time.time() * 1000) - int(found[1]) * _SECONDS[found[2]] * 1000
