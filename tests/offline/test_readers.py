"""Files of every kind: what was surveyed is what is read, from any row on."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipeline.offline.inputs import expand
from pipeline.offline.plan import plan
from pipeline.offline.readers import lines, open_reader
from pipeline.offline.readers.shapes import JSON_TEXT, join, shape_of
from pipeline.offline.refusals import JobRefused
from pipeline.offline.windows import ShardReader
from tests.offline.conftest import make_spec

ANYWHERE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def read_all(path: Path) -> list[dict[str, Any]]:
    """Every row of a file, group by group."""
    source = expand([str(path)])[0]
    survey = open_reader(source).survey()
    reader = open_reader(source, survey.groups)
    rows = []
    for number, group in enumerate(survey.groups):
        for piece in reader.read(number, 0, group.rows, survey.schema, survey.schema.names):
            rows += piece.batch.to_pylist()
    reader.close()
    return rows


@ANYWHERE
@given(rows=st.lists(st.fixed_dictionaries({"n": st.none() | st.integers(-9, 9), "text": st.none() | WORDS}), min_size=1, max_size=30))
def test_json_lines_come_back_as_they_were(tmp_path: Path, rows: list[dict]):
    """Any text, with line ends inside strings, empty lines between."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert read_all(path) == rows


@ANYWHERE
@given(rows=st.lists(st.tuples(WORDS, WORDS).filter(any), min_size=1, max_size=30), ends=st.sampled_from(["\n", "\r\n"]), groups=st.integers(1, 9))
def test_csv_records_come_back_as_they_were(tmp_path: Path, rows: list[tuple], ends: str, groups: int):
    """Quotes, commas and line ends within fields, in groups that begin at any byte."""
    path, buffer = tmp_path / "rows.csv", io.StringIO(newline="")
    csv.writer(buffer, lineterminator=ends, quoting=csv.QUOTE_ALL).writerows([("a", "b"), ("x", "y"), *rows])
    path.write_bytes(b"\xef\xbb\xbf" + buffer.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "GROUP_ROWS", groups)
        assert [(row["a"], row["b"]) for row in read_all(path)] == [("x", "y"), *rows]


def test_csv_numbers_are_numbers_only_where_nothing_is_lost(tmp_path: Path):
    """Leading zeros and trailing ones are text; an empty field among numbers is null."""
    path = tmp_path / "rows.csv"
    path.write_text("id,zip,price,share,text\n1,007,1.50,0.5,a\n,100,2.0,,\n")
    assert read_all(path) == [
        {"id": 1, "zip": "007", "price": "1.50", "share": 0.5, "text": "a"},
        {"id": None, "zip": "100", "price": "2.0", "share": None, "text": ""},
    ]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"text": ', "invalid_json"),
        ("[1]", "invalid_json"),
        ('{"text": NaN}', "invalid_json"),
        ('{"text": "\\ud800"}', "invalid_json"),
        ("[" * 100_000, "invalid_json"),
    ],
)
def test_a_bad_json_line_is_a_row_with_a_fault(tmp_path: Path, out: Path, line: str, code: str):
    """It is counted as a row, so that every row is in data or errors."""
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "a"}}\n{line}\n{{"text": "b"}}\n')
    job = plan(make_spec(), [str(path)], out)
    pieces = list(ShardReader(job).pieces(job.plan.shards[0], frozenset({"text"})))
    assert [row["text"] for piece in pieces for row in piece.batch.to_pylist()] == ["a", None, "b"]
    assert {place: fault.code for place, fault in pieces[0].faults.items()} == {1: code}


def test_a_csv_row_of_another_width_is_a_row_with_a_fault(tmp_path: Path, out: Path):
    """As is one in another encoding, or with quotes astray."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,n\na,1\nb\n\xff,2\n"x"y,3\nc,4\n')
    job = plan(make_spec(), [str(path)], out)
    pieces = list(ShardReader(job).pieces(job.plan.shards[0], frozenset({"text"})))
    assert [row["text"] for piece in pieces for row in piece.batch.to_pylist()] == ["a", None, None, None, "c"]
    assert sorted(pieces[0].faults) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream", "jsonl", "csv"])
@pytest.mark.parametrize("shard_rows", [1, 7, 100])
def test_every_kind_of_file_is_read_from_any_row_on(tmp_path: Path, out: Path, kind: str, shard_rows: int, monkeypatch: pytest.MonkeyPatch):
    """Shards begin in the middle of row groups, and go over their ends."""
    monkeypatch.setattr(lines, "GROUP_ROWS", 10)
    table = pa.table({"id": range(33), "text": [f"row {number}" for number in range(33)]})
    path = tmp_path / f"rows.{'arrow' if kind == 'stream' else kind}"
    match kind:
        case "parquet":
            parquet.write_table(table, path, row_group_size=10)
        case "arrow" | "stream":
            make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
            with make(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=10)
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        case "csv":
            path.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in table.to_pylist()))
    job = plan(make_spec(), [str(path)], out, shard_rows)
    reader = ShardReader(job)
    for order in (job.plan.shards, job.plan.shards[::-1]):
        found = {s.number: [row for piece in reader.pieces(s, frozenset({"id", "text"})) for row in piece.batch.to_pylist()] for s in order}
        assert [row for number in sorted(found) for row in found[number]] == table.to_pylist()
    reader.close()


def test_dictionaries_become_what_they_stand_for(tmp_path: Path, out: Path):
    """Every file has its own; results have none."""
    table = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    with pa.ipc.new_file(str(tmp_path / "in.arrow"), table.schema) as writer:
        writer.write_table(table)
    job = plan(make_spec(), [str(tmp_path / "in.arrow")], out)
    assert job.schema.field("text").type == pa.utf8()
    assert [row["text"] for piece in ShardReader(job).pieces(job.plan.shards[0], frozenset({"text"})) for row in piece.batch.to_pylist()] == [
        "a",
        "b",
        "a",
    ]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1\0\0", b"\xff" * 500])
def test_unsound_files_are_refused_by_name(tmp_path: Path, out: Path, name: str, content: bytes):
    """What is not what its ending says never gets as far as a row."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(JobRefused, match=r"rows.*not a sound"):
        plan(make_spec(), [str(tmp_path / name)], out)


def test_wide_rows_come_in_small_pieces(tmp_path: Path):
    """Of a row group that holds much, little is there at a time, also where a dictionary makes it look small."""
    table = pa.table({"text": ["a"] * 64, "wide": ["x" * 500_000] * 64})
    parquet.write_table(table, tmp_path / "in.parquet")
    reader = open_reader(expand([str(tmp_path / "in.parquet")])[0])
    sizes = [piece.batch.nbytes for piece in reader.read(0, 0, 64, None, ["text", "wide"])]
    assert max(sizes) <= 5 * 1024 * 1024
    assert len(sizes) > 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(one=JSON, two=JSON, three=JSON)
def test_shapes_join_in_any_order(one: Any, two: Any, three: Any):
    """What columns become does not depend on which row comes first."""
    a, b, c = map(shape_of, (one, two, three))
    assert join(a, a) == a
    assert join(a, JSON_TEXT) == JSON_TEXT
    assert {f.name for f in join(join(a, b), c)} == {f.name for f in join(a, join(b, c))} if pa.types.is_struct(join(join(a, b), c)) else True
    assert (join(join(a, b), c) == JSON_TEXT) == (join(a, join(b, c)) == JSON_TEXT)
