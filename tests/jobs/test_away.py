"""Jobs whose inputs or whose place for results are away: they wait and say for what, from the plan on; faults end them at once."""

import json
from pathlib import Path

import pytest

from pipeline.offline.jobs.errands import Errand, Kind
from pipeline.offline.jobs.registry import Home
from pipeline.offline.jobs.tally import Phase, Tally
from pipeline.offline.scoring import Halt
from tests.jobs.calls import call_again
from tests.jobs.conftest import Bench, Command
from tests.jobs.test_verbs import config, rows
from tests.offline.conftest import ROWS, outcome
from tests.offline.flaky_store import DENIED, FlakyStore, flaky

__all__ = ["config", "flaky", "rows"]

MOMENTS = [("info", "in"), ("list", "in"), ("open", "in"), ("read", "in"), ("list", "place"), ("put", "place")]
"""What planning asks of the inputs' store and of the results'."""


@pytest.fixture
def home(bench: Bench, dataset: Path, place: Path) -> Home:
    """A job from one place in the store to another."""
    return bench.submit(dataset, f"s3://{place}", inputs=(f"s3://{dataset.parent}",), webhook="https://example.com/")


@pytest.mark.parametrize(("verb", "part"), MOMENTS)
def test_a_plan_is_called_out_again_until_the_store_is_back(bench: Bench, home: Home, place: Path, flaky: FlakyStore, verb: str, part: str):
    """Not at once, and each call is counted, as patience wants; the job's state says why it waits, and nobody is told of an end."""
    bench.driver.advance(home.id)
    with flaky.failing(verb, f"/{part}"):
        for calls in range(3):
            bench.answer_all()
            standing = Tally(home).read()
            assert (standing.phase, standing.failure) == (Phase.QUEUED, None)
            assert "SERVICE_UNAVAILABLE" in (standing.waiting or "")
            assert (home.errands / "plan.called").stat().st_size == calls
            bench.driver.reconcile()
            assert bench.calls.made == []
            assert call_again(bench, home) == [Errand(Kind.PLAN, home.id)]
    bench.answer_all()
    standing = Tally(home).read()
    assert (standing.phase, standing.waiting) == (Phase.COMPLETED, None)
    assert bench.told == [home.id]
    assert [row["id"] for row in outcome(place.glob("data-*"))] == list(range(ROWS))


@pytest.mark.parametrize(("verb", "part"), MOMENTS)
def test_a_store_that_lets_nobody_in_fails_the_job_at_once(bench: Bench, home: Home, flaky: FlakyStore, verb: str, part: str):
    """With one line, and nothing is called out any more but that the outside be told."""
    bench.driver.advance(home.id)
    with flaky.failing(verb, f"/{part}", DENIED):
        bench.answer_all()
    standing = Tally(home).read()
    assert (standing.phase, standing.waiting) == (Phase.FAILED, None)
    assert "ACCESS_DENIED" in (standing.failure or "")
    assert "\n" not in (standing.failure or "")
    assert {errand.kind for errand in call_again(bench, home)} == {Kind.NOTIFY}


@pytest.mark.parametrize("verb", ["info", "open", "read"])
def test_inputs_that_go_away_after_the_plan_are_waited_for_too(bench: Bench, home: Home, place: Path, flaky: FlakyStore, verb: str):
    """A shard is called out again like a plan; once it goes on the job no longer says that it waits."""
    bench.driver.plan(home.id)
    with flaky.failing(verb, "/in/"):
        bench.answer_all()
        standing = Tally(home).read()
        assert standing.phase is Phase.RUNNING
        assert "SERVICE_UNAVAILABLE" in (standing.waiting or "")
    call_again(bench, home)
    bench.answer(bench.calls.made.pop(0))
    assert Tally(home).read().waiting is None
    bench.answer_all()
    assert [row["id"] for row in outcome(place.glob("data-*"))] == list(range(ROWS))


def test_a_job_that_waits_with_its_plan_can_be_cancelled_or_called_at_once(bench: Bench, home: Home, dataset: Path, flaky: FlakyStore):
    """Its end does not wait for the store, and who submits it again has it tried now."""
    bench.driver.advance(home.id)
    with flaky.failing("list", "/in"):
        bench.answer_all()
        assert bench.submit(dataset, home.submission.out, inputs=home.submission.inputs).waiting is None
        bench.driver.advance(home.id)
        assert bench.calls.made == [Errand(Kind.PLAN, home.id)]
        bench.answer_all()
        home.ask(Halt.CANCELLED)
        bench.driver.advance(home.id)
        bench.answer_all()
    assert Tally(home).read().phase is Phase.CANCELLED


def test_who_looks_at_a_job_or_submits_one_hears_what_is_away(
    command: Command, config: Path, bench: Bench, home: Home, place: Path, flaky: FlakyStore
):
    """In one line; a submission may be tried again, and none is made of it."""
    bench.driver.advance(home.id)
    with flaky.failing("list", "/in"):
        bench.answer_all()
        shown = command("jobs", "show", home.id, "--config", config).out
        assert "waiting for    s3://" in shown
        assert "SERVICE_UNAVAILABLE" in json.loads(command("jobs", "list", "--json", "--config", config).out)["waiting"]
        [text] = home.submission.inputs
        done = command("jobs", "submit", text, "-o", f"s3://{place}/more", "--task", "generate", "--column", "text", "--config", config)
    assert done.code == 75
    assert done.err.count("\n") == 1
    assert done.err.endswith("No response body.; nothing was submitted\n")
    assert [found.id for found in bench.registry.homes()] == [home.id]
