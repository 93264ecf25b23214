"""`penstock doctor`."""

from collections.abc import Iterator
from dataclasses import asdict

import typer
from rich.text import Text

from pipeline.cli import log_checks, machine_checks
from pipeline.cli.console import say, tables, write_json
from pipeline.cli.exits import EXIT_ERROR, EXIT_UNAVAILABLE
from pipeline.cli.finding import Finding, Status
from pipeline.cli.neutral import neutral
from pipeline.cli.options import Given, Json, with_settings
from pipeline.settings import Settings
from pipeline.transport.opening import open_transport

STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}


@with_settings
def doctor(given: Given, as_json: Json = False) -> None:
    """Check software, machine, models, log, topics and clocks, and say what to do. Exits with 69 when the log is away."""
    settings = given.settings()
    found: list[Finding] = []
    for finding in _examine(settings):
        found.append(finding)
        if as_json:
            write_json(asdict(finding))
        else:
            _show(finding)
    failed = {finding.check for finding in found if finding.status is Status.FAIL}
    if "log" in failed:
        raise typer.Exit(EXIT_UNAVAILABLE)
    if failed:
        raise typer.Exit(EXIT_ERROR)
    warnings = sum(finding.status is Status.WARN for finding in found)
    say(f"Nothing stands in the way; warnings: {warnings}." if warnings else "All is well.")


def _examine(settings: Settings) -> Iterator[Finding]:
    yield from machine_checks.software()
    yield from machine_checks.machine(settings)
    yield from machine_checks.models(settings)
    yield from machine_checks.workers(settings)
    log = open_transport(settings)
    try:
        contact = log_checks.contact(log)
        yield contact
        if contact.status is Status.OK:
            yield from log_checks.contract(log, settings)
            yield from log_checks.group(log, settings)
            yield from log_checks.clock(log, settings)
    finally:
        log.close()


def _show(finding: Finding) -> None:
    line = Text.assemble(
        (finding.status.value.ljust(4), STYLES[finding.status]), "  ", (finding.check.ljust(14), "bold"), "  ", neutral(finding.detail)
    )
    tables().print(line, soft_wrap=True)
    if finding.advice is not None:
        tables().print(Text(f"      {'':14}  -> {neutral(finding.advice)}", STYLES[finding.status]), soft_wrap=True)
