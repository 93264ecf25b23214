"""Where the command writes: data to stdout, messages to stderr. Nothing that others wrote controls a terminal."""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.cli.neutral import neutral

_RAW_CONTROLS = re.compile(r"[\x7f-\x9f]")
"""What JSON leaves unescaped of the controls."""


def is_terminal() -> bool:
    """Whether the data goes to a person's terminal."""
    return sys.stdout.isatty()


def write(text: str) -> None:
    """Writes text as it is, except that a terminal gets it neutralised."""
    sys.stdout.write(neutral(text) if is_terminal() else text)
    sys.stdout.flush()


def write_line(text: str = "") -> None:
    """Writes a line, likewise."""
    write(text + "\n")


def write_json(value: Mapping[str, Any]) -> None:
    """Writes one JSON object as a line. Control characters are escaped in any case, and remain the same text to a parser."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    sys.stdout.write(_RAW_CONTROLS.sub(lambda found: f"\\u{ord(found.group()):04x}", line) + "\n")
    sys.stdout.flush()


def tables() -> Console:
    """A console on stdout for tables; colours only on a terminal, and not where NO_COLOR is set. Elsewhere nothing is cut to a width."""
    return Console(highlight=False, width=None if is_terminal() else 1_000)


def say(text: str) -> None:
    """Tells the user something on stderr."""
    Console(stderr=True, highlight=False).print(Text(neutral(text)), soft_wrap=True)


def complain(text: str) -> None:
    """Tells the user on stderr what went wrong."""
    Console(stderr=True, highlight=False).print(Text.assemble(("error: ", "bold red"), neutral(text)), soft_wrap=True)
