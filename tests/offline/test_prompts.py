"""From rows to requests."""

import json

import pyarrow as pa
import pytest

from pipeline.offline.prompts import Asking, needed_columns, seed_of
from pipeline.offline.template import MAX_CHARACTERS, PromptTemplate
from pipeline.offline.windows import in_groups, in_order
from schemas.errors import InvalidRequest
from schemas.job import PromptSpec, SamplingSpec, Task
from tests.offline.conftest import make_spec

HERE = (0, 0, 0)


def ask(row: dict, **changes):
    """The request of a row."""
    return Asking(make_spec(**changes)).ask(0, HERE, row)


def test_a_template_sees_the_columns_and_the_row():
    """A column whose name is none for Jinja is reached through the row."""
    spec = make_spec(prompt=PromptSpec(template='{{ a }}-{{ row["my column"] }}'))
    assert needed_columns(spec, pa.schema([("a", pa.utf8()), ("my column", pa.utf8())])) == {"a", "my column"}
    assert Asking(spec).ask(0, HERE, {"a": "x", "my column": "y"}).request.body.prompt == "x-y"


@pytest.mark.parametrize(
    ("template", "row", "named"),
    [
        ("{{ a }}", {"a": None}, "null"),
        ("{{ a }}", {"a": ""}, "empty"),
        ("{{ a.b.c }}", {"a": {}}, "UndefinedError"),
        ("{{ a.__class__.__mro__ }}", {"a": "x"}, "SecurityError"),
        ("{{ a * 1000000000 }}", {"a": "x"}, "SecurityError"),
        ("{{ 9 ** 999999999 }}{{ a }}", {"a": "x"}, "SecurityError"),
        ("{{ '%999999999d' % 1 }}{{ a }}", {"a": "x"}, "SecurityError"),
        ("{% for i in range(99999) %}{{ a }}{% endfor %}", {"a": "x" * 100}, f"more than {MAX_CHARACTERS}"),
        ("{{ 1 // a }}", {"a": 0}, "ZeroDivisionError"),
    ],
)
def test_a_template_that_fails_on_a_row_costs_that_row(template: str, row: dict, named: str):
    """It is sandboxed and bounded, and the message holds nothing of the row."""
    with pytest.raises(InvalidRequest, match=named):
        ask(row, prompt=PromptSpec(template=template))


def test_a_null_may_be_asked_for():
    """Only showing one is a fault."""
    assert PromptTemplate("{% if a %}{{ a }}{% else %}none{% endif %}").render({"a": None}) == "none"


@pytest.mark.parametrize(("value", "prompt"), [("x", "x"), (3, "3"), (2.5, "2.5"), (True, "True")])
def test_a_column_of_numbers_is_spelt(value: object, prompt: str):
    """CSV may have made numbers of text."""
    assert ask({"text": value}).request.body.prompt == prompt


def test_messages_come_as_lists_or_as_json():
    """Nulls in them are fields that were left out."""
    spec = {"task": "chat", "prompt": PromptSpec(messages_column="m")}
    listed = ask({"m": [{"role": "user", "content": "hi", "name": None}]}, **spec).request.body
    spelt = ask({"m": '[{"role": "user", "content": "hi"}]'}, **spec).request.body
    assert listed == spelt
    for wrong in (None, "{", "[1]", [{"role": "user"}]):
        with pytest.raises(InvalidRequest):
            ask({"m": wrong}, **spec)


def test_a_chat_over_a_column_is_one_turn():
    """The column is what the user says."""
    body = ask({"text": "hi"}, task="chat").request.body
    assert [(message.role, message.text) for message in body.messages] == [("user", "hi")]


def test_a_rank_has_a_query_and_a_document():
    """One request per row."""
    body = ask({"text": "d", "query": "q"}, task=Task.RERANK).request.body
    assert (body.query, body.documents) == ("q", ("d",))


def batch_row(**changes) -> dict:
    """A row as a line of a Batch file gives it."""
    body = {"model": "m", "prompt": "a", "max_tokens": 3} | changes
    return {"custom_id": "c", "url": "/v1/completions", "body": json.dumps(body)}


def test_lines_of_a_batch_file_are_requests_as_they_are():
    """Their own parameters count."""
    body = ask(batch_row(stream=True, seed=5, stop="x"), prompt=PromptSpec()).request.body
    assert (body.max_tokens, body.seed, body.stop, body.stream) == (3, 5, ("x",), False)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (batch_row(model="other"), "unknown_model"),
        (batch_row(n=2), "invalid_request"),
        (batch_row(tools=[]), "unsupported_field"),
        (batch_row() | {"url": "/v1/embeddings"}, "invalid_request"),
        (batch_row() | {"body": "{"}, "invalid_json"),
        (batch_row() | {"body": None}, "invalid_request"),
    ],
)
def test_lines_that_do_not_fit_the_job_are_errors(row: dict, code: str):
    """Each with its own code."""
    with pytest.raises(InvalidRequest) as refused:
        ask(row, prompt=PromptSpec())
    assert refused.value.code == code


def test_a_rows_seed_is_its_own_and_stays():
    """It follows from the job and the row's place."""
    spec = make_spec(sampling=SamplingSpec(temperature=0.7))
    seeds = [Asking(spec).ask(0, (0, 0, row), {"text": "a"}).request.body.seed for row in (0, 1, 0)]
    assert seeds[0] == seeds[2] == seed_of(spec.fingerprint, HERE) != seeds[1]
    other = make_spec(sampling=SamplingSpec(temperature=0.7, seed=1))
    assert Asking(other).ask(0, HERE, {"text": "a"}).request.body.seed != seeds[0]


def test_prompts_that_begin_alike_stay_together():
    """The engine computes what they share once; all others go by length."""
    head = "h" * 300
    asks = [ask({"text": text}) for text in ("short", head + "1", "much longer text", head + "22")]
    assert [len(a.request.body.prompt) for a in in_order(asks, is_generation=True)] == [16, 5, 302, 301]
    assert [len(a.request.body.prompt) for a in in_order(asks, is_generation=False)] == [302, 301, 16, 5]


def test_groups_are_bounded_by_rows_and_by_text():
    """What is submitted at a time is neither many nor large."""
    assert [len(group) for group in in_groups([ask({"text": "a"})] * 130)] == [64, 64, 2]
    assert [len(group) for group in in_groups([ask({"text": "a" * 300_000})] * 3)] == [1, 1, 1]
