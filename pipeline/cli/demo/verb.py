"""The verb `penstock demo`."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.console import complain, is_terminal, say, write_json, write_line
from pipeline.cli.demo.dataset import Scored, score
from pipeline.cli.demo.figures import Figures, read_batches, read_running, summarise
from pipeline.cli.demo.lanes import Lane, Run
from pipeline.cli.demo.process import DemoFailed, DemoWorker
from pipeline.cli.demo.prompts import pick
from pipeline.cli.demo.views import Lines, panels, ranking, summary
from pipeline.cli.exits import EXIT_ERROR
from pipeline.cli.options import Json
from pipeline.cli.worker_card import WorkerCard
from pipeline.client import AsyncClient
from pipeline.settings import load

SILENCE_S = 60.0
WATCH_S = 0.25


def demo(
    prompts: Annotated[int, typer.Option(min=1, max=64, help="How many prompts stream side by side.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, max=512, help="Longest answer.")] = 160,
    as_json: Json = False,
) -> None:
    """Start a worker with the small model that ships, watch prompts stream side by side, and score a small dataset.

    It needs no broker and no network: the log is a file in a temporary folder, which goes when the demo ends. The dataset's rows stay.
    """
    lanes = [Lane(number=number, prompt=prompt) for number, prompt in enumerate(pick(prompts), 1)]
    try:
        with DemoWorker() as worker:
            say("Starting a worker with the model that ships.")
            card = worker.wait_ready()
            _perform(Run(lanes=lanes, max_tokens=max_tokens), worker, card, is_shown=not as_json)
            figures = summarise(lanes, read_batches(card.metrics()))
            say("Scoring a small dataset on the same worker, with penstock score.")
            scored = score(worker)
            worker.stop()
    except DemoFailed as error:
        complain(str(error))
        raise typer.Exit(EXIT_ERROR) from None
    _report(figures, scored, as_json=as_json)


def _perform(run: Run, worker: DemoWorker, card: WorkerCard, *, is_shown: bool) -> None:
    """Plays the run where it can be seen best."""
    if is_shown and is_terminal():
        with panels(run) as view:
            asyncio.run(_play(run, worker, card, view.set_running))
        return
    if is_shown:
        for lane in run.lanes:
            write_line(f"[{lane.number}] > {lane.prompt}")
        run.on_change = Lines().change
    asyncio.run(_play(run, worker, card, lambda _: None))


async def _play(run: Run, worker: DemoWorker, card: WorkerCard, on_running: Callable[[int], None]) -> None:
    """Follows the streams, and ends them when the worker does.

    Raises:
        DemoFailed: The worker ended, or a stream did not go well.
    """
    settings = load({"transport": "embedded", "data_dir": worker.data_dir})
    try:
        async with AsyncClient(settings) as client, asyncio.TaskGroup() as group:
            watch = group.create_task(_watch(worker, card, on_running))
            await run.play(client, SILENCE_S)
            watch.cancel()
            on_running(0)
    except ExceptionGroup as failures:
        raise DemoFailed(f"{_first(failures)}\n{worker.log_tail()}") from failures


async def _watch(worker: DemoWorker, card: WorkerCard, on_running: Callable[[int], None]) -> None:
    while True:
        worker.check()
        on_running(read_running(await asyncio.to_thread(card.metrics)))
        await asyncio.sleep(WATCH_S)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _report(figures: Figures, scored: Scored, *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(figures) | {"scored_rows": scored.rows, "scored_rows_in": str(scored.folder)})
    else:
        write_line(summary(figures))
        write_line(ranking(scored))
