"""`penstock jobs`: background jobs, from submission to results."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.console import complain, say, write_json, write_line
from pipeline.cli.dry_run import CostPerHour, DryRun, show_estimate
from pipeline.cli.exits import EXIT_ERROR, EXIT_TRY_AGAIN
from pipeline.cli.job_options import JobOptions, pick_model, read_out, with_job
from pipeline.cli.options import Given, Json, with_settings
from pipeline.cli.standings import exit_code_of, follow, show, show_list
from pipeline.engine.load_error import LoadError
from pipeline.logs import configure_logging
from pipeline.offline.addresses import absolute, extended, is_store, store_of
from pipeline.offline.apart import OwnFiles
from pipeline.offline.fingerprint import describe_model
from pipeline.offline.flight.session import WorkerDied
from pipeline.offline.inputs import expand
from pipeline.offline.jobs.driver import Driver
from pipeline.offline.jobs.registry import Home, Registry, Submission, job_id_of, open_registry
from pipeline.offline.jobs.tally import Phase, Standing, Tally
from pipeline.offline.jobs.webhook import WebhookRefused, parse_target
from pipeline.offline.plan import preview
from pipeline.offline.reaching import first_line, is_outage, reaching
from pipeline.offline.refusals import JobRefused, StoreAway
from pipeline.offline.scoring import Halt
from pipeline.offline.store import Store, destination_of
from pipeline.settings import Settings
from schemas.job import JobSpec
from schemas.outcome import OutputFile
from workers.jobs import confinement, estimate_on_worker, is_local

RETRY_DROPS = ("error_code", "error_message")
"""Columns of error files that the rows did not come with; those that the old job dropped are not there."""

NOT_SUBMITTED = "nothing was submitted"

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job to its end; the exit code is then that of `penstock score`.")]
Webhook = Annotated[str | None, typer.Option(help="https:// address that is told when the job has ended.")]

app = typer.Typer(no_args_is_help=True, help="Submit background jobs over datasets, follow them, and find their results.")


class Refusing:
    """Turns a refusal into a message and an exit code.

    Args:
        standing: What is so where something is only away.
    """

    def __init__(self, standing: str = "try again when it is back"):
        self._standing = standing

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Says why."""
        if isinstance(error, JobRefused | WebhookRefused | LoadError):
            complain(str(error))
            raise typer.Exit(EXIT_ERROR) from None
        if isinstance(error, WorkerDied) or (isinstance(error, OSError) and is_outage(error)):
            complain(f"{first_line(error)}; {self._standing}")
            raise typer.Exit(EXIT_TRY_AGAIN) from None


@app.command()
@with_settings
@with_job
def submit(
    given: Given,
    options: JobOptions,
    *,
    webhook: Webhook = None,
    wait: Wait = False,
    dry_run: DryRun = False,
    cost_per_hour: CostPerHour = None,
    as_json: Json = False,
) -> None:
    """Hand a job to the background: the same arguments as `penstock score`, and the same again means the same job.

    Those who run it see the same paths and stores as this command does. With --dry-run its worker computes a sample, and nothing is submitted.
    """
    settings = _settings(given, options)
    with Refusing(NOT_SUBMITTED):
        spec = options.spec(describe_model(pick_model(settings), settings.dtype))
        if dry_run:
            folder = open_registry(settings).home_of(options.out).folder_of(options.out).path
            job = preview(spec, options.inputs, folder, settings.offline.shard_rows, confinement(settings), store_of(options.out))
            show_estimate(estimate_on_worker(settings, job, cost_per_hour), as_json=as_json)
            return
        home = _submit(settings, spec, options.inputs, options.out, webhook)
    _tell(home, wait=wait, as_json=as_json)


@app.command(name="list")
@with_settings
def list_jobs(given: Given, *, as_json: Json = False) -> None:
    """List all jobs, the latest first. One whose folder cannot be reached is named on stderr, and the exit code says so."""
    found: list[Standing] = []
    unread: list[JobRefused | StoreAway] = []
    for home in open_registry(given.settings()).homes():
        try:
            found.append(Tally(home).read())
        except (JobRefused, StoreAway) as error:
            unread.append(error)
    show_list(found, as_json=as_json)
    for why in unread:
        complain(str(why))
    if unread:
        raise typer.Exit(EXIT_TRY_AGAIN if all(isinstance(why, StoreAway) for why in unread) else EXIT_ERROR)


@app.command(name="show")
@with_settings
def show_job(given: Given, job: JobId, *, as_json: Json = False) -> None:
    """Show how one job stands."""
    with Refusing():
        show(Tally(open_registry(given.settings()).find(job)).read(), as_json=as_json)


@app.command()
@with_settings
def watch(given: Given, job: JobId, *, as_json: Json = False) -> None:
    """Follow a job to its end: rows, tokens per second, time left, errors. Exits as `penstock score` does."""
    with Refusing():
        standing = follow(Tally(open_registry(given.settings()).find(job)), as_json=as_json)
    raise typer.Exit(exit_code_of(standing))


@app.command()
@with_settings
def pause(given: Given, jobs: JobIds) -> None:
    """Begin nothing new of these jobs; what runs comes to its end and is kept."""
    with Refusing():
        for home in _found(given.settings(), jobs):
            home.ask(Halt.PAUSED)


@app.command()
@with_settings
def resume(given: Given, jobs: JobIds) -> None:
    """Let paused jobs go on."""
    settings = _settings(given)
    with Refusing():
        for home in _found(settings, jobs):
            home.resume()
            _wake(settings, home)


@app.command()
@with_settings
def cancel(given: Given, jobs: JobIds) -> None:
    """End these jobs; the shards that are done are kept."""
    settings = _settings(given)
    with Refusing():
        for home in _found(settings, jobs):
            home.ask(Halt.CANCELLED)
            _wake(settings, home)


@app.command()
@with_settings
def retry_errors(
    given: Given,
    job: JobId,
    *,
    out: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT", help="Where its results go; beside the old ones if unset.", callback=read_out)
    ] = None,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Submit the rows that failed as a new job. The old one and its results stay as they are."""
    settings = _settings(given)
    with Refusing(NOT_SUBMITTED):
        home = open_registry(settings).find(job)
        if Tally(home).read().phase not in (Phase.COMPLETED, Phase.CANCELLED):
            raise JobRefused(f"{job} has not ended: wait for it, or cancel it")
        former = home.submission
        failed = _results(home, errors=True)
        if not failed:
            raise JobRefused(f"no row of {job} failed")
        spec = former.spec.model_copy(update={"drop_columns": RETRY_DROPS})
        again = _submit(settings, spec, failed, out or extended(former.out, "-retry"), former.webhook)
    _tell(again, wait=wait, as_json=as_json)


@app.command()
@with_settings
def results(
    given: Given,
    job: JobId,
    *,
    errors: Annotated[bool, typer.Option("--errors", help="The rows that failed instead.")] = False,
    as_json: Json = False,
) -> None:
    """List the files of a job's results in the order of its rows: what is committed so far, of a job that has not ended."""
    with Refusing():
        home = open_registry(given.settings()).find(job)
        for path in _results(home, errors=errors):
            if as_json:
                write_json({"path": path})
            else:
                write_line(path)


@app.command()
@with_settings
def reconcile(given: Given, job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job; all unless given.")] = None) -> None:
    """Wake workers again for what nobody is at. Workers do so by themselves every so often."""
    settings = _settings(given)
    driver = _driver(settings)
    if driver is None:
        say("The broker is memory://: `penstock up` looks after its jobs every second by itself.")
        return
    with Refusing():
        driver.reconcile(job)


def _settings(given: Given, options: JobOptions | None = None) -> Settings:
    settings = given.settings(None if options is None else options.flags())
    configure_logging(settings.log)
    return settings


def _submit(settings: Settings, spec: JobSpec, inputs: Sequence[str], out: str, webhook: str | None) -> Home:
    if webhook is not None:
        parse_target(webhook)
    inputs = [text if "://" in text else str(Path(text).absolute()) for text in inputs]
    out, registry, within = absolute(out), open_registry(settings), confinement(settings)
    if within is not None:
        within.check_output(out)
    folder = registry.home_of(out).folder_of(out)
    expand(inputs, within, OwnFiles(folder))  # who names what is not there hears of it now
    if is_store(out):
        Store(destination_of(folder, out, spec)).look()  # and who names what is another's
    home = registry.submit(
        Submission(
            id=job_id_of(out),
            inputs=tuple(inputs),
            out=out,
            spec=spec,
            shard_rows=settings.offline.shard_rows,
            webhook=webhook,
            submitted_ms=time.time_ns() // 1_000_000,
        )
    )
    _wake(settings, home)
    return home


def _tell(home: Home, *, wait: bool, as_json: bool) -> None:
    if not wait:
        if as_json:
            write_json(Tally(home).read().to_json())
        else:
            write_line(home.id)
        return
    say(f"Submitted as {home.id}.")
    with Refusing(f"the job goes on; follow it with `penstock jobs watch {home.id}` when it is back"):
        standing = follow(Tally(home), as_json=as_json)
    if not as_json:
        show(standing, as_json=False)
    raise typer.Exit(exit_code_of(standing))


def _results(home: Home, *, errors: bool) -> list[str]:
    """Files that are committed, in the order of rows."""
    folder = home.folder
    with reaching(home.submission.out):
        commits = [folder.commit(int(path.stem)) for path in sorted(folder.commits.glob("[0-9]*.json"))]
    files: list[OutputFile | None] = [commit.errors if errors else commit.data for commit in commits if commit is not None]
    return [extended(home.submission.out, f"/{file.name}") for file in files if file is not None]


def _found(settings: Settings, jobs: Sequence[str]) -> list[Home]:
    registry: Registry = open_registry(settings)
    return [registry.find(job) for job in jobs]


def _wake(settings: Settings, home: Home) -> None:
    driver = _driver(settings)
    if driver is not None:
        driver.advance(home.id)


def _driver(settings: Settings) -> Driver | None:
    """One that only sends messages; None where messages don't leave a process."""
    if is_local(settings.jobs):
        return None
    from workers.celery_app import client  # noqa: PLC0415 -- Celery takes a while to import

    return client(settings)
