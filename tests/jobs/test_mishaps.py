"""Inputs, workers and stores that fail a job or keep it waiting."""

from pathlib import Path

from pipeline.offline.flight.address import WorkerAway
from pipeline.offline.flight.client import WorkerDied
from pipeline.offline.jobs.errands import GRACE_S, Kind, make_board
from pipeline.offline.jobs.tally import Phase, Tally
from tests.jobs.calls import age
from tests.jobs.conftest import Bench
from tests.offline.conftest import ROWS, Script, outcome


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
