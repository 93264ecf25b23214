"""Jobs from plan to manifest, and all that may come between."""

import errno
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.offline import files, shard, writers
from pipeline.offline.finalising import finalise
from pipeline.offline.flags import lower_pause, raise_flag, watch
from pipeline.offline.ledger import Ledger
from pipeline.offline.plan import Job, plan
from pipeline.offline.refusals import JobBusy, JobRefused
from pipeline.offline.scoring import Halt
from pipeline.offline.windows import ShardReader
from schemas.job import PromptSpec, SamplingSpec
from schemas.outcome import JobState
from tests.offline.conftest import ROWS, SHARD_ROWS, Death, Script, make_spec, outcome, run, texts


def test_every_row_is_answered_once_and_in_the_order_of_the_input(job: Job):
    """Whatever order the engine answers in, results lie as the rows did."""
    scorer = Script()
    assert run(job, scorer) is None
    manifest = finalise(job)
    rows = outcome(job.folder.path.glob("data-*"))
    assert [row["id"] for row in rows] == list(range(ROWS))
    assert [row["output"] for row in rows] == [text.upper() for text in texts()]
    assert sorted(scorer.seen) == sorted(texts())
    assert (manifest.state, manifest.data_rows, manifest.error_rows, manifest.shards) == (JobState.COMPLETED, ROWS, 0, 4)
    assert manifest.usage.prompt_tokens == sum(map(len, texts()))


def test_the_longest_rows_of_a_window_run_first(job: Job):
    """Sorted by length, a window has no long tail."""
    scorer = Script(depth=1)
    assert run(job, scorer, stop_after(6)) is Halt.STOPPED
    lengths = [len(text) for text in scorer.submitted[:SHARD_ROWS]]
    assert lengths == sorted((len(text) for text in texts()[:SHARD_ROWS]), reverse=True)


def test_bad_rows_are_errors_beside_the_data(tmp_path: Path, out: Path):
    """A null and an empty prompt cost their rows and nothing else; the input's columns go along."""
    parquet.write_table(pa.table({"id": range(5), "text": ["a", None, "c", "", "e"]}), tmp_path / "in.parquet")
    job = plan(make_spec(), [str(tmp_path / "in.parquet")], out)
    run(job, Script())
    manifest = finalise(job)
    assert [row["id"] for row in outcome(out.glob("data-*"))] == [0, 2, 4]
    errors = outcome(out.glob("errors-*"))
    assert [(row["id"], row["error_code"]) for row in errors] == [(1, "invalid_request"), (3, "invalid_request")]
    assert set(errors[0]) == {"id", "text", "error_code", "error_message"}
    assert manifest.error_codes == {"invalid_request": 2}


def test_rows_that_ask_the_same_are_computed_once(tmp_path: Path, out: Path):
    """With greedy decoding the answer is the same, so one row asks for all."""
    parquet.write_table(pa.table({"text": ["a", "b", "a", "a", "b"]}), tmp_path / "in.parquet")
    job, scorer = plan(make_spec(), [str(tmp_path / "in.parquet")], out), Script()
    run(job, scorer)
    manifest = finalise(job)
    assert sorted(scorer.seen) == ["a", "b"]
    assert [row["output"] for row in outcome(out.glob("data-*"))] == ["A", "B", "A", "A", "B"]
    assert manifest.usage.computed_rows == 2


def test_rows_that_draw_are_each_computed_with_their_own_seed(tmp_path: Path, out: Path):
    """Where tokens are drawn the same prompt may get another answer."""
    parquet.write_table(pa.table({"text": ["a", "a"]}), tmp_path / "in.parquet")
    job = plan(make_spec(sampling=SamplingSpec(temperature=1.0)), [str(tmp_path / "in.parquet")], out)
    seeds = []

    class Seeds(Script):
        def submit(self, asks):
            seeds.extend(ask.request.body.seed for _, ask in asks)
            super().submit(asks)

    run(job, Seeds())
    assert len(set(seeds)) == 2


def test_a_finished_job_computes_nothing_again(job: Job, dataset: Path, out: Path):
    """The same command on a finished job finds it finished."""
    run(job, Script())
    before = finalise(job)
    again = plan(make_spec(), [str(dataset)], out, SHARD_ROWS)
    scorer = Script()
    run(again, scorer)
    assert scorer.seen == []
    assert finalise(again) == before


def stop_after(polls: int):
    """Halts a job after so many looks."""
    looks = count()
    return lambda: Halt.STOPPED if next(looks) >= polls else None


def test_a_job_that_was_stopped_goes_on_and_asks_nothing_twice(job: Job):
    """What was answered stays answered, within a shard too; only what was in flight is asked again."""
    first, second = Script(), Script()
    assert run(job, first, stop_after(8)) is Halt.STOPPED
    assert first.seen
    assert run(job, second) is None
    finalise(job)
    assert sorted(first.seen + second.seen) == sorted(texts())
    assert [row["id"] for row in outcome(job.folder.path.glob("data-*"))] == list(range(ROWS))


def test_finished_shards_are_not_touched(job: Job):
    """A later attempt leaves the files of committed shards as they are."""
    assert run(job, Script(), stop_after(12)) is Halt.STOPPED
    done = {path: path.stat().st_mtime_ns for path in job.folder.path.glob("data-*")}
    assert done
    run(job, Script())
    finalise(job)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_a_row_that_kills_its_process_is_found_and_set_aside(job: Job):
    """Death after death the suspects are bisected, until the killer is alone; every other row has its answer."""
    killer = texts()[21]
    deaths = 0
    while deaths < 30:
        try:
            run(job, Script(deadly=frozenset({killer})))
            break
        except Death:
            deaths += 1
    finalise(job)
    errors = outcome(job.folder.path.glob("errors-*"))
    assert [(row["id"], row["error_code"]) for row in errors] == [(21, "engine_error")]
    assert [row["id"] for row in outcome(job.folder.path.glob("data-*"))] == [number for number in range(ROWS) if number != 21]
    assert 3 <= deaths <= 8


def test_two_killers_are_both_found(job: Job):
    """Each one is convicted by itself, in the same shard or not."""
    killers = {3, 5, 40}
    for _ in range(60):
        try:
            run(job, Script(deadly=frozenset(texts()[row] for row in killers)))
            break
        except Death:
            continue
    finalise(job)
    assert {row["id"] for row in outcome(job.folder.path.glob("errors-*"))} == killers


def test_kills_from_outside_convict_nobody(job: Job):
    """Whatever was in flight each time the process was killed, no row is blamed without dying alone again and again."""

    @dataclass
    class Killed(Script):
        polls: int = 4

        def poll(self):
            self.polls -= 1
            if self.polls < 0:
                raise Death
            return super().poll()

    for _ in range(3):
        with pytest.raises(Death):
            run(job, Killed())
    run(job, Script())
    assert finalise(job).error_rows == 0


def test_suspects_run_with_nothing_else_in_flight(job: Job):
    """Who was in flight at a death runs apart, so that the next death tells more."""
    with pytest.raises(Death):
        run(job, Script(deadly=frozenset({texts()[0]})))
    sizes = []

    class Watched(Script):
        def submit(self, asks):
            assert not (sizes and self.flying), "submitted beside suspects"
            sizes.append(len(asks))
            super().submit(asks)

    halted = run(job, Watched(depth=1), stop_after(2))
    assert halted is Halt.STOPPED
    assert len(sizes) == 1


def test_one_attempt_at_a_shard_at_a_time(job: Job):
    """A shard that somebody works on is passed over, and the job is not over without it."""
    lock = Ledger(job.folder).lock(1)
    run(job, Script())
    with pytest.raises(JobBusy, match="1 of 4 shards"):
        finalise(job)
    lock.release()
    run(job, Script())
    assert finalise(job).data_rows == ROWS


def test_a_commit_is_made_once(job: Job):
    """Of two that commit the same shard the later one changes nothing."""
    run(job, Script())
    first = job.folder.commit(0)
    assert Ledger(job.folder).commit(first.model_copy(update={"rows": 1})) is False
    assert job.folder.commit(0) == first


def test_a_shard_with_rows_missing_is_not_committed(job: Job):
    """The rows that have answers are held against those that were planned."""
    run_ = shard.ShardRun.open(job, job.plan.shards[0])
    run_.journal.finish([])
    with pytest.raises(RuntimeError, match="of 16 rows 0 have answers"):
        run_.commit(ShardReader(job), "float32")
    assert not Ledger(job.folder).is_committed(0)
    assert list(job.folder.path.glob("data-*")) == []


def test_orphans_go_when_the_job_ends(job: Job):
    """Files that no commit names are removed; other people's files stay."""
    orphan, foreign = job.folder.path / "data-0000000-0123456789abcdef.parquet", job.folder.path / "notes.txt"
    run(job, Script())
    orphan.write_bytes(b"half")
    foreign.write_text("mine")
    (job.folder.path / f"data-0000001.abc{files.TEMPORARY}").write_bytes(b"half")
    finalise(job)
    assert not orphan.exists()
    assert foreign.exists()
    assert list(job.folder.path.glob(f"*{files.TEMPORARY}")) == []
    assert not job.folder.journal.exists()
    assert finalise(job).data_rows == ROWS


def test_a_result_that_is_gone_is_noticed(job: Job):
    """A manifest never names a file that is not there."""
    run(job, Script())
    next(job.folder.path.glob("data-0000002-*")).unlink()
    with pytest.raises(JobRefused, match=r"data-0000002-.*restore it"):
        finalise(job)


def test_a_full_disk_costs_nothing_but_time(job: Job, monkeypatch: pytest.MonkeyPatch):
    """The job ends with the disk's error, leaves nothing half written, blames no row, and goes on when there is room."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writers.ParquetSink, "write", full)
        with pytest.raises(OSError, match="No space"):
            run(job, Script())
    assert list(job.folder.path.glob("data-*")) == []
    run(job, Script())
    assert finalise(job).data_rows == ROWS


def test_a_pause_lets_what_runs_end_and_begins_nothing(job: Job):
    """A paused job goes on where it stood."""
    raise_flag(job.folder, Halt.PAUSED)
    scorer = Script()
    assert run(job, scorer, watch(job.folder)) is Halt.PAUSED
    assert scorer.flying == []
    lower_pause(job.folder)
    assert run(job, Script(), watch(job.folder)) is None


def test_a_cancelled_job_keeps_what_is_done(job: Job):
    """Its manifest says how far it came."""
    assert run(job, Script(), stop_after(12)) is Halt.STOPPED
    raise_flag(job.folder, Halt.CANCELLED)
    assert run(job, Script(), watch(job.folder)) is Halt.CANCELLED
    manifest = finalise(job, JobState.CANCELLED)
    assert manifest.state is JobState.CANCELLED
    assert 0 < manifest.data_rows < manifest.planned_rows == ROWS


def test_an_input_that_changes_while_it_is_read_ends_the_job(job: Job, dataset: Path):
    """A file is held against the plan whenever it is opened."""
    parquet.write_table(pa.table({"id": range(ROWS), "text": texts()[::-1]}), dataset, row_group_size=25)
    with pytest.raises(JobRefused, match="has changed since the job was planned"):
        run(job, Script())


def test_a_task_without_generation_takes_the_same_way(tmp_path: Path, out: Path):
    """An embedding's column has its width in its type."""
    parquet.write_table(pa.table({"text": ["a", "b", None]}), tmp_path / "in.parquet")
    job = plan(make_spec(task="embed", prompt=PromptSpec(column="text")), [str(tmp_path / "in.parquet")], out)

    class Vectors(Script):
        def poll(self):
            from pipeline.offline.answer import Answer
            from pipeline.offline.scorer import Scored

            done, self.flying = self.flying, []
            return [Scored(ticket, Answer(row=ask.row, values={"embedding": [1.0, 2.0, 3.0]}, prompt_tokens=1)) for ticket, ask in done]

    run(job, Vectors())
    finalise(job)
    table = parquet.read_table(next(out.glob("data-*")))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert table.num_rows == 2
