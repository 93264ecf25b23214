"""Jobs whose own folder lies on a share that is away: whoever looks hears of it in one line, and whoever works waits."""

import errno
import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.offline.folder import Folder
from pipeline.offline.jobs.errands import Errand, Kind
from pipeline.offline.jobs.registry import Home
from pipeline.offline.jobs.tally import Phase, Tally
from tests.jobs.conftest import Bench, Command
from tests.jobs.test_away import call_again
from tests.jobs.test_verbs import config, rows, submit
from tests.offline.conftest import ROWS, outcome

__all__ = ["config", "rows"]


@pytest.fixture
def broken(command: Command, config: Path, rows: Path, out: Path, bench: Bench) -> Home:
    """A planned job on a disk that cannot be read: the first page of a process's memory is such a file."""
    home = bench.registry.find(submit(command, config, rows, out))
    bench.driver.plan(home.id)
    home.folder.plan_file.rename(out / "aside")
    home.folder.plan_file.symlink_to("/proc/self/mem")
    return home


@pytest.mark.parametrize("verb", ["show", "watch"])
def test_who_looks_at_a_job_whose_folder_is_away_hears_so(command: Command, config: Path, broken: Home, verb: str):
    """In one line that names the folder, and may try again; when it is back the job is shown as before."""
    done = command("jobs", verb, broken.id, "--config", config)
    assert (done.code, done.out) == (75, "")
    assert done.err == f"error: {broken.folder.path}: cannot be reached: [Errno 5] Input/output error; try again when it is back\n"
    (broken.folder.path / "aside").rename(broken.folder.plan_file)
    assert json.loads(command("jobs", "show", broken.id, "--json", "--config", config).out)["phase"] == "running"


def test_other_jobs_are_listed_all_the_same(command: Command, config: Path, rows: Path, broken: Home, tmp_path: Path):
    """The one that cannot be read is named beside them."""
    other = submit(command, config, rows, tmp_path / "other")
    done = command("jobs", "list", "--json", "--config", config)
    assert done.code == 75
    assert [json.loads(line)["job"] for line in done.out.splitlines()] == [other]
    assert done.err.startswith(f"error: {broken.folder.path}: cannot be reached")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["pause", "cancel", "results", "retry-errors"])
def test_whatever_is_asked_of_it_meanwhile(command: Command, config: Path, broken: Home, monkeypatch: pytest.MonkeyPatch, verb: str):
    """Is answered in one line too, by the number of the kernel's error."""
    stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(broken.folder.path))
    for name in ("plan_file", "commits"):
        monkeypatch.setattr(Folder, name, property(Mock(side_effect=stale)))
    done = command("jobs", verb, broken.id, "--config", config)
    assert done.code == 75
    assert "Stale file handle" in done.err
    assert done.err.count("\n") == 1


def test_a_shard_and_the_end_wait_for_the_folder(bench: Bench, dataset: Path, out: Path, monkeypatch: pytest.MonkeyPatch):
    """They are called out again when it is back, the job does not fail, and every row is there once."""
    home = bench.submit(dataset, out)
    bench.driver.plan(home.id)
    stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(out))
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "commit_file", Mock(side_effect=stale))
        bench.answer_all()
        assert "Stale file handle" in (home.waiting or "")
        assert home.failure is None
    call_again(bench, home)
    while bench.calls.made[0].kind is Kind.SCORE:
        bench.answer(bench.calls.made.pop(0))
    assert bench.calls.made == [Errand(Kind.FINALISE, home.id)]
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "commit", Mock(side_effect=stale))
        bench.answer_all()
        assert "Stale file handle" in (home.waiting or "")
    call_again(bench, home)
    bench.answer_all()
    assert Tally(home).read().phase is Phase.COMPLETED
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))
