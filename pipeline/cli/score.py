"""`penstock score`: a job over a dataset, in this process or on a running worker, without a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer

from pipeline.cli.console import complain, say, write_json, write_line
from pipeline.cli.dry_run import CostPerHour, DryRun, show_estimate
from pipeline.cli.exits import EXIT_CONFIGURATION, EXIT_ERROR, EXIT_SOME_FAILED, EXIT_TRY_AGAIN
from pipeline.cli.job_options import JobOptions, pick_model, with_job
from pipeline.cli.job_progress import shown
from pipeline.cli.options import Given, Json, with_settings
from pipeline.cli.signals import interruptible
from pipeline.engine.load_error import LoadError
from pipeline.logs import configure_logging
from pipeline.offline.addresses import extended, store_of
from pipeline.offline.engine_scorer import EngineScorer
from pipeline.offline.estimating import Estimate, estimate
from pipeline.offline.finalising import finalise
from pipeline.offline.fingerprint import describe_model
from pipeline.offline.flags import lower_pause, read_flag, watch
from pipeline.offline.flight.address import WorkerAddress, WorkerAway
from pipeline.offline.flight.client import FlightScorer
from pipeline.offline.flight.session import WorkerDied, meet
from pipeline.offline.jobs.registry import open_registry
from pipeline.offline.jobs.rooms import passing
from pipeline.offline.plan import Job, plan, preview
from pipeline.offline.prompts import Asking
from pipeline.offline.refusals import JobBusy, JobRefused, StoreAway
from pipeline.offline.scorer import Scorer
from pipeline.offline.scoring import Halt, Scoring
from pipeline.offline.turnstile import Turnstile
from pipeline.openmp import wait_briefly
from pipeline.settings import LogSettings, Settings
from schemas.job import JobSpec, ModelSpec
from schemas.outcome import JobState, Manifest


@with_settings
@with_job
def score(
    given: Given,
    options: JobOptions,
    dry_run: DryRun = False,
    cost_per_hour: CostPerHour = None,
    worker: Annotated[
        str | None, typer.Option(metavar="URI", help="Compute on a live worker: auto, unix:///PATH or grpc+tls://HOST:PORT; it also names the model.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a model over a dataset: generate, chat, embed, classify, rerank, or score how likely texts are.

    Results lie in OUT/data-*, rows that failed in OUT/errors-*, both in the order of the input; in a store they are complete when
    OUT/manifest.json is there. The same command again goes on where the job stood. Exits with 3 when some rows failed.
    """
    settings = given.settings(options.flags())
    _configure(settings)
    try:
        address = None if worker is None else WorkerAddress.of(worker, settings)
        spec = options.spec(_model(settings, address))
        if dry_run:
            folder = open_registry(settings).home_of(options.out).folder_of(options.out)
            job = preview(spec, options.inputs, folder.path, settings.offline.shard_rows)
            show_estimate(_estimate(job, settings, address, cost_per_hour), as_json=as_json)
            return
        manifest = _finish(_plan(spec, options, settings), settings, address)
    except JobRefused as error:
        complain(str(error))
        raise typer.Exit(EXIT_ERROR) from None
    except JobBusy as error:
        complain(f"{error}; another process works on them: repeat the command when it has ended")
        raise typer.Exit(EXIT_TRY_AGAIN) from None
    except (WorkerAway, WorkerDied, StoreAway) as error:
        complain(f"{error}; the same command goes on from here")
        raise typer.Exit(EXIT_TRY_AGAIN) from None
    except LoadError as error:
        complain(str(error))
        raise typer.Exit(EXIT_CONFIGURATION) from None
    _show(manifest, options, as_json=as_json)
    if manifest.state is JobState.CANCELLED:
        raise typer.Exit(EXIT_ERROR)
    if manifest.error_rows:
        raise typer.Exit(EXIT_SOME_FAILED)


def _model(settings: Settings, address: WorkerAddress | None) -> ModelSpec:
    """The model of the settings, by its files here; without any, the one that the worker serves, or that ships."""
    if address is None or settings.models:
        return describe_model(pick_model(settings), settings.dtype)
    served = meet(address).models
    if len(served) > 1:
        raise JobRefused(f"the worker serves {', '.join(model.spec.name for model in served)}: give --model NAME=PATH_OR_HUB_ID")
    return served[0].spec


def _plan(spec: JobSpec, options: JobOptions, settings: Settings) -> Job:
    """The job at its place. That of results in a store is where jobs are listed, so that `penstock jobs submit` means the same one."""
    registry, store = open_registry(settings), store_of(options.out)
    with nullcontext(registry.home_of(options.out)) if store is None else registry.making_home(options.out) as home:
        return plan(spec, options.inputs, home.folder_of(options.out).path, settings.offline.shard_rows, store=store)


def _finish(job: Job, settings: Settings, address: WorkerAddress | None) -> Manifest:
    """Does what is left of a job, and ends it."""
    if read_flag(job.folder) is Halt.CANCELLED:
        raise JobRefused(f"the job in {job.output} was cancelled: name another folder")
    lower_pause(job.folder)
    while any(job.commits_missing()) and read_flag(job.folder) is not Halt.CANCELLED:
        try:
            with passing(settings, None if address is None else address.uri) as turnstile, _scorer(job, settings, address) as scorer:
                _score(job, scorer, turnstile)
        except WorkerDied as error:
            say(f"{error}; rows that may have been why run apart from now on.")
    is_cancelled = read_flag(job.folder) is Halt.CANCELLED and any(job.commits_missing())
    return finalise(job, JobState.CANCELLED if is_cancelled else JobState.COMPLETED)


def _score(job: Job, scorer: Scorer, turnstile: Turnstile | None) -> None:
    committed_rows = job.plan.rows - sum(shard.rows for shard in job.commits_missing())
    flag = watch(job.folder)
    with interruptible() as came, shown(job.plan, committed_rows) as report:
        scoring = Scoring(job, scorer, halt=lambda: flag() if came.number is None else Halt.STOPPED, on_progress=report, turnstile=turnstile)
        halted = scoring.run(tuple(job.commits_missing()))
    if halted is Halt.STOPPED and came.number is not None:
        say("Stopped; the same command goes on from here.")
        raise typer.Exit(128 + came.number)
    if halted is Halt.PAUSED:
        say("Paused; the same command goes on from here.")
        raise typer.Exit(EXIT_TRY_AGAIN)


@contextmanager
def _scorer(job: Job, settings: Settings, address: WorkerAddress | None) -> Iterator[Scorer]:
    """What computes: the model in this process, or a worker's."""
    if address is None:
        with _engine_scorer(job, settings) as scorer:
            yield scorer
        return
    with FlightScorer(address, job.spec) as remote:
        remote.check(Asking(job.spec))
        yield remote


@contextmanager
def _engine_scorer(job: Job, settings: Settings) -> Iterator[EngineScorer]:
    """Loads the model, and lets it go in the end."""
    model = pick_model(settings)
    wait_briefly()
    from pipeline.engine.selection import engine_settings, open_engine  # noqa: PLC0415 -- seconds

    part = engine_settings([model], settings)[model.name]
    engine = open_engine(model, settings, part)
    try:
        scorer = EngineScorer(engine, job.spec.task, max_sequences=part.max_sequences, attempts=part.attempts)
        scorer.check(Asking(job.spec))
        engine.warm_up()
        yield scorer
    finally:
        engine.close()


def _estimate(job: Job, settings: Settings, address: WorkerAddress | None, cost_per_hour: float | None) -> Estimate:
    with passing(settings, None if address is None else address.uri) as turnstile, _scorer(job, settings, address) as scorer:
        return estimate(job, scorer, cost_per_hour=cost_per_hour, turnstile=turnstile)


def _configure(settings: Settings) -> None:
    """Logging; on a terminal the bar tells what a log's lines would, and they would tear it."""
    is_quiet = sys.stderr.isatty() and "log" not in settings.model_fields_set
    configure_logging(LogSettings(level="WARNING") if is_quiet else settings.log)


def _show(manifest: Manifest, options: JobOptions, *, as_json: bool) -> None:
    if as_json:
        write_json(manifest.model_dump(mode="json", exclude={"inputs", "spec"}) | {"output": options.out})
        return
    data, errors = extended(options.out, "/data-*"), extended(options.out, "/errors-*")
    line = f"{manifest.data_rows:,} rows in {data}, {manifest.error_rows:,} in {errors}"
    if manifest.error_codes:
        line += " (" + ", ".join(f"{code} {count:,}" for code, count in sorted(manifest.error_codes.items())) + ")"
    write_line(f"{line}; {manifest.rows_per_s:,.1f} rows/s, {manifest.tokens_per_s:,.0f} tokens/s.")
    if manifest.state is JobState.CANCELLED:
        say(f"The job was cancelled; of {manifest.planned_rows:,} rows these are done.")
