"""A refused command leaves nothing: no folder in the list of jobs, none of its job's, and no claim."""

from pathlib import Path

import pytest

from pipeline.offline.plan import plan
from tests.jobs.conftest import Bench, Command
from tests.jobs.test_verbs import config, rows
from tests.offline.conftest import make_spec
from tests.offline.flaky_store import DENIED, FlakyStore, flaky

__all__ = ["config", "flaky", "rows"]

JOB = ("--task", "generate", "--column", "text")
VERBS = pytest.mark.parametrize("verb", [("score",), ("jobs", "submit")])


@VERBS
@pytest.mark.usefixtures("flaky")
def test_a_place_that_is_taken(command: Command, config: Path, rows: Path, bench: Bench, place: Path, verb: tuple[str, ...]):
    """The place stays as it was as well."""
    (place / "theirs.txt").touch()
    done = command(*verb, rows, "-o", f"s3://{place}", *JOB, "--config", config)
    assert (done.code, "holds theirs.txt" in done.err) == (1, True)
    assert list(bench.registry.root.glob("*")) == []
    assert [path.name for path in place.iterdir()] == ["theirs.txt"]


def test_a_place_that_takes_nothing(command: Command, config: Path, rows: Path, bench: Bench, place: Path, flaky: FlakyStore):
    """The claim is the first thing that is put there. Where it may have been, its name is kept; once it is, the job goes on."""
    with flaky.failing("put", reason=DENIED):
        done = command("score", rows, "-o", f"s3://{place}", *JOB, "--config", config)
    assert (done.code, "ACCESS_DENIED" in done.err) == (1, True)
    assert list(bench.registry.root.iterdir()) == []
    with flaky.failing("put"):  # the answer to it may be what is lost, so that the claim's name has to be kept
        assert command("score", rows, "-o", f"s3://{place}", *JOB, "--config", config).code == 75
    with flaky.failing("list", "place", reason=DENIED):
        assert command("score", rows, "-o", f"s3://{place}", *JOB, "--config", config).code == 1
    assert list(bench.registry.root.rglob("destination.json"))
    done = command("score", rows, "-o", f"s3://{place}", *JOB, "--config", config)
    assert done.code == 3, done.err
    assert (place / "manifest.json").exists()


@VERBS
@pytest.mark.usefixtures("flaky")
def test_inputs_that_nothing_can_be_made_of(command: Command, config: Path, rows: Path, bench: Bench, place: Path, verb: tuple[str, ...]):
    """Whichever of them says so first."""
    done = command(*verb, rows.with_suffix(".csv"), "-o", f"s3://{place}", *JOB, "--config", config)
    assert (done.code, "no such file" in done.err) == (1, True)
    assert list(bench.registry.root.glob("*")) == []
    assert list(place.iterdir()) == []


def test_a_folder_of_another_job(command: Command, config: Path, rows: Path, bench: Bench, out: Path):
    """One that was never submitted, so that the list does not know it."""
    plan(make_spec(), [str(rows)], out)
    done = command("jobs", "submit", rows, "-o", out, *JOB, "--config", config)
    assert (done.code, "holds another job" in done.err) == (1, True)
    assert list(bench.registry.root.iterdir()) == []
