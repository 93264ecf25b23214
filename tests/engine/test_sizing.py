"""How much KV cache there is, and for how long a context."""

import pytest

from pipeline.engine.attention.paged import LayerShape
from pipeline.engine.load_error import LoadError
from pipeline.engine.sizing import MIB, plan_cache
from pipeline.settings import EngineSettings

LAYERS = [LayerShape(kv_heads=2, key_width=64, value_width=64)] * 4
TOKEN_BYTES = 4 * 2 * 128 * 4


def plan(limit_tokens=1_024, free_bytes=1 << 40, **settings):
    """A plan for four layers of float32, 4 KiB a token."""
    return plan_cache(LAYERS, number_bytes=4, limit_tokens=limit_tokens, free_bytes=free_bytes, engine=EngineSettings(**settings), source="m")


def test_every_sequence_has_room_for_a_full_context_where_memory_allows():
    """Blocks are counted whole per sequence."""
    size = plan(limit_tokens=100, max_sequences=3, block_tokens=16)
    assert size.blocks == 3 * 7
    assert size.block_bytes == 16 * TOKEN_BYTES
    assert size.bytes == 21 * 16 * TOKEN_BYTES
    assert size.context_tokens == 100


def test_the_cache_takes_at_most_half_the_free_memory_or_what_is_set():
    """A setting wins over the rule."""
    assert plan(free_bytes=64 * MIB).bytes == 32 * MIB
    assert plan(free_bytes=64 * MIB, kv_cache_mib=48).bytes == 48 * MIB


def test_a_sequence_is_never_longer_than_the_whole_cache():
    """So that each fits alone; the log says so."""
    assert plan(kv_cache_mib=1).context_tokens == MIB // TOKEN_BYTES
    assert plan(kv_cache_mib=1, block_tokens=48).context_tokens == MIB // TOKEN_BYTES // 48 * 48


def test_no_room_for_a_block_is_refused():
    """With the numbers, and the setting that helps."""
    with pytest.raises(LoadError, match=r"m: no room .* raise engine\.kv_cache_mib"):
        plan(free_bytes=TOKEN_BYTES)


def test_the_context_is_the_models_unless_less_is_asked_for():
    """More than the model has is refused, and a model that names none needs the setting."""
    assert plan(context_tokens=512).context_tokens == 512
    assert plan(limit_tokens=None, context_tokens=512).context_tokens == 512
    with pytest.raises(LoadError, match=r"m: .* is 2048, and the model takes 1024"):
        plan(context_tokens=2_048)
    with pytest.raises(LoadError, match=r"m: .* set engine\.context_tokens"):
        plan(limit_tokens=None)
