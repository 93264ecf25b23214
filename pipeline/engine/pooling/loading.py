"""From a folder to an engine of a model that reads text and writes none."""

from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from pipeline.engine import architecture, reading, resources
from pipeline.engine.load_error import LoadError
from pipeline.engine.pooling.activation import activation_of, labels_of
from pipeline.engine.pooling.dense import read_layers
from pipeline.engine.pooling.engine import PoolingEngine, Preparation
from pipeline.engine.pooling.inputs import InputForm, position_table
from pipeline.engine.pooling.preparation import ClassPreparation, EmbeddingPreparation
from pipeline.engine.pooling.readers import Logits, Reader, Vectors
from pipeline.engine.pooling.recipe import PoolingTask, Recipe, read_recipe
from pipeline.engine.pooling.texts import Texts
from pipeline.engine.pooling.verification import choose_way
from pipeline.settings import DtypeChoice, EngineSettings, ModelSettings

log = structlog.get_logger(__name__)

CLASSES = {PoolingTask.EMBEDDINGS: AutoModel, PoolingTask.CLASSIFICATION: AutoModelForSequenceClassification}
UNREAD = "pooler."
"""Weights that many checkpoints of embedding models lack: nothing here reads what they make."""


def load_pooling(
    folder: Path, task: PoolingTask, model: ModelSettings, settings: EngineSettings, *, device: torch.device, dtype: DtypeChoice
) -> PoolingEngine:
    """Loads a model for its task.

    Raises:
        LoadError: It cannot be served; the message says why and what to do.
    """
    recipe = read_recipe(folder, model.source) if task is PoolingTask.EMBEDDINGS else None
    tokenizer = reading.read_tokenizer(folder, model.source)
    network = _read_network(folder, task, model.source, device, dtype)
    return build_pooling(network, tokenizer, recipe, model, settings)


def build_pooling(network: Any, tokenizer: Any, recipe: Recipe | None, model: ModelSettings, settings: EngineSettings) -> PoolingEngine:
    """Makes an engine of a model in memory, in evaluation mode: of an encoder with a recipe for embeddings, of a classifier without.

    Raises:
        LoadError: Its config names no context length, or asks for what is not served.
    """
    if network.config.pad_token_id is None and tokenizer is not None and tokenizer.pad_token_id is not None:
        network.config.pad_token_id = tokenizer.pad_token_id  # a decoder's head finds the last token by it
    form = InputForm.of(network)
    vocabulary = int(network.get_input_embeddings().weight.shape[0])
    context_tokens = _context(network, form, recipe, settings, model.source)
    dense = () if recipe is None else read_layers(recipe.dense, network.config.hidden_size, network.device, model.source)
    reader: Reader = Logits() if recipe is None else Vectors(recipe.pooling, is_normalised=recipe.is_normalised, dense=dense)
    threads = settings.threads or resources.threads(network.num_parameters(), resources.cores())
    runner, reason = choose_way(network, form, reader, threads=threads, vocabulary=vocabulary, context_tokens=context_tokens, source=model.source)
    info = reading.describe(network, model, vocabulary=vocabulary, context_tokens=context_tokens)
    texts = Texts(tokenizer, vocabulary=vocabulary, context_tokens=context_tokens, prompt="" if recipe is None else recipe.prompt)
    reading.log_loaded(info, threads=threads, is_packed=reason is None)
    if reason is not None:
        log.warning("texts are padded", model=info.name, detail=f"{reason}; texts of like length run side by side, somewhat slower")
    width = dense[-1].width if dense else network.config.hidden_size
    return PoolingEngine(
        info=info,
        preparation=_preparation(network, texts, recipe, model, width),
        runner=runner,
        token_budget=settings.pooling_token_budget,
        max_wait_s=settings.max_wait_ms / 1000,
    )


def _preparation(network: Any, texts: Texts, recipe: Recipe | None, model: ModelSettings, width: int) -> Preparation:
    if recipe is None:
        return ClassPreparation(texts, model=model.name, labels=labels_of(network.config), activation=activation_of(network.config, model.source))
    return EmbeddingPreparation(texts, model=model.name, width=width, is_normalised=recipe.is_normalised)


def _context(network: Any, form: InputForm, recipe: Recipe | None, settings: EngineSettings, source: str) -> int:
    """The shortest of: the model's positions, the length that it was made for, and `engine.context_tokens`."""
    table = position_table(network)
    positions = architecture.context_limit(network.config) if table is None else table.num_embeddings - form.first_position
    limits = [positions, None if recipe is None else recipe.max_tokens, settings.context_tokens]
    context_tokens = min((limit for limit in limits if limit is not None), default=0)
    if context_tokens < 1:
        raise LoadError(f"{source}: its config names no context length: set engine.context_tokens")
    return context_tokens


def _read_network(folder: Path, task: PoolingTask, source: str, device: torch.device, dtype: DtypeChoice) -> Any:
    config = reading.read_config(folder, source)
    number = resources.pick_dtype(dtype, config.dtype, device)
    unread = (UNREAD,) if task is PoolingTask.EMBEDDINGS else ()
    network = reading.read_network(CLASSES[task], folder, config, source, dtype=number, device=device, unread=unread)
    if hasattr(network.config, "use_cache"):
        network.config.use_cache = False  # a decoder's keys and values are of no use here
    return network
