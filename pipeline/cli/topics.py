"""`penstock topics plan` and `penstock topics apply`."""

from collections.abc import Callable, Sequence

import typer

from pipeline.cli.console import say, write_json, write_line
from pipeline.cli.log import opened
from pipeline.cli.options import Given, Json, with_settings
from pipeline.transport import topics
from pipeline.transport.base import TopicSpec, Transport
from pipeline.transport.topics import Plan

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Compare the log's topics with the contract, or create them."""


@app.command()
@with_settings
def plan(given: Given, as_json: Json = False) -> None:
    """Show which topics are missing, and which differ from the contract."""
    _show(given, topics.plan, "missing", as_json=as_json)


@app.command()
@with_settings
def apply(given: Given, as_json: Json = False) -> None:
    """Create the topics that are missing. Those that exist are left as they are; applying it again changes nothing."""
    _show(given, topics.apply, "created", as_json=as_json)


def _show(given: Given, compare: Callable[[Transport, Sequence[TopicSpec]], Plan], verb: str, *, as_json: bool) -> None:
    settings = given.settings()
    with opened(settings) as log:
        found = compare(log, topics.contract(settings.kafka))
    for spec in found.missing:
        if as_json:
            write_json({"topic": spec.name, "state": verb, "partitions": spec.partitions, "config": dict(spec.config)})
        else:
            write_line(f"{spec.name}: {verb} (partitions: {spec.partitions})")
    for difference in found.differing:
        if as_json:
            change = {"setting": difference.setting, "actual": difference.actual, "wanted": difference.wanted}
            write_json({"topic": difference.topic, "state": "differs", **change})
        else:
            write_line(str(difference))
    if found.differing:
        say("Penstock alters no topic that exists: change these with your broker's tools.")
    if found.is_fulfilled:
        say("All topics are as they should be.")
