"""What is done about each errand, whatever came before it: on a scripted scorer, with calls that are noted and not sent."""

from pathlib import Path

from pipeline.offline.jobs.errands import GRACE_S, Errand, Kind, Patience, make_board
from pipeline.offline.jobs.tally import Phase, Tally
from tests.jobs.calls import age
from tests.jobs.conftest import Bench
from tests.offline.conftest import ROWS, outcome


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


def test_a_job_that_cannot_be_read_does_not_hold_up_the_others(bench: Bench, dataset: Path, out: Path, tmp_path: Path):
    """Reconciling goes on with the next one."""
    broken = bench.submit(dataset, tmp_path / "broken")
    home = bench.submit(dataset, out)
    bench.driver.plan(broken.id)
    bench.calls.made.clear()
    broken.folder.plan_file.write_text("torn")
    bench.driver.reconcile()
    assert [errand.job for errand in bench.calls.made] == [home.id]
