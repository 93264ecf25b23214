"""Tiny encoders with random weights, a tokenizer for them, and engines in a test's hands."""

import functools
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, TokenizersBackend

from pipeline.engine.base import StepOutput
from pipeline.engine.pooling.engine import PoolingEngine
from pipeline.engine.pooling.loading import build_pooling
from pipeline.engine.pooling.recipe import PLAIN, Recipe
from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings, ModelSettings
from schemas.pooled_results import Pooled
from schemas.request import Request
from tests.engine.tiny_tokenizers import TEXTS

VOCABULARY = 200
CONTROL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "cls_token_id": None,
    "sep_token_id": None,
    "mask_token_id": None,
}
SMALL = EngineSettings(pooling_token_budget=32, threads=1)


def tiny_encoder(kind: str, labels: int | None = None, **overrides: Any) -> Any:
    """A model of `kind` whose weights are large enough for its texts to differ; with a head where it has labels."""
    config = AutoConfig.for_model(kind, **(COMMON | overrides | ({} if labels is None else {"num_labels": labels})))
    torch.manual_seed(0)
    model = (AutoModel if labels is None else AutoModelForSequenceClassification).from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 1.5 * parameter.shape[-1] ** -0.5)
    return model.eval()


@functools.cache
def word_pieces() -> Any:
    """Cuts words in pieces and frames texts with control tokens, as BERT does."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=CONTROL, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return TokenizersBackend(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def pooling_engine(network: Any, tokenizer: Any = None, *, recipe: Recipe | None = PLAIN, settings: EngineSettings = SMALL) -> PoolingEngine:
    """An engine over an encoder in memory; of a classifier with `recipe=None`."""
    return build_pooling(network, tokenizer, recipe, ModelSettings(name="tiny", source="tiny"), settings)


def ask(engine: PoolingEngine, *requests: Request) -> list[Pooled]:
    """Serves requests side by side, all of which must go well."""
    for key, one in enumerate(requests):
        engine.add(key, engine.prepare(one), Lane.DEFAULT, 0.0)
    outputs = drain(engine)
    assert sorted(outputs) == list(range(len(requests)))
    pooled = [outputs[key].pooled for key in range(len(requests))]
    assert all(pooled), outputs
    return pooled


def drain(engine: PoolingEngine) -> dict[int, StepOutput]:
    """Steps until nothing is left; each request is answered once."""
    outputs: dict[int, StepOutput] = {}
    while engine.has_work():
        for output in engine.step(0.0):
            assert output.key not in outputs
            outputs[output.key] = output
    return outputs
