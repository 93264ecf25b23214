"""Batches of somebody else's cluster, called as its engines call."""

import pickle

import pyarrow as pa
import pytest

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.mapping import FlightMapper
from pipeline.offline.flight.stream import ROW_BYTES
from pipeline.offline.refusals import JobRefused


def mapper(one, **changes) -> FlightMapper:
    """A mapper as a user makes it."""
    options = {"column": "text", "model": "m", "worker": one.door.uri, "max_tokens": 5, "temperature": 0, "ignore_eos": True}
    return FlightMapper("generate", **options | changes)


def test_batches_keep_their_rows_and_gain_columns(house):
    """An iterator of record batches in, as Spark gives them; the same rows in the same order out, more than are in flight at a time."""
    one = house(FakeEngine("m"))
    texts = [None if number == 3 else f"row {number}" for number in range(150)]
    batches = pa.table({"id": range(150), "text": texts}).to_batches(max_chunksize=60)
    own = mapper(one)
    done = list(own.map(iter(batches)))
    own.close()
    assert [type(batch) for batch in done] == [pa.RecordBatch] * 3
    rows = pa.Table.from_batches(done).to_pylist()
    assert [(row["id"], row["text"]) for row in rows] == list(enumerate(texts))
    assert [row["id"] for row in rows if row["error_code"] is not None] == [3]
    assert all(row["output_tokens"] == len(row["output_token_ids"]) == 5 for row in rows if row["id"] != 3)
    assert rows[3]["output"] is None


def test_a_mapper_travels_to_another_process_without_its_connection(house):
    """Pickled after its first batch, it makes a new one; a table comes back as a table."""
    one = house(FakeEngine("m"))
    table = pa.table({"text": ["a", "b"]})
    own = mapper(one)
    first = own(table)
    other = pickle.loads(pickle.dumps(own))
    assert other(table).equals(first)
    assert isinstance(first, pa.Table)
    own.close()
    other.close()


def test_texts_become_chats_and_messages_stay_what_they_are(house):
    """Both forms of a chat ask the same."""
    one = house(FakeEngine("m"))
    plain, listed = ["hello"], [[{"role": "user", "content": "hello"}]]
    answers = []
    for column in (plain, listed):
        own = FlightMapper("chat", column="text", model="m", worker=one.door.uri, max_tokens=5)
        answers.append(own(pa.record_batch({"text": column})).column("output").to_pylist())
        own.close()
    assert answers[0] == answers[1]


def test_a_worker_without_the_model_is_refused(house):
    """At the first batch, by name."""
    with pytest.raises(JobRefused, match="no model 'other'"):
        mapper(house(), model="other")(pa.table({"text": ["a"]}))


def test_a_row_without_a_text_that_a_model_takes_is_an_error_row_in_its_place(house):
    """Null, empty, too long for the model, too long for the door, as in a job's error rows; the neighbours are answered as they would be alone."""
    one = house(FakeEngine("m", context_tokens=32))
    own = mapper(one)
    texts = ["a", None, "b", "", "c", "word " * 40, "d", "x" * ROW_BYTES, "e"]
    rows = own(pa.table({"text": texts})).to_pylist()
    alone = own(pa.table({"text": texts[::2]})).to_pylist()
    own.close()
    assert rows[::2] == alone
    assert [row["error_code"] for row in alone] == [None] * len(alone)
    assert [row["error_code"] for row in rows[1::2]] == ["invalid_request", "invalid_request", "prompt_too_long", "record_too_large"]
    assert [row["text"] for row in rows] == texts
    for row in rows[1::2]:
        assert row["error_message"]
        assert {name for name, value in row.items() if value is not None} <= {"text", "error_code", "error_message"}


@pytest.mark.parametrize(
    ("column", "named"),
    [
        ([["token", "ids"]], "holds no text"),
        ([{"a": 1}], "holds no text"),
        ([b"text"], "holds no text"),
    ],
)
def test_a_column_of_something_else_is_no_prompt(house, column: list, named: str):
    """Each row says so; nothing of it is in the message."""
    own = mapper(house(FakeEngine("m")))
    (row,) = own(pa.table({"text": column})).to_pylist()
    own.close()
    assert row["error_code"] == "invalid_request"
    assert named in row["error_message"]


@pytest.mark.parametrize(
    ("options", "columns", "named"),
    [
        ({}, {"id": [1]}, "need one column 'text'; they have id"),
        ({"task": "rerank"}, {"text": ["a"]}, "need one column 'query'"),
        ({}, {"text": ["a"], "output": ["mine"]}, "have a column 'output'"),
        ({}, {"text": ["a"], "error_code": [None]}, "have a column 'error_code'"),
        ({"task": "embed"}, {"text": ["a"], "embedding": [[1.0]]}, "have a column 'embedding'"),
        ({"column": "output"}, {"output": ["a"]}, "have a column 'output'"),
    ],
)
def test_columns_that_do_not_fit_are_refused_before_a_worker_is_asked(options: dict, columns: dict, named: str):
    """One that is missing, or that a result would hide; there is no worker here to ask."""
    own = FlightMapper(**{"task": "generate", "column": "text", "model": "m", "worker": "unix:///nowhere", "patience_s": 0.0} | options)
    with pytest.raises(JobRefused, match=named):
        own(pa.table(columns))


def test_a_column_that_is_there_twice_is_refused():
    """Nobody knows which of them is meant."""
    own = FlightMapper("generate", column="text", model="m", worker="unix:///nowhere", patience_s=0.0)
    with pytest.raises(JobRefused, match="need one column 'text'; they have text, text"):
        own(pa.table([["a"], ["b"]], names=["text", "text"]))


def test_messages_may_leave_fields_out(house):
    """Where one row's message has a name, Arrow gives all others a null one."""
    own = FlightMapper("chat", column="text", model="m", worker=house(FakeEngine("m")).door.uri, max_tokens=5)
    named, plain, empty = own(
        pa.table({"text": [[{"role": "user", "content": "hi", "name": "Ann"}], [{"role": "user", "content": "hi"}], None]})
    ).to_pylist()
    own.close()
    assert named["error_code"] is plain["error_code"] is None
    assert named["output"] == plain["output"]
    assert "null" in empty["error_message"]
