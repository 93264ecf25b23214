"""`--dry-run`: what a job would take."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.console import write_json, write_line
from pipeline.offline.estimating import Estimate

DryRun = Annotated[bool, typer.Option("--dry-run", help="Compute a sample and say what the job would take.")]
CostPerHour = Annotated[float | None, typer.Option(min=0.0, help="With --dry-run: price of an hour of the machine that computes.")]


def show_estimate(found: Estimate, *, as_json: bool) -> None:
    """Writes it."""
    if as_json:
        write_json(asdict(found))
        return
    write_line(f"{found.rows:,} rows in {found.shards:,} shards; about {found.prompt_tokens:,} prompt and {found.output_tokens:,} output tokens.")
    cost = "" if found.cost is None else f", {found.cost:,.2f} by your price"
    write_line(f"About {_span(found.seconds)}{cost}; about {found.error_rows:,} rows would fail. By a sample of {found.sampled_rows} rows.")


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
