"""Jobs that are paused, resumed or cancelled, whatever they are at."""

from pathlib import Path

import pytest

from pipeline.offline.jobs.errands import make_board
from pipeline.offline.jobs.tally import Phase, Tally
from pipeline.offline.refusals import JobRefused
from pipeline.offline.scoring import Halt
from tests.jobs.conftest import Bench
from tests.offline.conftest import SHARD_ROWS


def test_a_pause_calls_nothing_out_and_a_resume_goes_on(bench: Bench, dataset: Path, out: Path):
    """Also where the pause was asked for before there was a plan."""
    home = bench.submit(dataset, out)
    home.ask(Halt.PAUSED)
    bench.driver.advance(home.id)
    bench.answer_all()
    assert Tally(home).read().phase is Phase.PAUSED
    assert bench.scorer.seen == []
    home.resume()
    bench.driver.advance(home.id)
    bench.answer_all()
    assert Tally(home).read().phase is Phase.COMPLETED


@pytest.mark.parametrize("is_planned", [False, True])
def test_a_cancelled_job_ends_with_what_is_done(bench: Bench, dataset: Path, out: Path, *, is_planned: bool):
    """Its folder is not another job's afterwards, unless nothing was planned in it."""
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    if is_planned:
        bench.answer(bench.calls.made.pop(0))
        bench.answer(bench.calls.made.pop(0))
    home.ask(Halt.CANCELLED)
    bench.answer_all()
    bench.driver.advance(home.id)
    bench.answer_all()
    standing = Tally(home).read()
    assert standing.phase is Phase.CANCELLED
    assert standing.counts.rows == (SHARD_ROWS if is_planned else 0)
    if is_planned:
        with pytest.raises(JobRefused, match="was cancelled"):
            bench.submit(dataset, out)
    else:
        bench.submit(dataset, out)
        assert Tally(home).read().phase is Phase.QUEUED


def test_a_cancelled_job_waits_for_those_who_are_at_it(bench: Bench, dataset: Path, out: Path):
    """Its end is called out when the last of them leaves."""
    home = bench.submit(dataset, out)
    bench.driver.plan(home.id)
    home.ask(Halt.CANCELLED)
    bench.driver.advance(home.id)
    shard = bench.calls.made[0]
    with make_board(home.errands).attend(shard):
        bench.answer(bench.calls.made.pop())
        assert not home.is_over
    bench.answer_all()
    assert Tally(home).read().phase is Phase.CANCELLED
