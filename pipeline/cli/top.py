"""`penstock top`."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import complain, is_terminal, tables, write_json
from pipeline.cli.exits import EXIT_ERROR
from pipeline.cli.neutral import neutral
from pipeline.cli.options import Given, Json, with_settings
from pipeline.cli.worker_card import WorkerCard, find_workers

LANES = ("priority", "default", "flex")
BAR_CELLS = 20
SHOWN_BATCHES = 8

Page = dict[str, Any]


@with_settings
def top(
    given: Given,
    once: Annotated[bool, typer.Option("--once", help="Show the moment and leave.")] = False,
    every: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds between two looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Watch the batches of this machine's workers: what is in them, why they close, how fast they are."""
    settings = given.settings()
    found = find_workers(settings.data_dir)
    if not found:
        complain(f"no worker runs here with {settings.data_dir}: start one with penstock up or penstock worker")
        raise typer.Exit(EXIT_ERROR)
    looks = _looks(lambda: find_workers(settings.data_dir), every, once=once or not (is_terminal() or as_json))
    if as_json:
        for pages in looks:
            for page in pages:
                write_json(page)
    elif is_terminal() and not once:
        _watch(looks)
    else:
        for pages in looks:
            tables().print(_screen(pages))


def _looks(find: Callable[[], list[WorkerCard]], every_s: float, *, once: bool) -> Iterator[list[Page]]:
    while True:
        yield [_page(worker) for worker in find()]
        if once:
            return
        time.sleep(every_s)


def _page(worker: WorkerCard) -> Page:
    return {"pid": worker.pid, "url": worker.url, **(worker.batches() or {"models": [], "problem": worker.not_ready() or "it shows no batches"})}


def _watch(looks: Iterator[list[Page]]) -> None:
    with suppress(StopIteration), Live(console=tables(), auto_refresh=False, screen=False) as live:
        for pages in looks:
            live.update(_screen(pages), refresh=True)


def _screen(pages: list[Page]) -> Group:
    parts: list[Text | Table] = []
    for page in pages:
        problem = page.get("problem")
        parts.append(Text.assemble((f"worker {page['pid']}", "bold"), f"  {page['url']}", "" if problem is None else f"  {neutral(problem)}"))
        for model in page["models"]:
            parts += [*_headlines(model), _lanes(model), _batches(model), Text()]
    return Group(*(parts or [Text("no worker runs here any more")]))


def _headlines(model: Page) -> Iterator[Text]:
    recent = model["recent"]
    queue = f"running {model['running']}  waiting {model['waiting']} ({model['waiting_tokens']} tokens)"
    yield Text.assemble((neutral(model["model"]), "bold cyan"), f"  {queue}  preempted {model['preemptions']}  deferred {model['deferrals']}")
    speed = f"{recent['decode_tokens_per_s']:.0f} tokens/s written, {recent['prefill_tokens_per_s']:.0f} read"
    steps = f"{recent['steps'] / recent['seconds']:.1f} steps/s of {_number(recent['mean_sequences'])} sequences"
    yield Text(f"  {speed}  {steps}  step {_number(recent['measured_ms'])} ms, predicted {_number(recent['predicted_ms'])} ms")
    if model["kv_blocks_total"]:
        yield Text.assemble(
            "  KV ", _bar(model["kv_blocks_used"] / model["kv_blocks_total"]), f" {model['kv_blocks_used']}/{model['kv_blocks_total']}"
        )
    closed = sorted(recent["closed"].items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"{reason} {count * 100 // recent['steps']} %" for reason, count in closed)
    yield Text(f"  closed for: {shares or 'no step of late'}")


def _lanes(model: Page) -> Table:
    """The newest batch, lane by lane."""
    table = Table("  lane", "decodes", "prefill chunks", "prefill tokens", "waiting", box=None, pad_edge=False)
    newest = model["batches"][-1]["lanes"] if model["batches"] else {}
    for lane in LANES:
        share = newest.get(lane, {})
        table.add_row(f"  {lane}", *(str(share.get(name, 0)) for name in ("decodes", "prefill_chunks", "prefill_tokens", "waiting")))
    return table


def _batches(model: Page) -> Table:
    table = Table("  step", "ago ms", "sequences", "tokens", "budget", "ms", "predicted", "closed for", box=None, pad_edge=False)
    for batch in reversed(model["batches"][-SHOWN_BATCHES:]):
        numbers = (f"  {batch['number']}", f"{batch['ago_ms']:.0f}", str(batch["sequences"]), str(batch["tokens"]), str(batch["token_budget"]))
        table.add_row(*numbers, _number(batch["measured_ms"]), _number(batch["predicted_ms"]), batch["closed"])
    return table


def _bar(share: float) -> Text:
    full = round(share * BAR_CELLS)
    return Text.assemble(("█" * full, "green" if share < 0.9 else "red"), ("░" * (BAR_CELLS - full), "dim"))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
