"""How the demo is shown: panels that fill on a terminal, lines that begin with their request elsewhere."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import tables, write_line
from pipeline.cli.demo.dataset import Scored
from pipeline.cli.demo.figures import Figures
from pipeline.cli.demo.lanes import Lane, Run
from pipeline.cli.neutral import neutral

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
MOST_PANEL_LINES = 6
FRAME_LINES = 2
LINE_WIDTH = 88
REFRESH_PER_S = 12


@contextmanager
def panels(run: Run) -> Iterator["Panels"]:
    """Shows the run in panels while it lasts."""
    view = Panels(run)
    with Live(get_renderable=view.render, console=tables(), refresh_per_second=REFRESH_PER_S, transient=False):
        yield view


class Panels:
    """All lanes at once, two in a row, above a line of figures."""

    def __init__(self, run: Run):
        self._run = run
        self._running = 0

    def set_running(self, requests: int) -> None:
        """Notes how many requests the worker runs at this moment."""
        self._running = requests

    def render(self) -> Group:
        """Draws the moment."""
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        terminal = tables().size
        rows = (len(self._run.lanes) + 1) // 2
        height = min(max((terminal.height - 2) // rows - FRAME_LINES, 1), MOST_PANEL_LINES)
        cells = [_panel(lane, width=max(terminal.width // 2 - 6, 8), height=height) for lane in self._run.lanes]
        for left in range(0, len(cells), 2):
            grid.add_row(*cells[left : left + 2])
        return Group(grid, self._headline())

    def _headline(self) -> Text:
        lanes = self._run.lanes
        tokens = sum(lane.tokens for lane in lanes)
        ended_s = max((lane.ended_s or 0.0 for lane in lanes), default=0.0)
        elapsed_s = ended_s if all(lane.ended_s is not None for lane in lanes) else self._run.elapsed_s
        figures = f"  in the batch: {self._running}   output: {tokens} tokens, {tokens / max(elapsed_s, 0.001):.0f} tokens/s"
        return Text(figures, style="bold", no_wrap=True, overflow="ellipsis")


def _panel(lane: Lane, *, width: int, height: int) -> Panel:
    lines = [part for line in neutral(lane.text).splitlines() for part in textwrap.wrap(line, width)][-height:]
    body = Text("\n".join(lines + [""] * (height - len(lines))))
    ttft_s = lane.time_to_first_token_s
    figures = "waiting" if ttft_s is None else f"first token {ttft_s * 1000:.0f} ms, {lane.tokens} tokens"
    colour = COLOURS[lane.number % len(COLOURS)]
    title = Text(textwrap.shorten(lane.prompt, width, placeholder="…"))
    return Panel(body, title=title, subtitle=Text(figures), border_style=colour if lane.ended_s is None else "dim", title_align="left")


class Lines:
    """Writes each lane's text in lines that begin with the lane's number, as soon as a line is full."""

    def __init__(self) -> None:
        self._written: dict[int, int] = {}

    def change(self, lane: Lane) -> None:
        """Writes what is new and complete."""
        written = self._written.get(lane.number, 0)
        if written > len(lane.text):  # it started over
            written = 0
        while (length := _complete(lane.text[written:], is_last=lane.ended_s is not None)) > 0:
            line = lane.text[written : written + length].strip()
            if line:
                write_line(f"[{lane.number}] {line}")
            written += length
        self._written[lane.number] = written


def _complete(text: str, *, is_last: bool) -> int:
    """How much of the text makes a line: up to a line break, or to the last space before the width, or the rest of an ended lane."""
    newline = text.find("\n", 0, LINE_WIDTH)
    if newline >= 0:
        return newline + 1
    if len(text) <= LINE_WIDTH:
        return len(text) if is_last else 0
    return text.rfind(" ", 0, LINE_WIDTH) + 1 or LINE_WIDTH


def summary(figures: Figures) -> str:
    """The figures in words."""
    return (
        f"{figures.requests} streams, {figures.output_tokens} tokens in {figures.seconds:.2f} s: {figures.tokens_per_s:.0f} tokens/s\n"
        f"time to first token: p50 {figures.ttft_p50_ms:.0f} ms, p95 {figures.ttft_p95_ms:.0f} ms\n"
        f"sequences in a step: {figures.batch_mean:.1f} on average, {figures.batch_largest_at_most} at most, over {figures.steps} steps"
    )


def ranking(scored: Scored) -> str:
    """What the dataset's rows say, in two of them, and where they lie."""
    (low, known), (high, strange) = scored.texts[0], scored.texts[-1]
    return (
        f"{scored.rows} texts scored; the likeliest and the least likely of them:\n"
        f"  perplexity {low:9,.1f}: {known}\n"
        f"  perplexity {high:9,.1f}: {strange}\n"
        f"rows: {scored.folder}/data-*.jsonl"
    )
