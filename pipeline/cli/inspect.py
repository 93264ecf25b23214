"""`penstock inspect`."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from pipeline.cli.console import complain, tables, write_json
from pipeline.cli.dossier import Dossier, gather
from pipeline.cli.durations import since_ms
from pipeline.cli.exits import EXIT_ERROR
from pipeline.cli.log import opened
from pipeline.cli.neutral import neutral
from pipeline.cli.options import Given, Json, with_settings
from pipeline.cli.readings import as_json as told_as_json
from pipeline.cli.readings import as_text, kind
from pipeline.client import Reading
from schemas.codec import Refusal
from schemas.request import Request


@with_settings
def inspect(
    given: Given,
    custom_id: Annotated[str, typer.Argument(metavar="ID", help="custom_id of the request.")],
    since: Annotated[str, typer.Option(help="How far back to look (90s, 10m, 2h, 1d).")] = "1d",
    as_json: Json = False,
) -> None:
    """Show everything that the log holds about one request: its record, attempts, events, cancels and dead letters."""
    settings = given.settings()
    start_ms = since_ms(since)
    with opened(settings) as log:
        found = gather(log, settings, custom_id, start_ms or 0)
    if as_json:
        write_json(_told(found))
    else:
        for line in _lines(found):
            tables().print(line, soft_wrap=True)
    if found.is_empty:
        complain(f"the log knows nothing of {custom_id} since {_clock(start_ms or 0)}")
        raise typer.Exit(EXIT_ERROR)


def _told(found: Dossier) -> dict[str, Any]:
    return {
        "custom_id": found.custom_id,
        "requests": [_told_request(request, written_ms) for request, written_ms in found.requests],
        "events": [told_as_json(reading) for reading in found.replies],
        "cancels_ms": found.cancels_ms,
        "dead_letters": [asdict(letter) for letter in found.dead_letters],
    }


def _told_request(request: Request | Refusal, written_ms: int) -> dict[str, Any]:
    told = {"origin": str(request.origin), "timestamp_ms": written_ms, "reply": asdict(request.reply)}
    if isinstance(request, Refusal):
        return {**told, "refused": {"code": request.error.code, "message": request.error.message}}
    return {**told, "url": request.endpoint, "model": request.model, "stream": request.stream, "deadline_ms": request.deadline_ms}


def _lines(found: Dossier) -> Iterator[Text]:
    for request, written_ms in found.requests:
        yield _line(written_ms, "request", f"{request.origin}  {_about(request)}", "bold")
    first_ms = found.requests[0][1] if found.requests else None
    for reading in found.replies:
        yield _event(reading, first_ms)
    for cancelled_ms in found.cancels_ms:
        yield _line(cancelled_ms, "cancel", "asked for", "yellow")
    for letter in found.dead_letters:
        yield _line(letter.failed_at_ms, "dead letter", f"{letter.error_code}: {letter.error_message} (attempts: {letter.attempts})", "red")


def _event(reading: Reading, first_ms: int | None) -> Text:
    event = reading.event
    attempt, seq = getattr(event, "attempt", None), getattr(event, "seq", None)
    place = f"{reading.partition.topic}/{reading.partition.number}/{reading.offset}"
    numbers = "" if attempt is None else f"  attempt {attempt}" if seq is None else f"  attempt {attempt} seq {seq}"
    after = "" if first_ms is None else f"  +{reading.timestamp_ms - first_ms} ms"
    # A begin takes effect without counting: it accepts nothing.
    ignored = "" if reading.accepted or kind(reading) == "begin" else "  (does not count)"
    return _line(reading.timestamp_ms, kind(reading), f"{place}{numbers}{after}{ignored}  {as_text(reading)}", "dim" if ignored else "")


def _about(request: Request | Refusal) -> str:
    if isinstance(request, Refusal):
        return f"refused: {request.error.code}: {request.error.message}"
    deadline = "" if request.deadline_ms is None else f", deadline {_clock(request.deadline_ms)}"
    return f"{request.endpoint}, model {request.model}, {'streamed' if request.stream else 'in one piece'}{deadline}"


def _line(at_ms: int, what: str, text: str, style: str) -> Text:
    return Text.assemble((_clock(at_ms), "dim"), "  ", (what.ljust(11), style or "cyan"), "  ", (neutral(text), style))


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
