"""`penstock chat`."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer

from pipeline.cli.console import complain, say, write_json, write_line
from pipeline.cli.live import show
from pipeline.cli.options import Given, Json, with_settings
from pipeline.client import Client
from schemas.errors import PenstockError

HELP = "A message per line; /reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C ends an answer."


@with_settings
def chat(
    given: Given,
    model: Annotated[str, typer.Option(help="The model to talk to.")] = "tiny",
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Longest silence to wait through, in seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Talk to a model, turn by turn. Reads one message per line from stdin."""
    parameters = {"max_tokens": max_tokens, "temperature": temperature}
    fixed = {"model": model, "stream": True, **{name: value for name, value in parameters.items() if value is not None}}
    opening = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    with Client(given.settings()) as client:
        for text in _turns():
            if text == "/reset":
                messages = list(opening)
                continue
            messages.append({"role": "user", "content": text})
            answer = _answer(client, {**fixed, "messages": messages}, timeout, as_json=as_json)
            if answer is None:
                messages.pop()
            else:
                messages.append({"role": "assistant", "content": answer})


def _turns() -> Iterator[str]:
    """What the user says. A prompt is shown to people only."""
    is_person = sys.stdin.isatty()
    if is_person:
        with suppress(ImportError):  # line editing, where Python has it
            import readline  # noqa: F401, PLC0415
        say(HELP)
    while True:
        try:
            line = input("> ") if is_person and sys.stdout.isatty() else _read_line()
        except EOFError:
            return
        if line.strip() == "/exit":
            return
        if line.strip():
            yield line.strip()


def _read_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _answer(client: Client, body: dict[str, Any], timeout_s: float | None, *, as_json: bool) -> str | None:
    """Shows the answer to one turn. A person may end it, or see it fail, and go on; for a script that is the end."""
    try:
        with client.submit(body) as handle:
            if not as_json:
                return show(handle, timeout_s).text
            result = handle.result(timeout_s)
            write_json({"role": "assistant", "content": result.text, "finish_reason": result.finish_reason, "usage": result.usage})
            return result.text
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        write_line()
        say("(ended)")
    except PenstockError as error:
        if not sys.stdin.isatty():
            raise
        complain(error.message)
    return None
