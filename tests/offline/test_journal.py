"""What a journal tells after its writer died, wherever its files are torn."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.offline.answer import Answer
from pipeline.offline.journal import Journal
from pipeline.offline.ledger import ShardLock
from pipeline.offline.prefetch import Nothing, Prefetch
from pipeline.offline.suspects import Group
from schemas.job import Task


def answer(row: int) -> Answer:
    """An answer that tells its row."""
    return Answer(row=row, values={"output": f"of {row}", "output_token_ids": [row], "finish_reason": "stop"}, prompt_tokens=1, output_tokens=1)


def attempt(folder: Path) -> Journal:
    """The next attempt."""
    return Journal(folder, "00000", Task.GENERATE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4_000), which=st.sampled_from([".answers", ".flight"]))
def test_a_torn_journal_is_read_up_to_the_tear(tmp_path_factory: pytest.TempPathFactory, cut: int, which: str):
    """No answer is made up, and no row that was begun and not answered is forgotten."""
    folder = tmp_path_factory.mktemp("journal")
    with attempt(folder) as journal:
        for rows in ((0, 1), (2, 3), (4, 5)):
            journal.begin(rows)
            journal.finish([answer(row) for row in rows if row != 5])
            journal.flush()
    (torn,) = folder.glob(f"*{which}")
    torn.write_bytes(torn.read_bytes()[:cut])
    with attempt(folder) as again:
        suspects = {row for group in again.suspicion.groups for row in group.rows}
        table = again.answers()
        assert table.column("row").to_pylist() == sorted(again.finished)
        assert [text == f"of {row}" for row, text in zip(table.column("row").to_pylist(), table.column("output").to_pylist(), strict=True)] == [
            True
        ] * table.num_rows
        if which == ".answers":
            assert again.finished | suspects == set(range(6))
            assert again.finished == set(range(len(again.finished)))
        else:
            assert again.finished == set(range(5))
            assert suspects <= {5}


def test_an_attempt_that_ends_in_good_order_blames_nobody(tmp_path: Path):
    """What was in flight at a Ctrl-C is asked again like any other row."""
    journal = attempt(tmp_path)
    journal.begin([1, 2])
    journal.release()
    with attempt(tmp_path) as again:
        assert again.suspicion.groups == ()


def test_deaths_of_several_attempts_add_up(tmp_path: Path):
    """Each attempt has files of its own; the first answer of a row counts."""
    for _ in range(2):
        with attempt(tmp_path) as journal:
            journal.begin([1, 2])
    with attempt(tmp_path) as journal:
        assert journal.suspicion.groups == (Group((1,)), Group((2,)))
        journal.begin([1])
        journal.finish([answer(1)])
        journal.finish([answer(1)])
        assert journal.answers().column("row").to_pylist() == [1]
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_held_by_one(tmp_path: Path):
    """And free again when it is released."""
    first = ShardLock.take(tmp_path / "x.lock")
    assert ShardLock.take(tmp_path / "x.lock") is None
    first.release()
    again = ShardLock.take(tmp_path / "x.lock")
    assert again is not None
    again.release()


def test_what_reading_ahead_raises_is_raised_where_items_are_taken():
    """After the items that came before it; and an end is told as such."""

    def items():
        yield 1
        raise ValueError("broken")

    ahead = Prefetch(items())
    ahead.start()
    assert ahead.take(waits=True) == 1
    with pytest.raises(ValueError, match="broken"):
        ahead.take(waits=True)
    ahead.close()
    empty: Prefetch[int] = Prefetch(iter(()))
    empty.start()
    assert empty.take(waits=True) is Nothing.MORE
    empty.close()


def test_reading_ahead_is_bounded_and_stops_when_told():
    """A reader that nobody takes from holds `depth` items and one more, and leaves when it is closed."""
    taken = []

    def items():
        for number in range(1_000):
            taken.append(number)
            yield number

    ahead = Prefetch(items(), depth=2)
    ahead.start()
    assert ahead.take(waits=True) == 0
    ahead.close()
    assert len(taken) <= 4
