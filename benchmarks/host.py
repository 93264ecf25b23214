"""What the machine below this machine does meanwhile."""

from pathlib import Path

STAT = Path("/proc/stat")
STEAL = 8
"""The column of the time that a virtual processor wanted to run and was not let (proc_stat(5)): the first one is the line's name."""


def stolen_ticks() -> int:
    """Counts the ticks, mostly of 10 ms, that the host has taken from all processors since the start; 0 where the system does not tell."""
    return int(STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[STEAL]) if STAT.exists() else 0
