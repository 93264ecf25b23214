"""How a result is shown: a table for people, JSON for machines."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).with_name("out")
WIDTH = 150
"""Characters of a table that goes into a file or a log."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender's run of the workload: output tokens, wall time, and each request's time to first token in seconds."""

    tokens: int
    wall_s: float
    ttft_s: tuple[float, ...]

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of wall time."""
        return self.tokens / self.wall_s

    def ttft_ms(self, share: float) -> float:
        """A quantile of the times to first token, in milliseconds."""
        ranked = sorted(self.ttft_s)
        return 1_000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def summarise(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians over the rounds."""
    return {
        "tokens_per_s": median(s.tokens_per_s for s in samples),
        "ttft_p50_ms": median(s.ttft_ms(0.5) for s in samples),
        "ttft_p95_ms": median(s.ttft_ms(0.95) for s in samples),
        "wall_s": median(s.wall_s for s in samples),
    }


def machine() -> dict[str, Any]:
    """What ran it, in words that do not name a host."""
    return {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def publish(name: str, title: str, rows: Sequence[Mapping[str, Any]], more: Mapping[str, Any]) -> None:
    """Prints the table and writes `benchmarks/out/NAME.json`."""
    show(title, rows)
    write(name, {**more, "rows": list(rows)})


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a table; what is not known is a dash."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in {"what", "reason"} else "right")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def write(name: str, result: Mapping[str, Any]) -> None:
    """Writes `benchmarks/out/NAME.json`, with what ran it, and prints it."""
    text = {"benchmark": name, "machine": machine(), **result}
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(text, indent=1), encoding="utf-8")
    print(json.dumps(text))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if text.startswith("model name"):
            flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in Path("/proc/cpuinfo").read_text(encoding="utf-8")]
            return f"{text.partition(':')[2].strip()} ({', '.join(flags)})"
    return platform.machine()
