"""Batches of somebody else's cluster, called as its engines call."""

import pickle

import pyarrow as pa
import pytest

from pipeline.engine.fake import FakeEngine
from pipeline.offline.flight.mapping import FlightMapper
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
