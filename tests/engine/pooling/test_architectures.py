"""Encoders of many kinds: in a batch each text gets what the model makes of it alone."""

import pytest
import torch

from pipeline.engine.load_error import LoadError
from pipeline.engine.pooling.readers import Pooling
from pipeline.engine.pooling.recipe import Recipe
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import ask, pooling_engine, tiny_encoder
from tests.engine.serving import request
from tests.engine.tiny_models import tiny_model

TEXTS = [[7, 8, 9], [11, 12, 13, 14, 15, 16, 17], [21, 22, 23], [31], [41, 42, 43, 44, 45, 46, 47]]
DISTIL = {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}

PACKED = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "xlm-roberta": {"pad_token_id": 1},
    "camembert": {"pad_token_id": 1},
    "distilbert": DISTIL,
    "electra": {"embedding_size": 32},
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2, "classifier_pooling": "cls"},
    "ernie": {},
}
"""Models that prove to take a packed row."""

PADDED = {
    "mpnet": {"pad_token_id": 1},
    "deberta-v2": {},
    "rembert": {},
}
"""Models with attention of their own."""


def alone(model, texts=TEXTS):
    """Each text by the model's own code and attention, without a batch."""
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text), dtype=torch.int64)) for text in texts]


def embeddings(engine, **body):
    """The rows of all texts in one request."""
    (pooled,) = ask(engine, request(Endpoint.EMBEDDINGS, input=TEXTS, **body))
    return torch.from_numpy(pooled.rows)


@pytest.mark.parametrize("kind", [*PACKED, *PADDED])
def test_embeddings_in_a_batch_are_those_of_each_text_alone(kind):
    """Mean of the last hidden states at length 1, whether packed or padded."""
    options = PACKED.get(kind, PADDED.get(kind))
    expected = [torch.nn.functional.normalize(read.last_hidden_state[0].mean(0), dim=0) for read in alone(tiny_encoder(kind, **options))]
    engine = pooling_engine(tiny_encoder(kind, **options))
    assert engine._runner.is_packed is (kind in PACKED)
    torch.testing.assert_close(embeddings(engine), torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [*PACKED, *PADDED])
def test_classes_in_a_batch_are_those_of_each_text_alone(kind):
    """The head sees each text's own first token; what comes out is the head's own numbers."""
    options = PACKED.get(kind, PADDED.get(kind))
    expected = [read.logits[0] for read in alone(tiny_encoder(kind, labels=3, **options))]
    engine = pooling_engine(tiny_encoder(kind, labels=3, **options), recipe=None)
    assert engine._runner.is_packed is (kind in PACKED)
    (pooled,) = ask(engine, request(Endpoint.CLASSIFY, input=TEXTS, use_activation=False))
    torch.testing.assert_close(torch.from_numpy(pooled.rows), torch.stack(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("pooling", "place"), [(Pooling.CLS, 0), (Pooling.LAST, -1)])
@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_one_token_can_stand_for_the_text(kind, pooling, place):
    """The first or the last, and not brought to length 1 unless the checkpoint says so."""
    options = PADDED.get(kind, {})
    expected = [read.last_hidden_state[0, place] for read in alone(tiny_encoder(kind, **options))]
    engine = pooling_engine(tiny_encoder(kind, **options), recipe=Recipe(pooling=pooling, is_normalised=False))
    torch.testing.assert_close(embeddings(engine), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_decoder_reads_from_left_to_right():
    """Embedding models made of decoders keep their causal attention, grouped heads included."""
    decoder = {"head_dim": 8, "num_key_value_heads": 2, "use_cache": False}
    expected = [read.last_hidden_state[0, -1] for read in alone(tiny_encoder("qwen3", **decoder))]
    engine = pooling_engine(tiny_encoder("qwen3", **decoder), recipe=Recipe(pooling=Pooling.LAST, is_normalised=False))
    assert engine._runner.is_packed
    torch.testing.assert_close(embeddings(engine), torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_a_window_is_kept_in_a_packed_row():
    """Texts longer than a layer's window, which looks both ways."""
    options = PACKED["modernbert"]
    long = [list(range(10, 50)), list(range(20, 60)), list(range(60, 75))]
    expected = [read.last_hidden_state[0, 0] for read in alone(tiny_encoder("modernbert", **options), long)]
    engine = pooling_engine(tiny_encoder("modernbert", **options), recipe=Recipe(pooling=Pooling.CLS, is_normalised=False))
    assert engine._runner.is_packed
    (pooled,) = ask(engine, request(Endpoint.EMBEDDINGS, input=long))
    torch.testing.assert_close(torch.from_numpy(pooled.rows), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_model_that_reads_no_text_is_refused():
    """With one line that names it."""
    with pytest.raises(LoadError, match="tiny: a vit model does not take texts"):
        pooling_engine(_image_model())


def _image_model():
    model = tiny_model("llama")

    def forward(pixel_values):
        raise AssertionError(pixel_values)

    model.forward = forward
    model.config.model_type = "vit"
    return model
