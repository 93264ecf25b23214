"""`penstock asyncapi`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import say, write_line
from pipeline.cli.options import Given, Json, with_settings
from schemas.asyncapi import document


@with_settings
def asyncapi(
    given: Given,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; stdout unless given.", dir_okay=False)] = None,
    as_json: Json = False,  # noqa: ARG001 -- the document is JSON in any case
) -> None:
    """Write the wire contract as an AsyncAPI 3 document, for these topics."""
    text = json.dumps(document(given.settings().topics), indent=2)
    if output is None:
        write_line(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        say(f"Wrote {output}.")
