"""`penstock cancel`."""

from typing import Annotated

import typer

from pipeline.cli.console import say, write_json
from pipeline.cli.options import Given, Json, with_settings
from pipeline.client import Client


@with_settings
def cancel(
    given: Given,
    custom_id: Annotated[list[str], typer.Argument(metavar="ID...", help="custom_id of a request.")],
    as_json: Json = False,
) -> None:
    """Ask the workers to end requests, queued or running. A request that has ended already, or never was, is left alone."""
    with Client(given.settings()) as client:
        for name in custom_id:
            client.cancel(name)
            if as_json:
                write_json({"type": "cancel", "custom_id": name})
            else:
                say(f"Asked for the end of {name}.")
