"""`penstock score` in this process, on the fake engine."""

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.cli import job_progress
from pipeline.offline.scoring import Progress
from schemas.job import JobPlan, RowSlice, ShardPlan
from tests.cli.conftest import Command

FAKE = json.dumps([{"name": "fake", "source": "fake", "engine": "fake"}])


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded."""
    monkeypatch.setenv("PENSTOCK_MODELS", FAKE)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three rows, one of them without a prompt, and a canary."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("canary one", None, "two")))
    return path


def test_it_scores_and_says_where_the_results_are(command: Command, rows: Path, tmp_path: Path):
    """Some rows failed: the exit code says so, each time the command is run. No prompt is logged."""
    out = tmp_path / "out"
    arguments = ("score", rows, "-o", out, "--task", "generate", "--template", "{{ text }}", "--max-tokens", 3, "--output-format", "jsonl")
    done = command(*arguments)
    assert done.code == 3, done.err
    assert f"2 rows in {out}/data-*, 1 in {out}/errors-* (invalid_request 1)" in done.out
    assert "canary" not in done.err
    lines = [json.loads(line) for line in next(out.glob("data-*.jsonl")).read_text().splitlines()]
    assert [line["text"] for line in lines] == ["canary one", "two"]
    assert set(lines[0]) == {"text", "output", "output_token_ids", "finish_reason", "prompt_tokens", "output_tokens"}
    again = command(*arguments, "--json")
    assert again.code == 3
    assert json.loads(again.out)["data_rows"] == 2


def test_a_changed_job_is_refused(command: Command, rows: Path, tmp_path: Path):
    """The change is named, and nothing is done."""
    arguments = ("score", rows, "-o", tmp_path / "out", "--task", "generate", "--column", "text")
    command(*arguments)
    done = command(*arguments, "--max-tokens", 5)
    assert done.code == 1
    assert "sampling.max_tokens was 256 and is 5" in done.err


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        (("--temperature", 9), 2, "temperature"),
        (("--template", "x"), 2, "one of template"),
        (("--messages-column", "m"), 2, "one of template"),
        (("--query-column", "m"), 2, "task rerank"),
        (("-o", "s3:/bucket/out"), 2, "SCHEME://BUCKET"),
        (("-o", "s3://key:hidden@bucket/out"), 2, "by the environment"),
        (("-o", "pyproject.toml"), 2, "is a file"),
        (("--model", "nothing"), 78, "NAME=PATH_OR_HUB_ID"),
        (("--model", "m=/nowhere"), 78, "no such folder"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(command: Command, rows: Path, tmp_path: Path, more: tuple, code: int, named: str):
    """Usage and configuration have codes of their own."""
    done = command("score", rows, "-o", tmp_path / "out", "--task", "generate", "--column", "text", *more)
    assert done.code == code
    assert named in done.err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing_and_says_what_it_would_take(command: Command, rows: Path, tmp_path: Path):
    """Rows, tokens, time and cost, by a sample."""
    arguments = ("score", rows, "-o", tmp_path / "out", "--task", "generate", "--column", "text", "--dry-run", "--cost-per-hour", 3600)
    done = command(*arguments, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["rows"], found["sampled_rows"], found["error_rows"]) == (3, 3, 1)
    assert found["cost"] == pytest.approx(found["seconds"])
    assert "3 rows in 1 shards" in command(*arguments).out
    assert not (tmp_path / "out").exists()


def test_without_a_terminal_progress_is_lines_of_the_log(monkeypatch: pytest.MonkeyPatch):
    """Now and then, with counts, rates and what is left."""
    monkeypatch.setattr(job_progress, "LINE_S", 0.0)
    plan = JobPlan(
        files=(), arrow_schema="", shards=(ShardPlan(number=0, slices=(RowSlice(file=0, row_group=0, start=0, rows=10),), estimated_tokens=0),)
    )
    with capture_logs() as lines, job_progress.shown(plan, committed_rows=4) as report:
        report(Progress(rows=3, fresh_rows=2, errors=1, prompt_tokens=5, output_tokens=6))
    (line,) = lines
    assert (line["event"], line["rows"], line["of"], line["errors"]) == ("job_progress", 7, 10, 1)
    assert line["left_s"] >= 0


@pytest.mark.integration
def test_on_a_terminal_there_is_a_bar(terminal, rows: Path, tmp_path: Path):
    """And no log lines that would tear it; the bar goes when the job is over."""
    shown = terminal("score", rows, "-o", tmp_path / "out", "--task", "generate", "--column", "text", "--max-tokens", 3)
    code, seen = shown.finish()
    assert code == 3
    assert "rows/s" in seen
    assert "shard_begun" not in seen
