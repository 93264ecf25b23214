"""How jobs stand, as tables, and as a bar or lines that follow one of them."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from pipeline.cli.console import say, tables, write_json, write_line
from pipeline.cli.exits import EXIT_ERROR, EXIT_SOME_FAILED
from pipeline.cli.job_progress import LINE_S, open_bar
from pipeline.cli.neutral import neutral
from pipeline.offline.jobs.tally import Phase, Standing, Tally

LOOK_S = 0.5
MEMORY_S = 30.0
"""Rates are those of so many seconds."""
SHOWN = {
    "job": "job",
    "phase": "state",
    "output": "output",
    "task": "task",
    "model": "model",
    "planned_rows": "rows planned",
    "rows": "rows done",
    "errors": "errors",
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "shards": "shards",
    "done_shards": "shards done",
    "failure": "failure",
    "waiting": "waiting for",
    "untold": "untold because",
}


@dataclass(slots=True)
class Rates:
    """Rows and tokens per second, lately."""

    seen: deque[tuple[float, int, int]] = field(default_factory=deque)
    rows_per_s: float = 0.0
    tokens_per_s: float = 0.0

    def add(self, standing: Standing, now_s: float) -> None:
        """Looks at how the job stands now."""
        self.seen.append((now_s, standing.counts.rows, standing.counts.tokens))
        while now_s - self.seen[0][0] > MEMORY_S:
            self.seen.popleft()
        since_s, rows, tokens = self.seen[0]
        if now_s > since_s:  # counts fall when a shard begins anew
            self.rows_per_s = max(standing.counts.rows - rows, 0) / (now_s - since_s)
            self.tokens_per_s = max(standing.counts.tokens - tokens, 0) / (now_s - since_s)

    def left_s(self, standing: Standing) -> float | None:
        """How long the rest takes at that rate; None while nobody knows."""
        if standing.planned_rows is None or not self.rows_per_s:
            return None
        return (standing.planned_rows - standing.counts.rows) / self.rows_per_s

    def to_json(self, standing: Standing) -> Mapping[str, Any]:
        """As a line of `watch` has them."""
        left_s = self.left_s(standing)
        rates = {"rows_per_s": round(self.rows_per_s, 1), "tokens_per_s": round(self.tokens_per_s, 1)}
        return rates | {"left_s": None if left_s is None else round(left_s, 1)}


def show_list(standings: Iterable[Standing], *, as_json: bool) -> None:
    """One line per job, the latest first."""
    found = sorted(standings, key=lambda standing: -standing.submitted_ms)
    if as_json:
        for standing in found:
            write_json(standing.to_json())
        return
    table = Table("job", "state", "rows", "of", "errors", "task", "output", box=None)
    for standing in found:
        counts, of = standing.counts, "" if standing.planned_rows is None else f"{standing.planned_rows:,}"
        table.add_row(
            standing.job, standing.phase, f"{counts.rows:,}", of, f"{counts.errors:,}", standing.task, neutral(standing.output).replace("[", "\\[")
        )
    tables().print(table)


def show(standing: Standing, *, as_json: bool) -> None:
    """Everything about one job."""
    if as_json:
        write_json(standing.to_json())
        return
    known = standing.to_json()
    for name, title in SHOWN.items():
        if known[name] is not None:
            value = known[name]
            write_line(f"{title:14} {value:,}" if isinstance(value, int) else f"{title:14} {neutral(str(value))}")


def follow(tally: Tally, *, as_json: bool, sleep: Callable[[float], None] = time.sleep) -> Standing:
    """Shows how a job gets on until it has ended, and returns how it stands then."""
    if sys.stderr.isatty() and not as_json:
        return _follow_with_bar(tally, sleep)
    rates, told_s, last = Rates(), 0.0, None
    while True:
        standing, now_s = tally.read(), time.monotonic()
        rates.add(standing, now_s)
        if as_json and standing != last:
            write_json({**standing.to_json(), **rates.to_json(standing)})
        elif not as_json and (now_s - told_s >= LINE_S or standing.phase.is_last):
            told_s = now_s
            say(_line(standing, rates))
        last = standing
        if standing.phase.is_last:
            return standing
        sleep(LOOK_S)


def exit_code_of(standing: Standing) -> int:
    """What a script is told of a job that has ended."""
    if standing.phase is not Phase.COMPLETED:
        return EXIT_ERROR
    return EXIT_SOME_FAILED if standing.counts.errors else 0


def _follow_with_bar(tally: Tally, sleep: Callable[[float], None]) -> Standing:
    rates = Rates()
    with open_bar() as shown:
        task = shown.add_task("", total=None, errors=0, rate="")
        while True:
            standing = tally.read()
            rates.add(standing, time.monotonic())
            rate = f"{rates.rows_per_s:,.1f} rows/s, {rates.tokens_per_s:,.0f} tokens/s, {standing.phase}"
            shown.update(task, total=standing.planned_rows, completed=standing.counts.rows, errors=standing.counts.errors, rate=rate)
            if standing.phase.is_last:
                return standing
            sleep(LOOK_S)


def _line(standing: Standing, rates: Rates) -> str:
    counts = standing.counts
    of = "" if standing.planned_rows is None else f" of {standing.planned_rows:,}"
    left_s = rates.left_s(standing)
    left = "" if left_s is None or standing.phase.is_last else f", {left_s:,.0f} s left"
    waiting = "" if standing.waiting is None else f"; waiting for {neutral(standing.waiting)}"
    speed = f"{rates.rows_per_s:,.1f} rows/s, {rates.tokens_per_s:,.0f} tokens/s"
    return f"{standing.job} {standing.phase}: {counts.rows:,}{of} rows, {counts.errors:,} errors, {speed}{left}{waiting}"
