"""What is wrong with a pooled request is found before anything runs, and the field is named."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import processors

from pipeline.engine.pooling.answers import Activation, classes
from pipeline.engine.pooling.readers import Pooling
from pipeline.engine.pooling.recipe import Recipe
from pipeline.settings import EngineSettings
from schemas.errors import InvalidRequest, InvalidToken, PromptTooLong
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import VOCABULARY, ask, pooling_engine, tiny_encoder, word_pieces
from tests.engine.serving import completion
from tests.engine.serving import request as request_for

LONG = "water " * 80


@pytest.fixture(scope="module")
def embedder():
    """Embeddings, for a context of 66 tokens."""
    return pooling_engine(tiny_encoder("bert"), word_pieces())


@pytest.fixture(scope="module")
def classifier():
    """Three classes."""
    return pooling_engine(tiny_encoder("bert", labels=3, id2label={0: "dry", 1: "wet", 2: "flooded"}), word_pieces(), recipe=None)


@pytest.fixture(scope="module")
def scorer():
    """One score for a pair."""
    return pooling_engine(tiny_encoder("bert", labels=1), word_pieces(), recipe=None)


def refusal_of(engine, endpoint, **body) -> InvalidRequest:
    """What is said to a request that is refused."""
    with pytest.raises(InvalidRequest) as refusal:
        engine.prepare(request_for(endpoint, **body))
    assert not engine.has_work()
    return refusal.value


@pytest.mark.parametrize(
    ("engine", "endpoint", "body"),
    [
        ("embedder", Endpoint.CLASSIFY, {"input": "water"}),
        ("classifier", Endpoint.EMBEDDINGS, {"input": "water"}),
        ("classifier", Endpoint.SCORE, {"text_1": "a", "text_2": "b"}),
        ("classifier", Endpoint.RERANK, {"query": "a", "documents": ["b"]}),
        ("scorer", Endpoint.EMBEDDINGS, {"input": "water"}),
    ],
)
def test_an_endpoint_that_the_model_is_not_for_is_refused(request, engine, endpoint, body):
    """By the url, which is at fault."""
    refusal = refusal_of(request.getfixturevalue(engine), endpoint, **body)
    assert (refusal.code, refusal.param) == ("invalid_request", "url")
    assert endpoint in refusal.message


def test_a_model_that_only_reads_generates_nothing(embedder, classifier):
    """A completion is refused by the url."""
    for engine in (embedder, classifier):
        with pytest.raises(InvalidRequest, match="does not serve /v1/completions") as refusal:
            engine.prepare(completion("water"))
        assert refusal.value.param == "url"


@pytest.mark.parametrize(
    ("engine", "endpoint", "body", "param"),
    [
        ("embedder", Endpoint.EMBEDDINGS, {"input": LONG}, "input"),
        ("embedder", Endpoint.EMBEDDINGS, {"input": ["a", LONG]}, "input.1"),
        ("embedder", Endpoint.EMBEDDINGS, {"input": [[7], [7] * 67]}, "input.1"),
        ("embedder", Endpoint.SCORE, {"text_1": LONG, "text_2": ["a", "b"]}, "text_1"),
        ("embedder", Endpoint.SCORE, {"text_1": "a", "text_2": ["a", LONG]}, "text_2.1"),
        ("embedder", Endpoint.RERANK, {"query": LONG, "documents": ["a"]}, "query"),
        ("classifier", Endpoint.CLASSIFY, {"input": LONG}, "input"),
        ("scorer", Endpoint.SCORE, {"text_1": "a", "text_2": LONG}, "text_2"),
        ("scorer", Endpoint.RERANK, {"query": "a", "documents": ["b", LONG]}, "documents.1"),
    ],
)
def test_a_text_longer_than_the_context_is_refused_by_its_place(request, engine, endpoint, body, param):
    """66 tokens fit, and which text is too long is told."""
    refusal = refusal_of(request.getfixturevalue(engine), endpoint, **body)
    assert isinstance(refusal, PromptTooLong)
    assert refusal.param == param
    assert "takes 66" in refusal.message


@pytest.mark.parametrize(
    ("engine", "endpoint", "body"),
    [
        ("embedder", Endpoint.EMBEDDINGS, {"input": ["a", LONG, [7] * 90]}),
        ("embedder", Endpoint.RERANK, {"query": LONG, "documents": [LONG, "a"]}),
        ("classifier", Endpoint.CLASSIFY, {"input": LONG}),
        ("scorer", Endpoint.SCORE, {"text_1": LONG, "text_2": [LONG, "a"]}),
    ],
)
@pytest.mark.parametrize(("truncate", "longest"), [(-1, 66), (20, 20), (66, 66)])
def test_texts_are_cut_where_the_request_says_so(request, engine, endpoint, body, truncate, longest):
    """To so many tokens, control tokens included, or to the model's context; shorter texts stay whole."""
    job = request.getfixturevalue(engine).prepare(request_for(endpoint, **body, truncate_prompt_tokens=truncate))
    assert max(map(len, job.work.texts)) == longest
    assert job.prompt_tokens == sum(map(len, job.work.texts))
    assert (job.max_output_tokens, job.choices) == (0, 1)


@pytest.mark.parametrize(("truncate", "reason"), [(67, "truncate to that or less"), (2, "leaves no room for text")])
def test_a_cut_that_cannot_be_made_is_refused(embedder, truncate, reason):
    """Longer than the model, or shorter than its control tokens."""
    refusal = refusal_of(embedder, Endpoint.EMBEDDINGS, input=LONG, truncate_prompt_tokens=truncate)
    assert refusal.param == "truncate_prompt_tokens"
    assert reason in refusal.message


def test_ids_outside_the_vocabulary_are_refused_by_their_place(embedder):
    """The embedding's size counts, and the message does not repeat what was sent."""
    for given, param in (([VOCABULARY], "input"), ([[1], [2, 2**40]], "input.1")):
        refusal = refusal_of(embedder, Endpoint.EMBEDDINGS, input=given)
        assert isinstance(refusal, InvalidToken)
        assert refusal.param == param
        assert f"0 to {VOCABULARY - 1}" in refusal.message


def test_more_dimensions_than_there_are_are_refused(embedder):
    """As many or fewer are served."""
    assert refusal_of(embedder, Endpoint.EMBEDDINGS, input="water", dimensions=33).param == "dimensions"
    for dimensions in (1, 32):
        (pooled,) = ask(embedder, request_for(Endpoint.EMBEDDINGS, input="water", dimensions=dimensions))
        assert pooled.rows.shape == (1, dimensions)


def test_an_answer_that_fits_no_record_is_refused_before_it_is_computed():
    """Too many numbers as decimals; in base64 they fit."""
    engine = pooling_engine(tiny_encoder("bert", hidden_size=640, num_hidden_layers=1))
    texts = [[7]] * 2_000
    refusal = refusal_of(engine, Endpoint.EMBEDDINGS, input=texts)
    assert refusal.param == "input"
    assert "base64" in refusal.message
    assert engine.prepare(request_for(Endpoint.EMBEDDINGS, input=texts, encoding_format="base64")).prompt_tokens == 2_000


def test_without_a_tokenizer_only_ids_are_taken():
    """Text is refused by name."""
    engine = pooling_engine(tiny_encoder("bert"))
    assert refusal_of(engine, Endpoint.EMBEDDINGS, input="water").param == "input"
    assert refusal_of(engine, Endpoint.RERANK, query="water", documents=["a"]).param == "query"
    assert ask(engine, request_for(Endpoint.EMBEDDINGS, input=[1, 2]))[0].rows.shape == (1, 32)


def test_a_text_without_tokens_is_refused():
    """Where the tokenizer frames texts with nothing, spaces leave nothing to read."""
    engine = pooling_engine(tiny_encoder("bert"), _unframed())
    refusal = refusal_of(engine, Endpoint.EMBEDDINGS, input=["water", "   "])
    assert refusal.param == "input.1"
    assert "no tokens" in refusal.message


def _unframed():
    tokenizer = copy.deepcopy(word_pieces())
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return tokenizer


def test_the_context_of_the_settings_bounds_texts():
    """It can only shorten what the model takes."""
    for asked, served in ((20, 20), (1_000, 66)):
        engine = pooling_engine(tiny_encoder("bert"), settings=EngineSettings(threads=1, context_tokens=asked))
        assert engine.info.context_tokens == served


def test_what_the_author_puts_before_every_text_is_put_there():
    """Before texts, not before ids."""
    recipe = {"pooling": Pooling.MEAN, "is_normalised": True}
    plain = pooling_engine(tiny_encoder("bert"), word_pieces())
    prompted = pooling_engine(tiny_encoder("bert"), word_pieces(), recipe=Recipe(**recipe, prompt="the water: "))
    (with_prompt,), (by_hand,) = (
        ask(prompted, request_for(Endpoint.EMBEDDINGS, input="wheel")),
        ask(plain, request_for(Endpoint.EMBEDDINGS, input="the water: wheel")),
    )
    np.testing.assert_allclose(with_prompt.rows, by_hand.rows, atol=1e-6)
    assert prompted.prepare(request_for(Endpoint.EMBEDDINGS, input=[5, 6])).prompt_tokens == 2


def test_classes_are_probabilities_unless_the_numbers_are_asked_for(classifier):
    """Softmax over the labels, which have the names of the checkpoint."""
    (raw,) = ask(classifier, request_for(Endpoint.CLASSIFY, input=["water", "corn"], use_activation=False))
    (pooled,) = ask(classifier, request_for(Endpoint.CLASSIFY, input=["water", "corn"]))
    powers = np.exp(raw.rows)
    np.testing.assert_allclose(pooled.rows, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    assert pooled.labels == ("dry", "wet", "flooded")


def test_a_pair_is_scored_as_one_text_of_two_parts(scorer):
    """Tokenised together with the parts told apart; the sigmoid of the head's number, or that itself."""
    pairs = request_for(Endpoint.SCORE, text_1="water", text_2=["wheel", "corn corn"])
    text = scorer.prepare(pairs).work.texts[1]
    assert text.token_ids == tuple(word_pieces()("water", "corn corn")["input_ids"])
    assert text.type_ids == tuple(word_pieces()("water", "corn corn")["token_type_ids"])
    assert set(text.type_ids) == {0, 1}
    (raw,) = ask(scorer, request_for(Endpoint.SCORE, text_1="water", text_2=["wheel", "corn corn"], use_activation=False))
    (scored,) = ask(scorer, pairs)
    np.testing.assert_allclose(scored.rows, 1 / (1 + np.exp(-raw.rows)), rtol=1e-5)
    (ranked,) = ask(scorer, request_for(Endpoint.RERANK, query="water", documents=["wheel", "corn corn"]))
    np.testing.assert_allclose(ranked.rows, scored.rows, rtol=1e-5)


def test_parts_of_a_pair_count():
    """A cross-encoder in a batch gives each pair what its own model gives it alone."""
    network = tiny_encoder("bert", labels=1)
    encoded = word_pieces()("water", "the wheel", return_tensors="pt")
    with torch.inference_mode():
        expected = network(**encoded).logits.item()
    engine = pooling_engine(network, word_pieces(), recipe=None)
    asked = request_for(Endpoint.SCORE, text_1="water", text_2=["the wheel", "corn", "the wheel"], use_activation=False)
    assert ask(engine, asked)[0].rows[:, 0][[0, 2]] == pytest.approx([expected, expected], rel=1e-4)


@pytest.mark.parametrize("activation", Activation)
def test_large_numbers_do_not_overflow(activation):
    """Whatever a head computes, probabilities are numbers."""
    rows = np.array([[-1e4, 1e4, 0.0]], dtype=np.float32)
    result = classes(rows, labels=("a", "b", "c"), activation=activation).rows
    assert np.isfinite(result).all()
    assert activation is Activation.NONE or (result.min() >= 0.0 and result.max() <= 1.0)
