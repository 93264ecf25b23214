"""What is done about each errand, whatever came before it: on a scripted scorer, with calls that are noted and not sent."""

import os
import time
from pathlib import Path

import pytest

from pipeline.offline.confinement import Confinement
from pipeline.offline.flight.address import WorkerAway
from pipeline.offline.flight.client import WorkerDied
from pipeline.offline.jobs.errands import GRACE_S, Board, Errand, Kind, Patience, make_board
from pipeline.offline.jobs.registry import UnknownJob
from pipeline.offline.jobs.tally import Phase, Tally
from pipeline.offline.refusals import JobRefused
from pipeline.offline.scoring import Halt
from tests.jobs.conftest import Bench
from tests.offline.conftest import ROWS, SHARD_ROWS, Script, make_spec, outcome


def age(board: Board, seconds: float) -> None:
    """Makes all calls so old."""
    for path in board.folder.glob("*.called"):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_a_job_goes_from_plan_to_manifest_a_window_at_a_time(bench: Bench, dataset: Path, out: Path):
    """Never more shards are called out than the window holds, and each of them once."""
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    seen, most = [], 0
    while bench.calls.made:
        most = max(most, sum(errand.kind is Kind.SCORE for errand in bench.calls.made))
        seen.append(bench.calls.made.pop(0))
        bench.answer(seen[-1])
    assert [errand.name for errand in seen] == ["plan", "0000000", "0000001", "0000002", "0000003", "finalise"]
    assert most == 2
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))
    assert Tally(home).read().phase is Phase.COMPLETED
    assert home.is_over


def test_messages_that_come_twice_or_late_change_nothing(bench: Bench, dataset: Path, out: Path):
    """Every message is delivered three times, once more after the end."""
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    seen = []
    while bench.calls.made:
        seen.append(bench.calls.made.pop(0))
        for _ in range(3):
            bench.answer(seen[-1])
    for errand in seen:
        bench.answer(errand)
    assert len(bench.scorer.seen) == ROWS
    assert len(seen) == 6
    assert bench.calls.made == []


def test_lost_messages_are_called_out_again(bench: Bench, dataset: Path, out: Path):
    """Whatever message is lost, reconciling brings the job on; before a while has passed it does nothing."""
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    for _ in range(20):
        if home.is_over:
            break
        bench.calls.made.clear()  # all lost
        bench.driver.reconcile()
        assert bench.calls.made == []
        age(make_board(home.errands), GRACE_S + 1)
        bench.driver.reconcile()
        for errand in tuple(bench.calls.made):
            bench.answer(errand)
    assert home.is_over
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))


def test_what_somebody_is_at_is_not_called_out_again(bench: Bench, dataset: Path, out: Path):
    """A shard that takes long is not lost."""
    home = bench.submit(dataset, out)
    bench.driver.plan(home.id)
    bench.calls.made.clear()
    board = make_board(home.errands)
    age(board, 10_000)
    with board.attend(Errand(Kind.SCORE, home.id, 0)) as is_mine:
        assert is_mine
        bench.driver.reconcile()
    assert [errand.shard for errand in bench.calls.made] == [1]


def test_patience_grows_while_workers_are_busy():
    """Messages behind others are not lost; calls that nobody answers become rare, and never end."""
    patience = Patience(10.0, 100.0)
    assert patience.is_over(GRACE_S, 0, is_idle=True)
    assert not patience.is_over(9.0, 0, is_idle=False)
    assert patience.is_over(10.0, 0, is_idle=False)
    assert not patience.is_over(10.0, 1, is_idle=False)
    assert patience.is_over(100.0, 500, is_idle=False)


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


def test_inputs_that_cannot_be_read_fail_the_job_until_it_is_submitted_again(bench: Bench, dataset: Path, out: Path):
    """The reason is kept, and the outside is told."""
    content = dataset.read_bytes()
    dataset.write_bytes(b"no Parquet")
    home = bench.submit(dataset, out, webhook="https://example.com/")
    bench.driver.advance(home.id)
    bench.answer_all()
    assert Tally(home).read().phase is Phase.FAILED
    assert bench.told == [home.id]
    dataset.write_bytes(content)
    bench.submit(dataset, out, webhook="https://example.com/")
    bench.driver.advance(home.id)
    bench.answer_all()
    assert Tally(home).read().phase is Phase.COMPLETED
    assert bench.told == [home.id, home.id]


def test_a_stop_gives_the_shard_to_others(bench: Bench, dataset: Path, out: Path):
    """What was answered is kept, nobody is under suspicion, and the shard is called out at once."""
    home = bench.submit(dataset, out)
    bench.driver.plan(home.id)
    assert bench.calls.made.pop(0).shard == 0
    bench.stopping.append(True)
    bench.driver.score(home.id, 0)
    assert [errand.shard for errand in bench.calls.made] == [1, 0]
    bench.stopping.clear()
    bench.answer_all()
    assert home.is_over


def test_a_row_that_kills_the_worker_is_found_within_one_errand(bench: Bench, dataset: Path, out: Path):
    """The worker dies of it again and again, until it is alone; all others have their answers."""

    class Deadly(Script):
        def poll(self):
            if any("row 20 " in ask.text for _, ask in self.flying):
                raise WorkerDied
            return super().poll()

    bench.scorer.__class__ = Deadly
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    bench.answer_all()
    assert [row["id"] for row in outcome(out.glob("errors-*"))] == [20]
    assert [row["id"] for row in outcome(out.glob("data-*"))] == [row for row in range(ROWS) if row != 20]


def test_a_worker_that_is_away_costs_time_and_nothing_else(bench: Bench, dataset: Path, out: Path):
    """The shard is not called out at once, but when its time has come."""

    class Away(Script):
        def poll(self):
            raise WorkerAway

    bench.scorer.__class__ = Away
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    bench.answer_all()
    assert Tally(home).read().phase is Phase.RUNNING
    bench.scorer.__class__ = Script
    age(make_board(home.errands), GRACE_S + 1)
    bench.driver.reconcile()
    bench.answer_all()
    assert home.is_over
    assert list(out.glob("errors-*")) == []


def test_a_store_that_is_away_costs_time_and_nothing_else(bench: Bench, dataset: Path, tmp_path: Path):
    """Results go there when it is back; what was computed before is kept. Its folder is in the list of jobs."""
    place = tmp_path / "place"
    place.mkdir()
    home = bench.submit(dataset, f"file://{place}")
    bench.driver.plan(home.id)
    away = place.rename(tmp_path / "away")
    bench.answer_all()
    assert (Tally(home).read().phase, Tally(home).read().done_shards) == (Phase.RUNNING, 0)
    away.rename(place)
    age(make_board(home.errands), GRACE_S + 1)
    bench.driver.reconcile()
    while bench.calls.made[0].kind is Kind.SCORE:
        bench.answer(bench.calls.made.pop(0))
    place.rename(away)
    place.write_text("no folder can be listed here")
    bench.answer_all()
    assert Tally(home).read().phase is Phase.FINALISING
    place.unlink()
    away.rename(place)
    age(make_board(home.errands), GRACE_S + 1)
    bench.driver.reconcile()
    bench.answer_all()
    assert Tally(home).read().phase is Phase.COMPLETED
    assert len(bench.scorer.seen) == ROWS
    assert [row["id"] for row in outcome(place.glob("data-*"))] == list(range(ROWS))
    assert Tally(home).read().output == f"file://{place}"
    assert home.folder.path == home.path / "work"


def test_a_place_in_a_store_that_is_taken_fails_the_job(bench: Bench, dataset: Path, tmp_path: Path):
    """Nothing is computed, and the reason is kept."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "rows.parquet").write_text("theirs")
    home = bench.submit(dataset, f"file://{place}")
    bench.driver.advance(home.id)
    bench.answer_all()
    assert home.failure == f"file://{place} holds rows.parquet and no results of this job: name an address where nothing is"
    assert bench.scorer.seen == []


def test_a_link_in_the_list_of_jobs_is_no_job(bench: Bench, dataset: Path, out: Path, tmp_path: Path):
    """Whoever may fill the list cannot have others write elsewhere by it."""
    home = bench.submit(dataset, out)
    home.path.rename(tmp_path / "elsewhere")
    home.path.symlink_to(tmp_path / "elsewhere")
    assert list(bench.registry.homes()) == []
    with pytest.raises(UnknownJob):
        bench.driver.plan(home.id)


def test_another_job_in_the_same_folder_is_refused(bench: Bench, dataset: Path, out: Path):
    """The message says what differs; the same job is found again, with the same id."""
    home = bench.submit(dataset, out)
    assert bench.submit(dataset, out).id == home.id
    with pytest.raises(JobRefused, match="task was 'generate' and is 'embed'"):
        bench.submit(dataset, out, spec=make_spec(task="embed"))
    with pytest.raises(JobRefused, match="the inputs were"):
        bench.submit(dataset, out, inputs=("elsewhere.parquet",))


@pytest.mark.parametrize("job", ["job-00000000000000000000", "../../etc", "job-0000000000000000000/", ""])
def test_an_unknown_job_is_refused_before_any_path_is_made_of_it(bench: Bench, job: str):
    """Ids come in messages."""
    with pytest.raises(UnknownJob):
        bench.driver.plan(job)


def test_a_job_that_cannot_be_read_does_not_hold_up_the_others(bench: Bench, dataset: Path, out: Path, tmp_path: Path):
    """Reconciling goes on with the next one."""
    broken = bench.submit(dataset, tmp_path / "broken")
    home = bench.submit(dataset, out)
    bench.driver.plan(broken.id)
    bench.calls.made.clear()
    broken.folder.plan_file.write_text("torn")
    bench.driver.reconcile()
    assert [errand.job for errand in bench.calls.made] == [home.id]


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


def test_rows_that_waited_are_not_blamed_for_a_death_before_they_were_sent(bench: Bench, dataset: Path, out: Path):
    """The worker may have died of others' rows meanwhile: whoever was waiting meets it anew before anything is submitted."""

    class Stale(Script):
        is_stale = True

        def submit(self, asks):
            if self.is_stale:
                raise WorkerDied
            super().submit(asks)

        def poll(self):
            self.is_stale = self.is_stale or not self.flying
            return super().poll()

        def abandon(self):
            self.is_stale = False
            super().abandon()

    bench.scorer.__class__ = Stale
    home = bench.submit(dataset, out)
    bench.driver.advance(home.id)
    bench.answer_all()
    assert [row["id"] for row in outcome(out.glob("data-*"))] == list(range(ROWS))


def test_a_job_that_names_what_it_may_not_fails_and_nothing_is_touched(bench: Bench, dataset: Path, tmp_path: Path):
    """An input outside of the roots, a folder of results outside of them; whichever errand comes, and reconciling too."""
    bench.driver._within = Confinement((tmp_path / "root",), ())
    reading = bench.submit(dataset, tmp_path / "root" / "out")
    writing = bench.submit(tmp_path / "root" / "rows.jsonl", tmp_path / "elsewhere")
    ending = bench.submit(dataset, tmp_path / "other")
    bench.driver.advance(reading.id)
    bench.answer_all()
    bench.driver.reconcile(writing.id)
    bench.driver.finalise(ending.id)
    for home in (reading, writing, ending):
        assert home.failure is not None
        assert "jobs.roots" in home.failure
    assert bench.scorer.seen == []
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "other").exists()
    storing = bench.submit(tmp_path / "root" / "rows.jsonl", "s3://theirs/out")
    bench.driver.reconcile(storing.id)
    assert "jobs.output_stores" in (storing.failure or "")
    assert not (tmp_path / "root" / "out").exists()
