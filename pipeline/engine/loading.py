"""From a name to an engine: find the model, read it, prove that it can be batched, size its cache."""

from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from pipeline.engine import architecture, checkpoint, reading, resources, verification
from pipeline.engine.attention.hook import NAME
from pipeline.engine.attention.paged import PagedAttention
from pipeline.engine.backbone import find_backbone
from pipeline.engine.base import Engine, ModelInfo
from pipeline.engine.engine import TransformersEngine
from pipeline.engine.execution import Execution, PagedExecution
from pipeline.engine.heap import keep_freed
from pipeline.engine.load_error import LoadError
from pipeline.engine.packing import Packer
from pipeline.engine.planning import Learned, Planning
from pipeline.engine.pooling.loading import load_pooling
from pipeline.engine.pooling.recipe import find_task
from pipeline.engine.preparation import Preparation
from pipeline.engine.prompts import Prompts
from pipeline.engine.rewrites.prepared import fills
from pipeline.engine.rewrites.rewriting import rewrite
from pipeline.engine.runner import Runner
from pipeline.engine.sampler import Sampler
from pipeline.engine.scoring import places_at_a_time
from pipeline.engine.serial import verification as serial_verification
from pipeline.engine.serial.execution import SerialExecution
from pipeline.engine.sizing import MIB, SERIAL_CONTEXT_TOKENS, CacheSize, choose_context, plan_cache, serial_rows
from pipeline.engine.threads import use_threads
from pipeline.engine.vocabulary import Vocabulary
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.scheduler import Scheduler
from pipeline.settings import DeviceChoice, DtypeChoice, EngineSettings, ModelSettings

log = structlog.get_logger(__name__)

OWN_ATTENTION = "eager"
"""What a model without the hook attends with: every architecture has it."""
THROUGHPUT = Planning()


def load(
    model: ModelSettings,
    engine: EngineSettings,
    *,
    device: DeviceChoice = DeviceChoice.AUTO,
    dtype: DtypeChoice = DtypeChoice.AUTO,
    planning: Planning = THROUGHPUT,
) -> Engine:
    """Loads a model and makes an engine of it: by what its checkpoint is for, one that generates or one that only reads.

    Raises:
        LoadError: It cannot be served; the message says why and what to do.
    """
    folder = checkpoint.find(model.source, model.revision)
    on = resources.pick_device(device)
    if not resources.is_available(on):
        raise LoadError(f"{model.source}: there is no {on.type} device here; use --device auto")
    disable_progress_bar()
    torch.set_num_threads(engine.threads or resources.cores())  # to read and convert weights with
    loaded = _load(folder, model, engine, on, dtype, planning)
    keep_freed()
    return loaded


def _load(folder: Path, model: ModelSettings, engine: EngineSettings, on: torch.device, dtype: DtypeChoice, planning: Planning) -> Engine:
    if (task := find_task(folder)) is not None:
        return load_pooling(folder, task, model, engine, device=on, dtype=dtype)
    vocabulary = _read_vocabulary(folder, model.source)
    try:
        return build(_read_model(folder, model.source, on, dtype, NAME), vocabulary, model, engine, planning)
    except architecture.CannotBatch as reason:
        log.warning("model_not_batched", model=model.name, detail=f"{reason}; it runs one sequence at a time, much slower")
    return build_serial(_read_model(folder, model.source, on, dtype, OWN_ATTENTION), vocabulary, model, engine, planning)


def build(
    network: Any, vocabulary: Vocabulary | None, model: ModelSettings, settings: EngineSettings, planning: Planning = THROUGHPUT
) -> TransformersEngine:
    """Makes an engine of a causal language model in memory, in evaluation mode, whose attention goes through the hook.

    Raises:
        LoadError: Its architecture cannot be batched, or there is no room for its cache.
    """
    architecture.check_config(network.config, model.source)
    size = _size_of_cache(network, settings, model.source)
    pool = BlockPool(size.blocks, settings.block_tokens)
    threads = settings.threads or resources.threads(network.num_parameters(), resources.cores())
    info = reading.describe(network, model, vocabulary=_vocabulary_size(network), context_tokens=size.context_tokens)
    weights_mib = _weights_mib(network)
    proof = verification.Proof(network, vocabulary=info.vocabulary, context_tokens=size.context_tokens, source=model.source)
    use_threads(threads)  # kernels are compiled for one or for several
    rewritten = rewrite(network, network.dtype, network.device)
    packer = _packer(info, pool, settings, network.device)
    runner = _runner(network, info, size, settings.block_tokens, threads, model.source)
    proof.check(runner, packer, pool)
    kept = {"kv_cache_mib": round(size.bytes / MIB, 1), "kv_cache_tokens": size.blocks * settings.block_tokens}
    reading.log_loaded(info, weights_mib=weights_mib, **kept, threads=threads, rewritten=dict(rewritten))
    policy, learned = planning.open(info, threads)
    scheduler = Scheduler(pool, max_sequences=settings.max_sequences, token_budget=settings.token_budget, policy=policy)
    return _engine(
        network,
        vocabulary,
        info,
        scheduler,
        PagedExecution(packer, runner),
        learned,
        rows=settings.max_sequences,
        prefix_cache=settings.prefix_cache,
        scores_prompts=runner.scores_prompts,
    )


def _size_of_cache(network: Any, settings: EngineSettings, source: str) -> CacheSize:
    return plan_cache(
        architecture.survey(network, source).values(),
        number_bytes=network.dtype.itemsize,
        limit_tokens=architecture.context_limit(network.config.get_text_config(decoder=True)),
        free_bytes=resources.free_memory_bytes(network.device),
        engine=settings,
        source=source,
    )


def _packer(info: ModelInfo, pool: BlockPool, settings: EngineSettings, device: torch.device) -> Packer:
    """Room for as many sequences as run at a time, and for those of the proof."""
    return Packer(
        rows=max(settings.max_sequences, verification.ROWS),
        blocks_per_sequence=pool.blocks_for(info.context_tokens),
        block_tokens=settings.block_tokens,
        scored_places=places_at_a_time(info.vocabulary),
        device=device,
    )


def _runner(network: Any, info: ModelInfo, size: CacheSize, block_tokens: int, threads: int, source: str) -> Runner:
    """A model that is rewritten, over a cache for the layers that it has by now."""
    layers = architecture.survey(network, source)
    attention = PagedAttention(layers, blocks=size.blocks, block_tokens=block_tokens, dtype=network.dtype, device=network.device)
    is_filled = fills(network.dtype, network.device)
    return Runner(network, attention, find_backbone(network), vocabulary=info.vocabulary, threads=threads, is_filled=is_filled)


def build_serial(
    network: Any, vocabulary: Vocabulary | None, model: ModelSettings, settings: EngineSettings, planning: Planning = THROUGHPUT
) -> TransformersEngine:
    """Makes an engine of a causal language model in memory that cannot be batched: it runs one sequence at a time.

    Raises:
        LoadError: What it keeps of a sequence does not continue it.
    """
    limit_tokens = architecture.context_limit(network.config.get_text_config(decoder=True)) or SERIAL_CONTEXT_TOKENS
    context_tokens = choose_context(limit_tokens, settings.context_tokens, model.source)
    threads = settings.threads or resources.threads(network.num_parameters(), resources.cores())
    execution = SerialExecution(network, vocabulary=_vocabulary_size(network), threads=threads)
    held = serial_verification.verify(network, execution, context_tokens=context_tokens, source=model.source)
    rows = serial_rows(held.of(context_tokens), free_bytes=resources.free_memory_bytes(network.device), engine=settings)
    pool = BlockPool(rows, context_tokens)  # what a sequence keeps is the model's affair: room for as many as run
    info = reading.describe(network, model, vocabulary=execution.vocabulary, context_tokens=context_tokens)
    reading.log_loaded(info, weights_mib=_weights_mib(network), threads=threads, sequences=rows, sequence_mib=round(held.of(context_tokens) / MIB, 1))
    policy, learned = planning.open(info, threads)
    scheduler = Scheduler(pool, max_sequences=rows, token_budget=rows + context_tokens, policy=policy)
    return _engine(network, vocabulary, info, scheduler, execution, learned, rows=rows, prefix_cache=False, scores_prompts=False)


def _engine(
    network: Any,
    vocabulary: Vocabulary | None,
    info: ModelInfo,
    scheduler: Scheduler,
    execution: Execution,
    learned: Learned,
    *,
    rows: int,
    prefix_cache: bool,
    scores_prompts: bool,
) -> TransformersEngine:
    return TransformersEngine(
        info=info,
        preparation=Preparation(
            model=info.name,
            vocabulary=info.vocabulary,
            context_tokens=info.context_tokens,
            end_ids=end_ids(network, vocabulary),
            prompts=None if vocabulary is None else Prompts(vocabulary),
            scores_prompts=scores_prompts,
        ),
        scheduler=scheduler,
        execution=execution,
        sampler=Sampler(rows=rows, vocabulary=info.vocabulary, device=network.device),
        vocabulary=vocabulary,
        prefix_cache=prefix_cache,
        learned=learned,
    )


def end_ids(network: Any, vocabulary: Vocabulary | None) -> frozenset[int]:
    """Every token that ends an output, by the generation config, the model's config or the tokenizer."""
    named = [network.generation_config.eos_token_id, network.config.get_text_config(decoder=True).eos_token_id]
    if vocabulary is not None:
        named.append(vocabulary.tokenizer.eos_token_id)
    return frozenset(token for ids in named if ids is not None for token in (ids if isinstance(ids, list | tuple) else [ids]))


def _vocabulary_size(network: Any) -> int:
    """Ids that the model both reads and writes: some checkpoints pad one of the two matrices."""
    return int(min(network.get_input_embeddings().weight.shape[0], network.get_output_embeddings().weight.shape[0]))


def _read_model(folder: Path, source: str, device: torch.device, dtype: DtypeChoice, attention: str) -> Any:
    config = reading.read_config(folder, source)
    if attention == NAME:
        architecture.check_config(config, source)
    number = resources.pick_dtype(dtype, config.get_text_config(decoder=True).dtype, device)
    try:
        return reading.read_network(AutoModelForCausalLM, folder, config, source, dtype=number, device=device, attn_implementation=attention)
    except LoadError as error:
        if attention == NAME and NAME in str(error.__cause__):  # it has attention of its own, and does not know the hook
            raise architecture.refusal(source, config.model_type, "its layers do not attend through the hook") from error
        raise


def _read_vocabulary(folder: Path, source: str) -> Vocabulary | None:
    tokenizer = reading.read_tokenizer(folder, source)
    return None if tokenizer is None else Vocabulary(tokenizer)


def _weights_mib(network: Any) -> float:
    weights_bytes: int = sum(p.numel() * p.element_size() for p in network.parameters())
    return round(weights_bytes / MIB, 1)
