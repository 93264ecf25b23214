"""What results look like, in each format."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipeline.offline.finalising import finalise
from pipeline.offline.folder import Folder
from pipeline.offline.plan import plan
from pipeline.offline.refusals import JobRefused
from schemas.job import OutputFormat, PromptSpec
from tests.offline.conftest import Script, make_spec, run


def results(path: Path, out: Path, form: OutputFormat, **changes):
    """Runs a job and reads its data."""
    job = plan(make_spec(output_format=form, **changes), [str(path)], out)
    run(job, Script())
    finalise(job)
    (file,) = out.glob("data-*")
    match form:
        case OutputFormat.PARQUET:
            return parquet.read_table(file).to_pylist()
        case OutputFormat.ARROW:
            with pa.ipc.open_file(str(file)) as reader:
                return reader.read_all().to_pylist()
        case OutputFormat.JSONL:
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("form", OutputFormat)
def test_input_columns_pass_through_in_every_format(tmp_path: Path, out: Path, form: OutputFormat):
    """Lists and objects too; what has no common type is JSON text, and JSON again in JSON lines."""
    rows = [
        {"text": "a", "n": 1, "tags": ["x"], "who": {"name": "é", "age": 3}, "any": 1},
        {"text": "b", "n": 2, "tags": [], "who": {"name": None, "age": None}, "any": "two"},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = results(tmp_path / "in.jsonl", out, form)
    odd = [1, "two"] if form is OutputFormat.JSONL else ["1", '"two"']
    added = [{"output": text.upper(), "output_token_ids": [1], "finish_reason": "stop", "prompt_tokens": 1, "output_tokens": 1} for text in "ab"]
    assert found == [row | {"any": value} | more for row, value, more in zip(rows, odd, added, strict=True)]


def test_json_lines_spell_what_json_has_no_word_for(tmp_path: Path, out: Path):
    """Bytes are base64, times are ISO's, numbers that are none are null, decimals keep their digits."""
    row = {"text": "a", "raw": b"\0\1", "when": dt.date(2024, 1, 2), "price": Decimal("1.50"), "odd": float("nan")}
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "in.parquet")
    (found,) = results(tmp_path / "in.parquet", out, OutputFormat.JSONL)
    assert {name: found[name] for name in ("raw", "when", "price", "odd")} == {"raw": "AAE=", "when": "2024-01-02", "price": "1.50", "odd": None}


def test_names_of_folders_are_columns_of_the_results(tmp_path: Path, out: Path):
    """Each file has the values of its own folders."""
    for day, text in ((1, "a"), (2, "b")):
        folder = tmp_path / "in" / f"day={day}" / "lang=en"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"text": [text]}), folder / "x.parquet")
    found = results(tmp_path / "in", out, OutputFormat.PARQUET)
    assert [(row["text"], row["day"], row["lang"]) for row in found] == [("a", 1, "en"), ("b", 2, "en")]


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl"])
def test_a_template_without_columns_answers_every_row(tmp_path: Path, out: Path, name: str):
    """Rows count, whatever the prompt takes of them."""
    if name == "in.parquet":
        parquet.write_table(pa.table({"n": range(3)}), tmp_path / name)
    else:
        (tmp_path / name).write_text('{"n": 0}\n{"n": 1}\n{"n": 2}\n')
    found = results(tmp_path / name, out, OutputFormat.PARQUET, prompt=PromptSpec(template="hello"))
    assert [(row["n"], row["output"]) for row in found] == [(n, "HELLO") for n in range(3)]


def test_a_dropped_column_is_not_in_the_results(tmp_path: Path, out: Path):
    """It may be what the prompt is made of; one column has to stay."""
    parquet.write_table(pa.table({"n": [1], "text": ["a"]}), tmp_path / "in.parquet")
    (found,) = results(tmp_path / "in.parquet", out, OutputFormat.PARQUET, drop_columns=("text",))
    assert (found["n"], found["output"], "text" in found) == (1, "A", False)
    with pytest.raises(JobRefused, match="every column"):
        plan(make_spec(drop_columns=("text", "n")), [str(tmp_path / "in.parquet")], tmp_path / "other")


def test_a_column_that_parquet_cannot_hold_is_refused_first(tmp_path: Path, out: Path):
    """Not after an hour."""
    table = pa.table({"text": ["a"], "odd": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pa.ipc.new_file(str(tmp_path / "in.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(JobRefused, match="Parquet cannot hold"):
        plan(make_spec(), [str(tmp_path / "in.arrow")], out)


def test_planning_that_was_killed_is_done_again(tmp_path: Path, out: Path):
    """At any moment: with empty folders alone, or a specification without a plan."""
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "in.parquet")
    Folder(out).make()
    assert plan(make_spec(), [str(tmp_path / "in.parquet")], out).plan.rows == 1
    (out / "plan.json").unlink()
    assert plan(make_spec(), [str(tmp_path / "in.parquet")], out).plan.rows == 1
