"""Results in a store: whose the place is, and what lies there when. A folder stands for the store, by the same library."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyarrow import parquet

from pipeline.offline import store
from pipeline.offline.confinement import Confinement
from pipeline.offline.finalising import finalise
from pipeline.offline.plan import Job, open_job, plan
from pipeline.offline.refusals import JobRefused, StoreAway
from pipeline.offline.store import Store
from schemas.outcome import Destination, JobState, Manifest, OutputFile
from tests.offline.conftest import ROWS, SHARD_ROWS, Script, make_spec, outcome, run


@pytest.fixture
def job(dataset: Path, out: Path, place: Path) -> Job:
    """A job whose folder is one place and whose results go to another."""
    return begin(dataset, out, place)


def begin(dataset: Path, out: Path, place: Path) -> Job:
    """Plans it, or finds it."""
    return plan(make_spec(), [str(dataset)], out, SHARD_ROWS, store=f"file://{place}")


def rival(place: Path, owner: str = "rival") -> Store:
    """Another job's store at the same place."""
    return Store(Destination(uri=f"file://{place}", owner=owner, fingerprint="f", host="h", folder="/else"))


def listed(path: Path, *beginnings: str) -> list[str]:
    """Names there that begin so."""
    return sorted(entry.name for entry in path.iterdir() if entry.name.startswith(beginnings))


def test_results_are_in_the_store_and_nowhere_else(job: Job, dataset: Path, out: Path, place: Path):
    """All rows once, in order; the manifest names the files; done again, it changes nothing."""
    run(job, Script())
    assert listed(place, "manifest") == []
    manifest = finalise(job)
    assert [row["id"] for row in outcome(place.glob("data-*"))] == list(range(ROWS))
    assert Manifest.model_validate_json((place / "manifest.json").read_bytes()) == manifest
    assert listed(place, "data-", "errors-") == [file.name for file in manifest.data]
    assert listed(out, "data-", "errors-") == []
    before = {path: path.read_bytes() for path in place.iterdir()}
    again, scorer = begin(dataset, out, place), Script()
    run(again, scorer)
    assert finalise(again) == manifest
    assert scorer.submitted == []
    assert {path: path.read_bytes() for path in place.iterdir()} == before


def test_what_is_committed_is_there(job: Job, place: Path):
    """Before the job has ended: readers of commits find the files."""
    seen = []

    class Watched(Script):
        def poll(self):
            seen.append([(file.name, (place / file.name).stat().st_size == file.size_bytes) for file in committed(job)])
            return super().poll()

    run(job, Watched())
    assert max(map(len, seen)) > 0
    assert all(is_there for files in seen for _, is_there in files)


def committed(job: Job):
    """Files of shards that are done."""
    return [file for shard in job.plan.shards if (commit := job.folder.commit(shard.number)) for file in commit.files]


@pytest.mark.parametrize("name", ["rows.parquet", "manifest.json", "data-0000000-00.parquet", "folder/rows.parquet"])
def test_a_place_that_holds_anything_else_is_refused(dataset: Path, out: Path, place: Path, name: str):
    """The message names what is there; nothing is written, and the job can go elsewhere or come again."""
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("theirs")
    seen, _, _ = name.partition("/")
    with pytest.raises(JobRefused, match=f"holds {seen} and no results of this job"):
        begin(dataset, out, place)
    assert listed(place, "") == [seen]
    (place / name).rename(place.parent / "aside")
    for folder in place.iterdir():
        folder.rmdir()
    run(begin(dataset, out, place), Script())


@pytest.mark.usefixtures("job")
def test_a_place_of_another_job_is_refused(dataset: Path, tmp_path: Path, place: Path):
    """Also the same job in another folder, which would compute all of it again."""
    with pytest.raises(JobRefused, match=r"another job's, as _owner-[0-9a-f]+\.json there tells"):
        begin(dataset, tmp_path / "other", place)
    assert listed(place, "") == listed(place, "_owner-")
    assert len(listed(place, "")) == 1


class Interrupted(Store):
    """Something happens right before it puts a file, and right after."""

    def __init__(self, place: Path, before: Callable[[], object] = lambda: None, after: Callable[[], object] = lambda: None):
        super().__init__(Destination(uri=f"file://{place}", owner="first", fingerprint="f", host="h", folder="/here"))
        self._before, self._after = before, after

    def _put(self, name, pieces):
        self._before()
        super()._put(name, pieces)
        self._after()


def refused(act: Callable[[], object]) -> None:
    """Expects it to find another job."""
    with pytest.raises(JobRefused, match="another job's"):
        act()


def test_of_two_jobs_that_find_a_place_free_the_first_to_claim_it_has_it(place: Path):
    """The other one sees that, whenever it comes, and takes its own claim back."""
    refused(Interrupted(place, before=rival(place).claim).claim)
    assert listed(place, "") == ["_owner-rival.json"]
    rival(place).claim()
    (place / "_owner-rival.json").unlink()
    Interrupted(place, after=lambda: refused(rival(place).claim)).claim()
    assert listed(place, "") == ["_owner-first.json"]


def test_what_crashed_attempts_left_goes_and_nothing_else_does(job: Job, place: Path, out: Path):
    """Files of results that the manifest does not name; a reader's own notes stay."""
    run(job, Script())
    for name in ("data-0000001-0123456789abcdef.parquet", "errors-0000000-0123456789abcdef.jsonl", "data-notes.txt", "_SUCCESS"):
        (place / name).write_text("left")
    (out / "data-0000001-0123456789abcdef.parquet").write_text("left")
    finalise(job)
    assert [path.name for path in place.iterdir() if path.read_bytes() == b"left"] in (["data-notes.txt", "_SUCCESS"], ["_SUCCESS", "data-notes.txt"])
    assert listed(out, "data-", "errors-") == []


def test_no_manifest_without_all_that_it_names(job: Job, place: Path, dataset: Path, out: Path):
    """The message names the file and the way out, which works."""
    run(job, Script())
    lost = next(place.glob("data-0000001-*"))
    lost.write_bytes(lost.read_bytes()[:-1])
    with pytest.raises(JobRefused, match=f"{lost.name} is committed and not there as it was written.*{out / 'commits'}"):
        finalise(job)
    assert not (place / "manifest.json").exists()
    job.folder.commit_file(1).unlink()
    again = begin(dataset, out, place)
    run(again, Script())
    assert finalise(again).data_rows == ROWS
    assert [row["id"] for row in outcome(place.glob("data-*"))] == list(range(ROWS))


def test_a_manifest_is_not_put_where_another_job_has_come(job: Job, place: Path):
    """Whoever removed this job's claim, the other one's results are not written over."""
    run(job, Script())
    (place / "_owner-rival.json").write_text("{}")
    with pytest.raises(JobRefused, match=r"another job's, as _owner-rival\.json"):
        finalise(job)
    assert not (place / "manifest.json").exists()


def test_a_store_that_goes_away_costs_no_answer(job: Job, dataset: Path, out: Path, place: Path):
    """What was computed is kept, and put there when the store is back; an end that could not be told of is told again."""
    place.rename(place.with_name("away"))
    scorer = Script()
    with pytest.raises(StoreAway, match=f"file://{place}: ") as away:
        run(job, scorer)
    assert "\n" not in str(away.value)
    assert listed(out / "commits", "") == []
    place.with_name("away").rename(place)
    again, second = begin(dataset, out, place), Script()
    run(again, second)
    assert not set(scorer.seen) & set(second.submitted)
    assert sorted(scorer.seen + second.seen) == sorted(row["text"] for row in outcome(place.glob("data-*")))
    place.rename(place.with_name("away"))
    place.write_text("no folder can be listed here")
    with pytest.raises(StoreAway):
        finalise(again)
    place.unlink()
    place.with_name("away").rename(place)
    assert finalise(again).data_rows == ROWS


def test_a_file_is_handed_over_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The next one is read when the store has taken the last: clients that send in the background would hold all of a large file."""
    monkeypatch.setattr(store, "PIECE_BYTES", 4)
    steps: list[bytes | str] = []

    class Sink:
        write, flush = staticmethod(steps.append), staticmethod(lambda: steps.append("taken"))

    class Recorded(Store):
        _place = (SimpleNamespace(open_output_stream=lambda name, **_: nullcontext(steps.append(name) or Sink)), "bucket/out")

    (tmp_path / "data-0.parquet").write_bytes(b"0123456789")
    file = OutputFile(name="data-0.parquet", rows=1, size_bytes=10, sha256="")
    Recorded(rival(tmp_path)._destination).take(tmp_path, [file])
    assert steps == ["bucket/out/data-0.parquet", b"0123", "taken", b"4567", "taken", b"89", "taken"]
    assert listed(tmp_path, "") == []


def test_a_cancelled_job_leaves_what_is_done(job: Job, place: Path):
    """With a manifest that says so."""
    for shard in list(job.plan.shards)[1:]:
        job.folder.commit_file(shard.number).touch()
    run(job, Script())
    for shard in list(job.plan.shards)[1:]:
        job.folder.commit_file(shard.number).unlink()
    finalise(job, JobState.CANCELLED)
    told = Manifest.model_validate_json((place / "manifest.json").read_bytes())
    assert (told.state, told.data_rows) == (JobState.CANCELLED, SHARD_ROWS)
    assert [parquet.read_metadata(place / file.name).num_rows for file in told.data] == [SHARD_ROWS]


@pytest.mark.usefixtures("job")
def test_a_job_is_found_with_its_place_alone(out: Path, dataset: Path, place: Path):
    """Nobody takes results of a store for those of a folder, or has them go to another place."""
    assert open_job(out, store=f"file://{place}").output == f"file://{place}"
    for other in (None, "s3://elsewhere"):
        with pytest.raises(JobRefused, match="go elsewhere"):
            open_job(out, store=other)
    with pytest.raises(JobRefused, match=r"jobs\.output_stores"):
        open_job(out, Confinement((out,), (), ("s3://ours",)), f"file://{place}")
    with pytest.raises(JobRefused, match=r"jobs\.output_stores"):
        plan(make_spec(), [str(dataset)], out, within=Confinement((dataset.parent, out), ()), store=f"file://{place}")


def test_an_address_that_no_store_answers_to_is_refused(dataset: Path, out: Path):
    """In one line, before anything is computed."""
    with pytest.raises(JobRefused, match="nostore://bucket: "):
        plan(make_spec(), [str(dataset)], out, store="nostore://bucket")
