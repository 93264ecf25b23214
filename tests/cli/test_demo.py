"""`penstock demo`: its figures, its views, and the whole of it."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from rich.console import Console

from pipeline.cli.demo import views
from pipeline.cli.demo.dataset import SENTENCES, Scored, texts
from pipeline.cli.demo.figures import Batches, percentile, read_batches, read_running, summarise
from pipeline.cli.demo.lanes import Lane, Run
from pipeline.cli.demo.prompts import pick
from pipeline.cli.worker_card import find_workers
from pipeline.engine.base import EngineStats
from pipeline.telemetry import Metrics
from tests.cli.conftest import PENSTOCK, Terminal

DEMO_S = 240.0


def test_figures_come_from_the_lanes_and_the_workers_metrics():
    """Percentiles of the first tokens, throughput from the first submission to the last end, batches as the worker saw them."""
    lanes = [Lane(number=n, prompt="p", tokens=10, submitted_s=0.5, first_token_s=0.5 + n / 10, ended_s=2.5) for n in range(1, 5)]
    figures = summarise(lanes, Batches(steps=9, mean_sequences=3.14159, largest_at_most=8))
    assert (figures.requests, figures.output_tokens, figures.seconds, figures.tokens_per_s) == (4, 40, 2.0, 20.0)
    assert (figures.ttft_p50_ms, figures.ttft_p95_ms) == (200.0, 400.0)
    assert (figures.batch_mean, figures.batch_largest_at_most, figures.steps) == (3.14, 4, 9)


def test_batches_are_read_from_the_metrics_that_a_worker_serves():
    """The names are those of the worker's own registry, so a renamed metric would show here."""
    metrics = Metrics()
    assert read_batches(generate_latest(metrics.registry).decode()) == Batches(steps=0, mean_sequences=0.0, largest_at_most=0)
    for sequences in (1, 3, 8):
        metrics.observe_step(EngineStats(batch_sequences=sequences), 0.01)
    metrics.observe_engines([EngineStats(running=5)])
    text = generate_latest(metrics.registry).decode()
    assert read_batches(text) == Batches(steps=3, mean_sequences=4.0, largest_at_most=8)
    assert read_running(text) == 5


@given(values=st.lists(st.floats(0, 1e6), min_size=1), percent=st.sampled_from([50, 95, 100]))
def test_a_percentile_is_a_value_that_enough_do_not_exceed(values: list[float], percent: int):
    """Nearest rank: the value is one of them, at least `percent` of them are no larger, and no smaller one would do."""
    found = percentile(sorted(values), percent)
    share = sum(value <= found for value in values) / len(values) * 100
    smaller = sum(value < found for value in values) / len(values) * 100
    assert found in values
    assert smaller < percent <= share + 1e-9


def test_the_dataset_is_shown_by_its_extremes():
    """The likeliest text, the least likely one, and where all of them lie."""
    scored = Scored(rows=3, folder=Path("here"), texts=((4.25, "known"), (9.0, "between"), (1234.5, "strange")))
    _, known, strange, rows = views.ranking(scored).splitlines()
    assert (known.split(), strange.split()) == (["perplexity", "4.2:", "known"], ["perplexity", "1,234.5:", "strange"])
    assert rows == "rows: here/data-*.jsonl"


def test_prompts_are_enough_for_any_number():
    """More lanes than prompts start again from the first."""
    assert len(set(pick(12))) == 12
    assert pick(13)[12] == pick(1)[0]


@given(text=st.text(alphabet="ab \n", max_size=300), cuts=st.lists(st.integers(0, 300), max_size=20))
def test_lines_lose_no_word(text: str, cuts: list[int]):
    """However a stream is cut, the lines hold its words in order, each line begins with its lane, and none is wider than the limit."""
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "write_line", written.append)
        lines, lane = views.Lines(), Lane(number=3, prompt="p")
        for cut in sorted(cuts):
            lane.text = text[:cut]
            lines.change(lane)
        lane.text, lane.ended_s = text, 1.0
        lines.change(lane)
    assert all(line.startswith("[3] ") and len(line) <= views.LINE_WIDTH + 4 for line in written)
    assert "".join("".join(line[4:].split()) for line in written) == "".join(text.split())


def test_lines_start_over_with_the_answer():
    """An answer that restarts is written again from its beginning."""
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "write_line", written.append)
        lines, lane = views.Lines(), Lane(number=1, prompt="p", text="wrong beginning\nand so")
        lines.change(lane)
        lane.text = ""
        lines.change(lane)
        lane.text, lane.ended_s = "right", 1.0
        lines.change(lane)
    assert written == ["[1] wrong beginning", "[1] right"]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (200, 60)])
def test_panels_fit_and_are_harmless(monkeypatch: pytest.MonkeyPatch, columns: int, rows: int):
    """Every lane is on the screen, which is not outgrown, and what a model writes cannot leave its panel."""
    console = Console(file=io.StringIO(), width=columns, height=rows, force_terminal=True, color_system=None)
    monkeypatch.setattr(views, "tables", lambda: console)
    lanes = [Lane(number=n, prompt=f"[bold]prompt {n}", text="\x1b[2J[red]" + "word " * 200, tokens=5) for n in range(4)]
    lanes[0].ended_s, lanes[0].first_token_s = 2.0, 0.25
    panels = views.Panels(Run(lanes=lanes, max_tokens=5))
    panels.set_running(3)
    console.print(panels.render())
    shown = console.file.getvalue()
    assert len(shown.splitlines()) <= rows
    assert all(f"prompt {n}" in shown or columns < 80 for n in range(4))
    assert "in the batch: 3" in shown
    assert "20 tokens" in shown
    assert "\x1b[2J" not in shown


def test_a_card_that_is_torn_or_of_a_dead_process_is_passed_over(tmp_path: Path):
    """Only workers that run are found, and they say when they are not there."""
    (tmp_path / "worker-1.json").write_text("{")
    (tmp_path / "worker-2.json").write_text('{"pid": 4194303, "http": "http://127.0.0.1:1"}')
    (tmp_path / "worker-3.json").write_text(json.dumps({"pid": os.getpid(), "http": "http://127.0.0.1:1"}))
    (found,) = find_workers(tmp_path)
    assert found.pid == os.getpid()
    assert "no answer" in str(found.not_ready())
    assert found.metrics() == ""


@pytest.fixture
def demo_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose temporary folder is the test's, so that what is left behind shows: nothing but rows that were scored."""
    yield os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "2"}
    assert {path.name.rpartition("-")[0] for path in tmp_path.glob("penstock-*")} <= {"penstock-rows"}


def run_demo(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run([PENSTOCK, "demo", *arguments], check=False, capture_output=True, text=True, timeout=DEMO_S, env=environment)


@pytest.mark.integration
@pytest.mark.timeout(DEMO_S)
def test_the_demo_streams_and_measures(demo_environment: dict[str, str]):
    """A real worker serves several streams together, then a dataset; the summary says so, and where the rows are."""
    done = run_demo(demo_environment, "--prompts", "8", "--max-tokens", "24", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["requests"], figures["batch_largest_at_most"]) == (8, 8)
    assert 8 <= figures["output_tokens"] <= 8 * 24
    assert 1.0 < figures["batch_mean"] <= 8.0
    assert figures["ttft_p50_ms"] <= figures["ttft_p95_ms"]
    rows = [json.loads(line) for file in Path(figures["scored_rows_in"]).glob("data-*.jsonl") for line in file.read_text().splitlines()]
    assert [row["text"] for row in rows] == texts()
    assert figures["scored_rows"] == len(rows)
    perplexities = [row["perplexity"] for row in rows]
    assert sum(perplexities[::2]) < sum(perplexities[1::2])


def demo_folder(line: str) -> Path:
    """Where the last line of the demo says that the rows are."""
    return Path(line.removeprefix("rows: ")).parent


@pytest.mark.integration
@pytest.mark.timeout(DEMO_S)
def test_the_demo_shows_its_streams(demo_environment: dict[str, str]):
    """Without a terminal every line begins with its request, and all requests are there."""
    done = run_demo(demo_environment, "--prompts", "3", "--max-tokens", "24")
    assert done.returncode == 0, done.stderr
    *lines, streams, first_token, batches, scored, known, strange, rows = done.stdout.splitlines()
    assert {line.split("]")[0] for line in lines} == {"[1", "[2", "[3"}
    assert (streams.startswith("3 streams"), first_token.startswith("time to first token"), batches.startswith("sequences in a step")) == (True,) * 3
    assert scored.startswith(f"{len(texts())} texts scored")
    assert known.split(": ")[1] in SENTENCES
    assert strange.split(": ")[1] not in SENTENCES
    assert list(demo_folder(rows).glob("data-*.jsonl"))


@pytest.mark.integration
@pytest.mark.timeout(DEMO_S)
def test_the_demo_fails_with_the_workers_last_words(demo_environment: dict[str, str]):
    """A worker that cannot start ends the demo with an error and the end of its log."""
    done = run_demo(demo_environment | {"PENSTOCK_HTTP__HOST": "host.invalid"}, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the worker ended with 78" in done.stderr
    assert "host.invalid" in done.stderr


@pytest.mark.integration
@pytest.mark.timeout(DEMO_S)
def test_the_demo_ends_with_ctrl_c(demo_environment: dict[str, str]):
    """An impatient user leaves neither a process nor a file."""
    screen = Terminal("demo", environment=demo_environment)
    try:
        screen.read_until("Starting a worker")
        screen.interrupt()
        assert screen.finish()[0] == 130
    finally:
        screen.close()
