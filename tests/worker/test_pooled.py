"""Requests that are answered with numbers, through the worker's loop on the embedded log."""

import json

import numpy as np
import pytest
import torch

from pipeline.engine.pooling.engine import PoolingEngine
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import ask, pooling_engine, tiny_encoder, word_pieces
from tests.engine.serving import request

POISON = 99


@pytest.fixture
def engine() -> PoolingEngine:
    """A tiny encoder that fails on one token."""
    torch.set_num_threads(1)
    engine = pooling_engine(tiny_encoder("bert"), word_pieces())

    def poisoned(_module, _args, kwargs):
        if (kwargs["input_ids"] == POISON).any():
            raise RuntimeError("poisoned")

    engine._runner._network.register_forward_pre_hook(poisoned, with_kwargs=True)
    return engine


def publish(worker, custom_id: str, url: str = "/v1/embeddings", **body) -> None:
    """Publishes a request to the encoder; these have no `stream`."""
    value = {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "tiny", **body}}
    worker.publish_value(json.dumps(value).encode(), custom_id)


def test_embeddings_are_one_line_and_then_the_offset_is_done(bench, engine):
    """Status 200, OpenAI's list, usage, an id of its own; committed once acknowledged."""
    worker = bench(engine)
    texts = ["water", "the wheel", "corn"]
    publish(worker, "a", input=texts)
    worker.run_until(lambda: "a" in worker.results())
    line = worker.results()["a"]
    assert (line["error"], line["response"]["status_code"]) == (None, 200)
    assert line["response"]["request_id"].startswith("embd-")
    body = line["response"]["body"]
    (expected,) = ask(engine, request(Endpoint.EMBEDDINGS, input=texts))
    np.testing.assert_allclose([entry["embedding"] for entry in body["data"]], expected.rows, atol=1e-5)
    tokens = sum(len(word_pieces()(text)["input_ids"]) for text in texts)
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    worker.run_until(lambda: worker.lag() == 0)


def test_scores_and_ranks_come_back_as_lines(bench, engine):
    """Each endpoint under its own kind of id."""
    worker = bench(engine)
    publish(worker, "s", url="/v1/score", text_1="water", text_2=["water", "corn"])
    publish(worker, "r", url="/v1/rerank", query="water", documents=["corn", "water"], top_n=1)
    worker.run_until(lambda: {"s", "r"} <= worker.results().keys())
    score, rank = (worker.results()[name]["response"]["body"] for name in ("s", "r"))
    assert score["id"].startswith("score-")
    assert score["data"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert rank["id"].startswith("rerank-")
    assert [(result["index"], result["document"]) for result in rank["results"]] == [(1, {"text": "water"})]


def test_a_request_that_fails_in_the_engine_is_tried_again_and_then_given_up(bench, engine):
    """As often as the settings say; the requester and the dead letters hear of it, and the neighbours are answered."""
    worker = bench(engine)
    publish(worker, "bad", input=[[5], [POISON]])
    publish(worker, "good", input=[[5], [6]])
    worker.run_until(lambda: {"bad", "good"} <= worker.results().keys())
    results = worker.results()
    assert results["bad"]["error"]["code"] == "engine_error"
    assert results["good"]["response"]["status_code"] == 200
    worker.run_until(lambda: len(worker.dead_letters()) == 1 and worker.lag() == 0)
    assert dict(worker.dead_letters()[0].headers)["penstock_attempts"] == b"2"


def test_refusals_name_the_code(bench, engine):
    """What the model does not serve, what is too long, what is no token; as lines, since nothing here is a stream."""
    worker = bench(engine)
    publish(worker, "long", input="water " * 100)
    publish(worker, "token", input=[100_000])
    publish(worker, "kind", url="/v1/classify", input="water")
    publish(worker, "empty", input=[])
    publish(worker, "wide", input="water", dimensions=64)
    codes = {"long": "prompt_too_long", "token": "invalid_token", "kind": "invalid_request", "empty": "invalid_request", "wide": "invalid_request"}
    worker.run_until(lambda: codes.keys() <= worker.results().keys())
    assert {name: line["error"]["code"] for name, line in worker.results().items()} == codes


def test_a_cancel_ends_a_request_half_done(bench, engine):
    """Between two of its steps: the requester hears `cancelled`, nothing of it runs on."""
    worker = bench(engine)
    publish(worker, "a", input=[[5] * 30] * 500)
    worker.run_until(lambda: engine.stats().running == 1)
    worker.cancel("a")
    worker.run_until(lambda: "a" in worker.results())
    assert worker.results()["a"]["error"]["code"] == "cancelled"
    assert not engine.has_work()


def test_an_embedding_is_given_again_where_answers_are_kept(bench, engine):
    """The same vector, and a usage that says so; another encoding is another answer."""
    worker = bench(engine, response_cache={"enabled": True})
    for name, encoding in (("a", "float"), ("b", "float"), ("c", "base64")):
        publish(worker, name, input=["water"], encoding_format=encoding)
        worker.run_until(lambda name=name: name in worker.results())
    bodies = {name: worker.results()[name]["response"]["body"] for name in "abc"}
    assert [body["usage"].get("penstock_cache") for body in bodies.values()] == [None, "hit", None]
    assert bodies["a"]["data"] == bodies["b"]["data"]
