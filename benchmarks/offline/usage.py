"""Processor time of processes that run, from the outside."""

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def cpu_s(process: int) -> float:
    """Seconds that a process has had, with its children, those that ended and those that run; 0 where it is gone."""
    try:
        stat = (PROC / str(process) / "stat").read_text(encoding="utf-8")
        children = [child for task in (PROC / str(process) / "task").iterdir() for child in (task / "children").read_text(encoding="utf-8").split()]
    except OSError:
        return 0.0
    ticks = stat.rpartition(")")[2].split()[11:15]  # utime, stime, cutime, cstime; before them may be a name with spaces
    return sum(map(int, ticks)) / _TICKS_PER_S + sum(cpu_s(int(child)) for child in children)
