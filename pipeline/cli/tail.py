"""`penstock tail`."""

import zlib
from typing import Annotated

import typer
from rich.text import Text

from pipeline.cli.console import is_terminal, tables, write_json, write_line
from pipeline.cli.durations import since_ms
from pipeline.cli.log import follow, opened, partitions_of
from pipeline.cli.neutral import neutral
from pipeline.cli.options import Given, Json, with_settings
from pipeline.cli.readings import as_json as told_as_json
from pipeline.cli.readings import as_text, is_last
from pipeline.client import Reader, Reading

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_yellow", "bright_blue")
LANE_WIDTH = 24
LOOK_BACK = "1h"


@with_settings
def tail(
    given: Given,
    custom_id: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Only these requests, until all have ended.")] = None,
    since: Annotated[str | None, typer.Option(help="Start so long ago (90s, 10m, 2h, 1d); 1h where IDs are given, else now.")] = None,
    as_json: Json = False,
) -> None:
    """Follow the answers that workers write: every event that counts, one lane per request."""
    settings = given.settings()
    open_names = set(custom_id or ())
    start_ms = since_ms(since or (LOOK_BACK if open_names else None))
    with opened(settings) as log:
        topics = (settings.topics.chunks, settings.topics.results)
        for reading in Reader().accepted(follow(log, partitions_of(log, topics), start_ms)):
            if custom_id and reading.custom_id not in open_names:
                continue
            if as_json:
                write_json(told_as_json(reading))
            else:
                _show(reading)
            if is_last(reading):
                open_names.discard(reading.custom_id or "")
                if custom_id and not open_names:
                    return


def _show(reading: Reading) -> None:
    name = (reading.custom_id or "?")[:LANE_WIDTH].ljust(LANE_WIDTH)
    if not is_terminal():
        write_line(f"{name} | {as_text(reading)}")
        return
    colour = COLOURS[zlib.crc32(name.encode()) % len(COLOURS)]
    lane = Text.assemble((neutral(name), colour), (" | ", "dim"), neutral(as_text(reading)))
    tables().print(lane, soft_wrap=True)
