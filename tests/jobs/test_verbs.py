"""`penstock jobs`, each verb, on a registry without a broker; a scripted worker does what is called out."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.offline.jobs.registry import Registry
from tests.jobs.conftest import Bench, Command
from tests.offline.conftest import outcome

FAKE = '[[models]]\nname = "fake"\nsource = "fake"\nengine = "fake"\n'


@pytest.fixture
def config(tmp_path: Path, bench: Bench) -> Path:
    """Settings of the same registry as the bench's."""
    path = tmp_path / "penstock.toml"
    path.write_text(f'{FAKE}[jobs]\nfolder = "{bench.registry.root}"\n')
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Of five rows two have no prompt."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": range(5), "text": ["a", None, "c", "", "e"]}), path)
    return path


def submit(command: Command, config: Path, rows: Path, out: Path, *more: object) -> str:
    """Submits a job and returns its id."""
    done = command("jobs", "submit", rows, "-o", out, "--task", "generate", "--column", "text", "--config", config, *more)
    assert done.code == 0, done.err
    return done.out.strip()


def finish(bench: Bench, job: str) -> None:
    """Does all that there is to do."""
    bench.driver.advance(job)
    bench.answer_all()


def test_a_job_from_submission_to_results(command: Command, config: Path, rows: Path, out: Path, bench: Bench):
    """The same submission is the same job; its files are listed once they are committed."""
    job = submit(command, config, rows, out)
    assert submit(command, config, rows, out) == job
    assert json.loads(command("jobs", "show", job, "--json", "--config", config).out)["phase"] == "queued"
    assert command("jobs", "results", job, "--config", config).out == ""
    finish(bench, job)
    watched = command("jobs", "watch", job, "--json", "--config", config)
    assert watched.code == 3
    last = json.loads(watched.out.splitlines()[-1])
    assert (last["phase"], last["planned_rows"], last["rows"], last["errors"], last["left_s"]) == ("completed", 5, 5, 2, None)
    [data] = command("jobs", "results", job, "--config", config).out.split()
    assert [row["id"] for row in parquet.read_table(data).to_pylist()] == [0, 2, 4]
    listed = command("jobs", "list", "--config", config).out
    assert job in listed
    assert "completed" in listed
    assert "rows done      5" in command("jobs", "show", job, "--config", config).out


@pytest.mark.parametrize("text", ["in", "in/**/*"])
def test_a_job_whose_results_lie_among_its_inputs_may_be_submitted_again(command: Command, config: Path, rows: Path, bench: Bench, text: str):
    """It is the same job, and nothing is left to do."""
    folder = rows.parent / "in"
    folder.mkdir()
    rows.rename(folder / "rows.parquet")
    job = submit(command, config, rows.parent / text, folder / "out")
    finish(bench, job)
    assert submit(command, config, rows.parent / text, folder / "out") == job
    finish(bench, job)
    assert json.loads(command("jobs", "show", job, "--json", "--config", config).out)["phase"] == "completed"


def test_rows_that_failed_are_submitted_again_as_a_job_of_their_own(command: Command, config: Path, rows: Path, out: Path, bench: Bench):
    """With the columns that they came with; the old results stay as they are."""
    job = submit(command, config, rows, out)
    assert command("jobs", "retry-errors", job, "--config", config).code == 1
    finish(bench, job)
    before = outcome(out.glob("*-*.parquet"))
    done = command("jobs", "retry-errors", job, "--config", config)
    assert done.code == 0, done.err
    finish(bench, done.out.strip())
    again = outcome(Path(f"{out}-retry").glob("errors-*"))
    assert [row["id"] for row in again] == [1, 3]
    assert set(again[0]) == {"id", "text", "error_code", "error_message"}
    assert outcome(out.glob("*-*.parquet")) == before


def test_pause_resume_and_cancel(command: Command, config: Path, rows: Path, out: Path, bench: Bench):
    """Each is a wish that whoever works on the job hears."""
    job = submit(command, config, rows, out)
    assert command("jobs", "pause", job, "--config", config).code == 0
    finish(bench, job)
    assert json.loads(command("jobs", "show", job, "--json", "--config", config).out)["phase"] == "paused"
    assert command("jobs", "resume", job, "--config", config).code == 0
    assert command("jobs", "cancel", job, "--config", config).code == 0
    finish(bench, job)
    assert command("jobs", "watch", job, "--config", config).code == 1
    refused = command("jobs", "submit", rows, "-o", out, "--task", "generate", "--column", "text", "--config", config)
    assert refused.code == 1
    assert "was cancelled: name another folder" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "show", "job-1"), "there is no job 'job-1'"),
        (("jobs", "results", "../x"), "there is no job '../x'"),
        (("jobs", "pause", "job-1"), "there is no job 'job-1'"),
        (("jobs", "submit", "nothing.parquet", "-o", "o", "--task", "generate", "--column", "text"), "no such file or folder"),
        (("jobs", "submit", "pyproject.toml", "-o", "o", "--task", "generate", "--column", "text", "--webhook", "http://x"), "https://"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(command: Command, config: Path, bench: Bench, arguments: tuple[str, ...], said: str):
    """With exit code 1, and no job is made of it."""
    done = command(*arguments, "--config", config)
    assert done.code == 1
    assert said in done.err
    assert list(Registry(bench.registry.root).homes()) == []


def test_without_a_broker_up_reconciles_by_itself(command: Command, config: Path):
    """There is nobody whom another process could wake."""
    assert "looks after its jobs" in command("jobs", "reconcile", "--config", config).err
