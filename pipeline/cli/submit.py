"""`penstock submit`."""

import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from pipeline.cli.batch_file import BadLine, Line, read, succeeded
from pipeline.cli.console import complain, say, write_json, write_line
from pipeline.cli.exits import EXIT_SOME_FAILED
from pipeline.cli.live import show
from pipeline.cli.log import opened
from pipeline.cli.options import Given, Json, with_settings
from pipeline.cli.sending import ask, send
from pipeline.client import Client
from pipeline.settings import Settings
from schemas.request import Endpoint


@with_settings
def submit(
    given: Given,
    file: Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="JSONL file of Batch lines; - reads stdin.")] = None,
    prompt: Annotated[str | None, typer.Option(help="One user message instead of a file.")] = None,
    model: Annotated[str, typer.Option(help="The model that the prompt is for.")] = "tiny",
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer to the prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Answer the prompt in pieces.")] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers and write them.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait, with --wait.")] = None,
    as_json: Json = False,
) -> None:
    """Send requests: a JSONL batch file, or one prompt.

    Without --wait it writes the custom_id of every request that the log has taken. With --wait it writes the answers: a
    prompt's as text, a file's as lines of a Batch output file in the order of the file.
    """
    if (file is None) == (prompt is None):
        raise typer.BadParameter("name a FILE, or give a --prompt")
    settings = given.settings()
    if prompt is not None:
        body = _body(prompt, model, stream=stream, max_tokens=max_tokens, temperature=temperature)
        if wait:
            _answer_prompt(settings, body, timeout, as_json=as_json)
        else:
            _send(settings, [Line(custom_id=uuid.uuid4().hex, url=Endpoint.CHAT, body=body)], as_json=as_json)
    elif file is not None:
        with _lines(file) as lines:
            if wait:
                _answer_file(settings, lines, timeout)
            else:
                _send(settings, lines, as_json=as_json)


def _body(prompt: str, model: str, **parameters: Any) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **given}


@contextmanager
def _lines(file: str) -> Iterator[Iterator[Line | BadLine]]:
    if file == "-":
        yield read(sys.stdin)
    else:
        with open(file, encoding="utf-8") as opened_file:  # noqa: PTH123 -- a name from the command line, as it is
            yield read(opened_file)


def _send(settings: Settings, lines: Iterable[Line | BadLine], *, as_json: bool) -> None:
    failures = 0
    with opened(settings) as log, log.producer() as producer:
        for sent in send(producer, settings.topics.requests, lines):
            if sent.error is not None:
                failures += 1
                complain(f"{sent.name}: {sent.error}")
            elif as_json:
                write_json({"custom_id": sent.name, "origin": str(sent.origin)})
            else:
                write_line(sent.name)
    _leave_by(failures)


def _answer_file(settings: Settings, lines: Iterable[Line | BadLine], timeout_s: float | None) -> None:
    failures = 0
    with Client(settings) as client:
        for line in ask(client, lines, timeout_s):
            failures += line["error"] is not None
            write_json(line)
    _leave_by(failures)


def _answer_prompt(settings: Settings, body: dict[str, Any], timeout_s: float | None, *, as_json: bool) -> None:
    with Client(settings) as client, client.submit(body) as handle:
        if as_json:
            write_json(succeeded(handle.result(timeout_s)))
        elif body["stream"]:
            show(handle, timeout_s)
        else:
            write_line(handle.result(timeout_s).text)


def _leave_by(failures: int) -> None:
    if failures:
        say(f"{failures} requests failed.")
        raise typer.Exit(EXIT_SOME_FAILED)
