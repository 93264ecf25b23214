"""From a name to an engine: find the model, read it, prove that it can be batched, size its cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from pipeline.engine import architecture, checkpoint, resources, verification
from pipeline.engine.attention.hook import NAME
from pipeline.engine.attention.paged import PagedAttention
from pipeline.engine.base import Engine, ModelInfo
from pipeline.engine.engine import TransformersEngine
from pipeline.engine.execution import Execution, PagedExecution
from pipeline.engine.load_error import LoadError
from pipeline.engine.packing import Packer
from pipeline.engine.pooling.loading import load_pooling
from pipeline.engine.pooling.recipe import find_task
from pipeline.engine.preparation import Preparation
from pipeline.engine.prompts import Prompts
from pipeline.engine.rewrites.rewriting import rewrite
from pipeline.engine.runner import Runner
from pipeline.engine.sampler import Sampler
from pipeline.engine.serial import verification as serial_verification
from pipeline.engine.serial.execution import SerialExecution
from pipeline.engine.sizing import MIB, choose_context, plan_cache
from pipeline.engine.vocabulary import Vocabulary
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.scheduler import Scheduler
from pipeline.settings import DeviceChoice, DtypeChoice, EngineSettings, ModelSettings

log = structlog.get_logger(__name__)

OWN_ATTENTION = "eager"
"""What a model without the hook attends with: every architecture has it."""
SERIAL_ROWS = 8
"""Sequences that run by turns where they cannot be batched: nobody waits for the end of all others, and what they keep stays small."""
SERIAL_CONTEXT_TOKENS = 4096
"""Longest context where the config names none, as for recurrent models."""


def load(model: ModelSettings, engine: EngineSettings, *, device: DeviceChoice = DeviceChoice.AUTO, dtype: DtypeChoice = DtypeChoice.AUTO) -> Engine:
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
    if (task := find_task(folder)) is not None:
        return load_pooling(folder, task, model, engine, device=on, dtype=dtype)
    vocabulary = _read_vocabulary(folder, model.source)
    try:
        return build(_read_model(folder, model.source, on, dtype, NAME), vocabulary, model, engine)
    except architecture.CannotBatch as reason:
        log.warning("model_not_batched", model=model.name, detail=f"{reason}; it runs one sequence at a time, much slower")
    return build_serial(_read_model(folder, model.source, on, dtype, OWN_ATTENTION), vocabulary, model, engine)


def build(network: Any, vocabulary: Vocabulary | None, model: ModelSettings, settings: EngineSettings) -> TransformersEngine:
    """Makes an engine of a causal language model in memory, in evaluation mode, whose attention goes through the hook.

    Raises:
        LoadError: Its architecture cannot be batched, or there is no room for its cache.
    """
    source, block_tokens = model.source, settings.block_tokens
    architecture.check_config(network.config, source)
    shapes = architecture.survey(network, source)
    size = plan_cache(
        shapes.values(),
        number_bytes=network.dtype.itemsize,
        limit_tokens=architecture.context_limit(network.config.get_text_config(decoder=True)),
        free_bytes=resources.free_memory_bytes(network.device),
        engine=settings,
        source=source,
    )
    pool = BlockPool(size.blocks, block_tokens)
    attention = PagedAttention(shapes, blocks=size.blocks, block_tokens=block_tokens, dtype=network.dtype, device=network.device)
    threads = settings.threads or resources.threads(network.num_parameters(), resources.cores())
    info = _describe(network, model, vocabulary=_vocabulary_size(network), context_tokens=size.context_tokens)
    weights_bytes = _weights_bytes(network)
    proof = verification.Proof(network, vocabulary=info.vocabulary, context_tokens=size.context_tokens, source=source)
    rewritten = rewrite(network, network.dtype, network.device)
    runner = Runner(network, attention, vocabulary=info.vocabulary, threads=threads)
    packer = Packer(
        rows=max(settings.max_sequences, verification.ROWS),
        blocks_per_sequence=pool.blocks_for(size.context_tokens),
        block_tokens=block_tokens,
        device=network.device,
    )
    proof.check(runner, packer, pool)
    _log_loaded(info, weights_bytes, threads, size.bytes, size.blocks * block_tokens, rewritten)
    scheduler = Scheduler(pool, max_sequences=settings.max_sequences, token_budget=settings.token_budget)
    return _engine(
        network, vocabulary, info, scheduler, PagedExecution(packer, runner), rows=settings.max_sequences, prefix_cache=settings.prefix_cache
    )


def build_serial(network: Any, vocabulary: Vocabulary | None, model: ModelSettings, settings: EngineSettings) -> TransformersEngine:
    """Makes an engine of a causal language model in memory that cannot be batched: it runs one sequence at a time.

    Raises:
        LoadError: What it keeps of a sequence does not continue it.
    """
    limit_tokens = architecture.context_limit(network.config.get_text_config(decoder=True)) or SERIAL_CONTEXT_TOKENS
    context_tokens = choose_context(limit_tokens, settings.context_tokens, model.source)
    rows = min(settings.max_sequences, SERIAL_ROWS)
    pool = BlockPool(rows, context_tokens)  # what a sequence keeps is the model's affair: room for as many as run
    threads = settings.threads or resources.threads(network.num_parameters(), resources.cores())
    execution = SerialExecution(network, vocabulary=_vocabulary_size(network), threads=threads)
    serial_verification.verify(network, execution, context_tokens=context_tokens, source=model.source)
    info = _describe(network, model, vocabulary=execution.vocabulary, context_tokens=context_tokens)
    _log_loaded(info, _weights_bytes(network), threads, 0, rows * context_tokens, {})
    scheduler = Scheduler(pool, max_sequences=rows, token_budget=rows + context_tokens)
    return _engine(network, vocabulary, info, scheduler, execution, rows=rows, prefix_cache=False)


def _engine(
    network: Any,
    vocabulary: Vocabulary | None,
    info: ModelInfo,
    scheduler: Scheduler,
    execution: Execution,
    *,
    rows: int,
    prefix_cache: bool,
) -> TransformersEngine:
    return TransformersEngine(
        info=info,
        preparation=Preparation(
            model=info.name,
            vocabulary=info.vocabulary,
            context_tokens=info.context_tokens,
            end_ids=end_ids(network, vocabulary),
            prompts=None if vocabulary is None else Prompts(vocabulary),
            scores_prompts=isinstance(execution, PagedExecution),
        ),
        scheduler=scheduler,
        execution=execution,
        sampler=Sampler(rows=rows, vocabulary=info.vocabulary, device=network.device),
        vocabulary=vocabulary,
        prefix_cache=prefix_cache,
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


def _describe(network: Any, model: ModelSettings, *, vocabulary: int, context_tokens: int) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        source=model.source,
        revision=model.revision,
        architecture=type(network).__name__,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        dtype=str(network.dtype).removeprefix("torch."),
        device=network.device.type,
        context_tokens=context_tokens,
        vocabulary=vocabulary,
    )


def _read_model(folder: Path, source: str, device: torch.device, dtype: DtypeChoice, attention: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise LoadError(f"{source}: its config.json cannot be read: {_first_line(error)}") from error
    if attention == NAME:
        architecture.check_config(config, source)
    try:
        network, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=resources.pick_dtype(dtype, config.get_text_config(decoder=True).dtype, device),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        if attention == NAME and NAME in str(error):  # it has attention of its own, and does not know the hook
            raise architecture.refusal(source, config.model_type, "its layers do not attend through the hook") from error
        raise LoadError(f"{source}: transformers cannot load it: {_first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise LoadError(
            f"{source}: its checkpoint lacks {len(missing)} of the weights of {type(network).__name__} ({missing[0]} ...); fetch it again"
        )
    return network.to(device).eval().requires_grad_(requires_grad=False)


def _read_vocabulary(folder: Path, source: str) -> Vocabulary | None:
    if not checkpoint.has_tokenizer(folder):
        log.warning("no tokenizer: only prompts of token ids are served", model=source)
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise LoadError(f"{source}: its tokenizer cannot be read: {_first_line(error)}") from error
    tokenizer.model_max_length = 1 << 62  # the engine has its own limit, and says so to the requester
    return Vocabulary(tokenizer)


def _weights_bytes(network: Any) -> int:
    return sum(p.numel() * p.element_size() for p in network.parameters())


def _log_loaded(info: ModelInfo, weights_bytes: int, threads: int, cache_bytes: int, cache_tokens: int, rewritten: Mapping[str, int]) -> None:
    log.info(
        "model loaded",
        model=info.name,
        source=info.source,
        architecture=info.architecture,
        device=info.device,
        dtype=info.dtype,
        weights_mib=round(weights_bytes / MIB, 1),
        kv_cache_mib=round(cache_bytes / MIB, 1),
        kv_cache_tokens=cache_tokens,
        context_tokens=info.context_tokens,
        threads=threads,
        rewritten=dict(rewritten),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
