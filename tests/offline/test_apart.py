"""A job whose results lie among its inputs: they are never taken for inputs, however an input leads to them."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.offline.apart import OwnFiles
from pipeline.offline.finalising import finalise
from pipeline.offline.folder import Folder
from pipeline.offline.inputs import expand
from pipeline.offline.plan import plan, preview
from pipeline.offline.refusals import JobRefused
from pipeline.offline.scoring import Halt
from tests.offline.conftest import ROWS, SHARD_ROWS, Script, make_spec, outcome, run, texts

HALF = ROWS // 2


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A partitioned folder, a link to it, and the folder above as the one that is worked in."""
    folder = tmp_path / "data"
    for day, rows in ((1, slice(0, HALF)), (2, slice(HALF, ROWS))):
        path = folder / f"day={day}" / "rows.parquet"
        path.parent.mkdir(parents=True)
        parquet.write_table(pa.table({"id": range(ROWS)[rows], "text": texts()[rows]}), path)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


def stop_after(looks: int) -> Callable[[], Halt | None]:
    """A wish to stop, uttered after so many looks."""
    looks_left = iter(range(looks))
    return lambda: Halt.STOPPED if next(looks_left, None) is None else None


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("data", "data/out"),
        ("{}/data", "data/out"),
        ("data", "elsewhere/../data/out"),
        ("link", "data/out"),
        ("data", "link/out"),
        ("data/**/*", "data/out"),
        ("data/*/*.parquet", "data/out"),
        ("file://{}/data", "data/out"),
        ("file://{}/link/**/*", "data/out"),
        ("data", "data/day=3"),
        ("data", "data/day=2/out"),
    ],
)
def test_results_in_a_folder_among_the_inputs_are_no_inputs(data: Path, text: str, out: str):
    """On the first run, on one that goes on with half of it, and on one that finds all done."""
    inputs, folder = [text.format(data.parent)], Path(out)
    first = plan(make_spec(), inputs, folder, SHARD_ROWS)
    assert len(first.plan.files) == 2
    assert run(first, Script(), stop_after(10)) is not None
    (folder / f"data-0000001.{'0' * 12}.tmp").write_text("half a file")
    preview(make_spec(), inputs, folder, SHARD_ROWS)
    second = plan(make_spec(), inputs, folder, SHARD_ROWS)
    run(second, Script())
    assert finalise(second).data_rows == ROWS
    third = plan(make_spec(), inputs, folder, SHARD_ROWS)
    assert third.plan == first.plan
    assert not any(third.commits_missing())
    assert [row["id"] for row in outcome(folder.glob("data-*"))] == list(range(ROWS))


@pytest.mark.parametrize("text", ["data", "data/**/*", "file://{}/data", "link"])
def test_results_in_a_store_among_the_inputs_are_no_inputs(data: Path, tmp_path: Path, text: str):
    """Whatever address leads there: they lie beside the job's claim."""
    inputs, store = [text.format(data.parent)], f"file://{data}/out"
    (data / "out").mkdir()
    first = plan(make_spec(), inputs, tmp_path / "work", SHARD_ROWS, store=store)
    run(first, Script())
    finalise(first)
    assert list((data / "out").glob("data-*"))
    again = plan(make_spec(), inputs, tmp_path / "work", SHARD_ROWS, store=store)
    assert again.plan == first.plan
    assert not any(again.commits_missing())


@pytest.mark.usefixtures("data")
def test_results_of_other_jobs_are_inputs_like_any_file():
    """They may be meant; where they come late the message names the file and the ways out."""
    first = plan(make_spec(), ["data"], Path("data/out"), SHARD_ROWS)
    other = plan(make_spec(), ["data/day=1"], Path("data/other"), SHARD_ROWS)
    run(other, Script())
    with pytest.raises(JobRefused, match=r"data/other/data-\S+ was not among the inputs .*: move it away, or name another folder"):
        plan(make_spec(), ["data"], first.folder.path)
    assert len(expand(["data"], None, OwnFiles(other.folder))) == 2


@pytest.mark.usefixtures("data")
def test_a_file_in_the_output_that_is_not_the_jobs_is_refused():
    """It would be read on one run and lie beside results on the next: one line says what to do."""
    job = plan(make_spec(), ["data"], Path("data/out"))
    mine = job.folder.path / "more.parquet"
    mine.write_bytes(Path("data/day=1/rows.parquet").read_bytes())
    with pytest.raises(JobRefused, match=r"out holds the input \S+/more.parquet: name another folder for the results, or move the input"):
        plan(make_spec(), ["data"], Path("data/out"))
    mine.unlink()
    plan(make_spec(), ["data"], Path("data/out"))


@pytest.mark.usefixtures("data")
def test_inputs_that_are_nothing_but_the_output_are_refused():
    """The message does not claim that no file is there."""
    run(plan(make_spec(), ["data"], Path("data/out")), Script())
    for text in ("data/out", "data/out/*.parquet"):
        with pytest.raises(JobRefused, match="nothing is there but what lies in the job's own output: name other inputs, or another output"):
            plan(make_spec(), [text], Path("data/out"))


def test_every_file_that_a_job_makes_is_known_as_its_own(data: Path):
    """Whatever lies in its folder, at any time of its life, a flag too."""
    job = plan(make_spec(), ["data"], data / "out", SHARD_ROWS)
    seen: set[Path] = set()

    def look() -> Halt | None:
        seen.update(path for path in job.folder.path.rglob("*") if path.is_file())
        return None

    run(job, Script(), look)
    for name in Folder.FLAGS:
        (job.folder.path / name).touch()
    finalise(job)
    look()
    assert {path.suffix for path in seen} >= {".json", ".parquet", ".flight", ".answers", ".lock", ""}
    assert [path for path in seen if not job.folder.is_own(path)] == []
