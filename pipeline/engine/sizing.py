"""How long a context is served, and how many KV blocks there are for it."""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from pipeline.engine.attention.paged import LayerShape
from pipeline.engine.load_error import LoadError
from pipeline.settings import EngineSettings

log = structlog.get_logger(__name__)

MIB = 1024 * 1024
SERIAL_ROWS = 8
"""Sequences that run by turns where they cannot be batched: nobody waits for the end of all others, and what they keep stays small."""
SERIAL_CONTEXT_TOKENS = 4096
"""Longest context of a model that is not batched where the config names none, as for recurrent ones."""


@dataclass(frozen=True, slots=True)
class CacheSize:
    """The plan of a KV cache. No sequence is longer than `context_tokens`, so that each alone fits."""

    blocks: int
    block_bytes: int
    context_tokens: int

    @property
    def bytes(self) -> int:
        """Memory of all layers together."""
        return self.blocks * self.block_bytes


def plan_cache(
    shapes: Iterable[LayerShape], *, number_bytes: int, limit_tokens: int | None, free_bytes: int, engine: EngineSettings, source: str
) -> CacheSize:
    """Sizes the cache: what `max_sequences` of full length need, within `kv_cache_mib` or half the free memory.

    Args:
        shapes: What each layer keeps per token.
        number_bytes: Size of a number in the cache.
        limit_tokens: The model's own context, None where it names none.
        free_bytes: Free memory, weights loaded.
        engine: The settings.
        source: The model, for messages.

    Raises:
        LoadError: There is no room for one block, or the context that is asked for is longer than the model's.
    """
    context_tokens = choose_context(limit_tokens, engine.context_tokens, source)
    block_bytes = sum(shape.width for shape in shapes) * engine.block_tokens * number_bytes
    budget_bytes = free_bytes // 2 if engine.kv_cache_mib is None else engine.kv_cache_mib * MIB
    wanted = engine.max_sequences * -(-context_tokens // engine.block_tokens)
    blocks = min(wanted, budget_bytes // block_bytes)
    if blocks * engine.block_tokens < 2:
        raise LoadError(f"{source}: no room for a KV cache (a block takes {block_bytes} bytes, there are {budget_bytes}): raise engine.kv_cache_mib")
    if blocks * engine.block_tokens < context_tokens:
        log.warning("the KV cache bounds the context", model=source, model_tokens=context_tokens, cache_tokens=blocks * engine.block_tokens)
        context_tokens = blocks * engine.block_tokens
    return CacheSize(blocks, block_bytes, context_tokens)


def choose_context(limit_tokens: int | None, asked_tokens: int | None, source: str) -> int:
    """Settles the longest context: as asked, within the model's own.

    Raises:
        LoadError: It is longer than the model's, or neither says one.
    """
    if asked_tokens is None:
        if limit_tokens is None:
            raise LoadError(f"{source}: its config names no context length: set engine.context_tokens")
        return limit_tokens
    if limit_tokens is not None and asked_tokens > limit_tokens:
        raise LoadError(f"{source}: engine.context_tokens is {asked_tokens}, and the model takes {limit_tokens}: lower it or leave it out")
    return asked_tokens


def serial_rows(sequence_bytes: int, *, free_bytes: int, engine: EngineSettings) -> int:
    """How many sequences run by turns, one at least: what they keep at full length stays within `kv_cache_mib`, or half the free memory."""
    budget_bytes = free_bytes // 2 if engine.kv_cache_mib is None else engine.kv_cache_mib * MIB
    return max(min(engine.max_sequences, SERIAL_ROWS, budget_bytes // max(sequence_bytes, 1)), 1)
