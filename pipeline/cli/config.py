"""`penstock config show`."""

import json
from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import is_terminal, tables, write_json, write_line
from pipeline.cli.effective import Effective, effective
from pipeline.cli.options import Given, Json, with_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def config() -> None:
    """Show the settings in effect, and where each comes from."""


@app.command()
@with_settings
def show(given: Given, as_json: Json = False) -> None:
    """Show every setting: its value, what decided it, and what it means. Secrets are masked."""
    entries = list(effective(given.settings(), given.flags(), given.config))
    if as_json:
        for entry in entries:
            write_json(asdict(entry))
    elif is_terminal():
        tables().print(_table(entries))
    else:
        for entry in entries:
            write_line(f"{entry.path} = {json.dumps(entry.value)}  # {entry.source}")


def _table(entries: list[Effective]) -> Table:
    table = Table("setting", "value", "from", "meaning", box=None, pad_edge=False)
    for entry in entries:
        style = "" if entry.source == "default" else "bold"
        table.add_row(Text(entry.path, style), Text(json.dumps(entry.value), style), Text(entry.source), Text(entry.about, "dim"))
    return table
