"""How a job gets on: a bar for people, a log line now and then for everybody else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.offline.scoring import Progress
from schemas.job import JobPlan

log = structlog.get_logger(__name__)

LINE_S = 10.0

Report = Callable[[Progress], None]


@contextmanager
def shown(plan: JobPlan, committed_rows: int) -> Iterator[Report]:
    """Gives what is to be told of the counts. `committed_rows` were done before."""
    if sys.stderr.isatty():
        with open_bar() as bar:
            task = bar.add_task("", total=plan.rows, completed=committed_rows, errors=0, rate="")
            yield lambda p: bar.update(task, completed=committed_rows + p.rows, errors=p.errors, rate=rates(p))
    else:
        yield _lines(plan.rows, committed_rows)


def rates(progress: Progress) -> str:
    """Rows and tokens per second, in words."""
    elapsed_s = max(time.monotonic() - progress.started_s, 1e-6)
    tokens = progress.prompt_tokens + progress.output_tokens
    return f"{progress.fresh_rows / elapsed_s:,.1f} rows/s, {tokens / elapsed_s:,.0f} tokens/s"


def open_bar() -> Bar:
    """A bar of rows on stderr, which goes when it is done."""
    return Bar(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows  {task.fields[rate]}  errors {task.fields[errors]}  left"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, highlight=False),
        transient=True,
    )


def _lines(rows: int, committed_rows: int) -> Report:
    told_s = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s < LINE_S:
            return
        told_s = now_s
        elapsed_s = now_s - progress.started_s
        rows_per_s = progress.fresh_rows / elapsed_s
        left = rows - committed_rows - progress.rows
        log.info(
            "job_progress",
            rows=committed_rows + progress.rows,
            of=rows,
            errors=progress.errors,
            rows_per_s=round(rows_per_s, 1),
            tokens_per_s=round((progress.prompt_tokens + progress.output_tokens) / elapsed_s),
            left_s=round(left / rows_per_s) if rows_per_s else None,
        )

    return report
