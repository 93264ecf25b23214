"""Planning: which rows there are, what refuses, what has changed."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.offline.inputs import expand, glob_pattern
from pipeline.offline.plan import _cut, open_job, plan
from pipeline.offline.refusals import JobRefused
from schemas.job import InputFile, JobSpec, OutputFormat, PromptSpec, RowGroup, SamplingSpec, ShardPlan
from tests.offline.conftest import ROWS, SHARD_ROWS, make_spec, texts


def rows_of(job):
    """Identities of all planned rows."""
    return [identity for shard in job.plan.shards for identity in shard.identities()]


@given(counts=st.lists(st.lists(st.integers(0, 40), max_size=5), max_size=4), shard_rows=st.integers(1, 30))
def test_shards_hold_every_row_once_and_in_order(counts: list[list[int]], shard_rows: int):
    """For any files and row groups, empty ones too: all shards but the last are full."""
    files = [
        InputFile(uri="", format="csv", size_bytes=0, modified_ns=0, edges="", groups=tuple(RowGroup(rows=rows) for rows in groups))
        for groups in counts
    ]
    shards = [ShardPlan(number=0, slices=part, estimated_tokens=0) for part in _cut(files, shard_rows)]
    planned = [identity for shard in shards for identity in shard.identities()]
    wanted = [(file, group, row) for file, groups in enumerate(counts) for group, rows in enumerate(groups) for row in range(rows)]
    assert planned == wanted
    assert all(shard.rows == shard_rows for shard in shards[:-1])


def test_a_plan_is_made_once(dataset: Path, out: Path):
    """Who plans again, with another size of shards too, gets the plan that is there."""
    first = plan(make_spec(), [str(dataset)], out, SHARD_ROWS)
    again = plan(make_spec(), [str(dataset)], out, 7)
    assert again.plan == first.plan
    assert open_job(out).plan == first.plan
    assert len(rows_of(first)) == ROWS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": SamplingSpec(max_tokens=7)}, "sampling.max_tokens was 256 and is 7"),
        ({"prompt": PromptSpec(template="{{ text }}")}, "prompt.template was None"),
        ({"task": "score"}, "task was 'generate' and is 'score'"),
        ({"output_format": OutputFormat.JSONL}, "output_format was 'parquet' and is 'jsonl'"),
    ],
)
def test_another_specification_is_refused_by_name(dataset: Path, out: Path, change: dict, named: str):
    """A job never goes on as something else."""
    plan(make_spec(), [str(dataset)], out)
    with pytest.raises(JobRefused, match=named):
        plan(make_spec(**change), [str(dataset)], out)


def test_another_model_under_the_same_name_is_refused(dataset: Path, out: Path):
    """Weights that changed are another model; the same weights elsewhere are not."""
    spec = make_spec()
    plan(spec, [str(dataset)], out)
    moved = spec.model_copy(update={"model": spec.model.model_copy(update={"source": "elsewhere"})})
    plan(moved, [str(dataset)], out)
    with pytest.raises(JobRefused, match=r"model\.fingerprint"):
        plan(spec.model_copy(update={"model": spec.model.model_copy(update={"fingerprint": "g"})}), [str(dataset)], out)


def grow(path: Path) -> None:
    """Adds rows."""
    parquet.write_table(pa.table({"id": range(ROWS + 1), "text": texts(ROWS + 1)}), path)


def rewrite(path: Path) -> None:
    """Same bytes, later."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def forge(path: Path) -> None:
    """Other bytes of the same number at the same time."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "named"),
    [(grow, "bytes and has"), (rewrite, "it has been written since"), (forge, "its content is another"), (Path.unlink, "no such file")],
)
def test_a_changed_input_is_refused_and_the_change_is_named(dataset: Path, out: Path, change, named: str):
    """Rows are told by their places, so a file has to stay what it was."""
    plan(make_spec(), [str(dataset)], out)
    change(dataset)
    with pytest.raises(JobRefused, match=named):
        plan(make_spec(), [str(dataset)], out)


def test_a_file_more_or_less_is_refused(dataset: Path, out: Path):
    """A folder that got another file is another dataset."""
    plan(make_spec(), [str(dataset.parent)], out)
    more = dataset.with_name("more.parquet")
    more.write_bytes(dataset.read_bytes())
    with pytest.raises(JobRefused, match=r"more.parquet was not among the inputs"):
        plan(make_spec(), [str(dataset.parent)], out)
    dataset.unlink()
    with pytest.raises(JobRefused, match="no longer among the inputs"):
        plan(make_spec(), [str(dataset.parent)], out)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (make_spec(prompt=PromptSpec(column="txt")), "no column 'txt'; they have id, text"),
        (make_spec(prompt=PromptSpec(template="{{ a }} {{ text }}")), "no column 'a'"),
        (make_spec(prompt=PromptSpec(template="{{ text")), "template is not sound: line 1"),
        (make_spec(prompt=PromptSpec()), r"no column 'body'.*give --template"),
        (make_spec(drop_columns=("x",)), "no column 'x' to drop"),
    ],
)
def test_what_the_inputs_lack_is_named_before_anything_is_written(dataset: Path, out: Path, spec: JobSpec, named: str):
    """A job that cannot work leaves no folder."""
    with pytest.raises(JobRefused, match=named):
        plan(spec, [str(dataset)], out)
    assert not out.exists()


def test_a_column_that_results_need_is_refused_or_dropped(tmp_path: Path, out: Path):
    """Results never take an input column's place in silence."""
    parquet.write_table(pa.table({"text": ["a"], "output": ["b"]}), tmp_path / "in.parquet")
    with pytest.raises(JobRefused, match="--drop-column output"):
        plan(make_spec(), [str(tmp_path / "in.parquet")], out)
    job = plan(make_spec(drop_columns=("output",)), [str(tmp_path / "in.parquet")], out)
    assert job.passed_on.names == ["text"]


def test_results_never_go_where_the_inputs_lie(dataset: Path):
    """Not over an input, not into its folder, and not into a folder with other things."""
    for out in (dataset.parent, dataset):
        with pytest.raises(JobRefused, match="holds the input"):
            plan(make_spec(), [str(dataset)], out)
    other = dataset.parent.parent / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(JobRefused, match=r"holds notes\.txt and no job"):
        plan(make_spec(), [str(dataset)], other)


def test_results_never_go_through_a_link(dataset: Path, out: Path, tmp_path: Path):
    """A link in the job's folder could send them anywhere."""
    plan(make_spec(), [str(dataset)], out)
    (out / "journal").rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "journal").symlink_to(elsewhere)
    with pytest.raises(JobRefused, match="is a link"):
        plan(make_spec(), [str(dataset)], out)


def test_folders_globs_and_partitions(tmp_path: Path, out: Path):
    """A partitioned folder's names are columns; marks and logs are passed by; the order is that of paths."""
    for year in (2024, 2023):
        folder = tmp_path / "data" / f"year={year}"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"text": [f"of {year}"]}), folder / "part-0.parquet")
    (tmp_path / "data" / "_SUCCESS").write_text("")
    (tmp_path / "data" / ".hidden.parquet").write_text("")
    job = plan(make_spec(), [str(tmp_path / "data")], out)
    assert [Path(file.uri).parent.name for file in job.plan.files] == ["year=2023", "year=2024"]
    assert job.schema.field("year").type == pa.int64()
    assert len(expand([str(tmp_path / "data" / "**" / "*.parquet")])) == 3
    assert len(expand([str(tmp_path / "data" / "year=202[4]" / "*")])) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [("nothing.parquet", "no such file"), ("*.parquet", "matches no file"), ("readme.md", "its ending"), ("s3://me:secret@b/x.csv", "a password")],
)
def test_inputs_that_name_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, named: str):
    """The message says which, and never repeats a password."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "readme.md").write_text("")
    with pytest.raises(JobRefused, match=named) as refused:
        expand([text])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [("*.csv", "a.csv", "d/a.csv"), ("**/*.csv", "d/e/a.csv", "a.txt"), ("a?[!b].csv", "axc.csv", "axb.csv"), ("**/x", "x", "ax")],
)
def test_globs_are_those_of_shells(glob: str, yes: str, no: str):
    """A star does not go over a folder's end, two do."""
    assert glob_pattern(glob).fullmatch(yes)
    assert not glob_pattern(glob).fullmatch(no)


def test_files_with_other_columns_are_brought_together(tmp_path: Path, out: Path):
    """What a file lacks is null; narrower numbers become the wider ones."""
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"text": ["a"], "n": pa.array([1], pa.int32())}), tmp_path / "in" / "a.parquet")
    (tmp_path / "in" / "b.jsonl").write_text(json.dumps({"text": "b", "n": 2, "more": True}) + "\n")
    job = plan(make_spec(), [str(tmp_path / "in")], out)
    assert [(field.name, str(field.type)) for field in job.schema] == [("text", "string"), ("n", "int64"), ("more", "bool")]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.dictionaries(st.sampled_from(["max_tokens", "seed"]), st.integers(1, 99)))
def test_specifications_survive_being_written(values: dict[str, int]):
    """What is read is what was written, and two that are equal have the same fingerprint."""
    spec = make_spec(sampling=SamplingSpec(**values))
    read = JobSpec.model_validate_json(spec.to_bytes())
    assert (read, read.fingerprint) == (spec, spec.fingerprint)
    assert spec.changes_to(read) == []
