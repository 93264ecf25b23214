"""Memory, planned before anything is loaded."""

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from pipeline.engine import memory
from pipeline.engine.load_error import LoadError
from pipeline.engine.memory import Need, plan, share, weights_bytes
from pipeline.models import TINY
from pipeline.settings import MIB, EngineKind, EngineSettings, ModelSettings, Settings, load
from workers.stream import load_engines

GIB = 1024 * MIB


def need(name: str, kv_wanted: int, *, weights: int = 0, kv_least: int = 0) -> Need:
    """A model's need."""
    return Need(name=name, weights=weights, workspace=0, kv_wanted=kv_wanted, kv_least=kv_least)


def tiny(name: str, source: str = str(TINY)) -> ModelSettings:
    """The model that ships, under a name."""
    return ModelSettings(name=name, source=source)


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """So much memory is free."""
    monkeypatch.setattr(memory.resources, "free_memory_bytes", lambda _: size)


def test_weights_are_counted_by_the_files_headers():
    """As many numbers as the file holds, in the precision that they will have."""
    with safe_open(TINY / "model.safetensors", "pt") as file:
        numbers = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 -- it is no mapping
    assert weights_bytes(TINY, 4) == 4 * numbers
    assert weights_bytes(TINY, 2) == 2 * numbers


def test_a_model_that_wants_less_leaves_the_rest_to_the_others():
    """Half of what is free is shared out: a small cache in full, two large ones evenly."""
    assert share([need("a", 900), need("b", 100), need("c", 800)], 2_000) == {"b": 100, "c": 450, "a": 450}


def test_a_cache_of_a_set_size_comes_first():
    """It is taken in full, before the rest is shared."""
    assert share([need("a", 900, kv_least=500), need("b", 900)], 1_500) == {"a": 500, "b": 500}


@given(
    st.lists(st.builds(Need, name=st.uuids().map(str), weights=st.integers(0, 50), workspace=st.integers(0, 50), kv_wanted=st.integers(0, 500))),
    st.integers(1, 2_000),
)
def test_models_never_get_more_than_there_is_nor_more_than_they_want(needs: list[Need], size: int):
    """Whatever they are; or all are refused."""
    fixed = sum(one.fixed for one in needs)
    if fixed >= size:
        with pytest.raises(LoadError):
            share(needs, size)
        return
    shares = share(needs, size)
    assert fixed + sum(shares.values()) <= size
    assert all(0 <= shares[one.name] <= one.kv_wanted for one in needs)


def test_a_model_larger_than_memory_is_refused_before_it_is_loaded(monkeypatch):
    """In one line: what it takes, what there is, and what would help."""
    free(monkeypatch, 4 * MIB)
    with pytest.raises(LoadError, match=r"^does not fit into 4 MiB .*weights \d+ MiB.* --dtype bfloat16") as refused:
        load_engines(load({"models": [{"name": "tiny", "source": str(TINY)}]}))
    assert "\n" not in str(refused.value)


def test_a_cache_that_is_set_too_large_is_named(monkeypatch):
    """The setting that would help is in the message."""
    free(monkeypatch, GIB)
    with pytest.raises(LoadError, match=r"lower engine\.kv_cache_mib"):
        plan([tiny("a")], Settings(engine=EngineSettings(kv_cache_mib=2_048)))


def test_several_models_share_one_budget(monkeypatch):
    """Two caches of one worker are together no larger than one alone would be, where that one would like more."""
    free(monkeypatch, GIB // 8)
    one, two = plan([tiny("a")], Settings()), plan([tiny("a"), tiny("b")], Settings())
    assert one["a"] > two["a"] == two["b"] > 1
    assert sum(two.values()) <= one["a"]


def test_one_sequence_of_full_length_fits_into_what_is_planned_for_one(monkeypatch):
    """The plan, in whole mebibytes, is never short of what is wanted: the context stays what was asked for."""
    free(monkeypatch, GIB)
    settings = Settings(models=(tiny("a"),), engine=EngineSettings(context_tokens=1_000, max_sequences=1, threads=1))
    (engine,) = load_engines(settings).values()
    assert engine.info.context_tokens == 1_000
    assert engine.stats().kv_blocks_total == -(-1_000 // settings.engine.block_tokens)
    engine.close()


def test_a_model_that_is_not_batched_is_planned_for_the_few_that_run_by_turns(monkeypatch, tmp_path):
    """It leaves the rest to the others; one without attention keeps a state that does not grow."""
    free(monkeypatch, GIB)
    wanted = {}
    for kind, more in {"llama": {}, "gptj": {"n_layer": 2, "n_embd": 64, "n_head": 4}, "mamba": {}}.items():
        config = AutoConfig.for_model(kind, **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16} | more)
        config.save_pretrained(tmp_path / kind)
        save_file({"weight": torch.zeros(1)}, tmp_path / kind / "model.safetensors")
        wanted[kind] = plan([tiny(kind, str(tmp_path / kind))], Settings(engine=EngineSettings(context_tokens=2_048)))[kind]
    token_mib = 2 * 2 * 64 * 4 / MIB
    assert wanted == {"llama": 64 * 2_048 * token_mib, "gptj": 8 * 2_048 * token_mib, "mamba": 1}


def test_a_worker_serves_several_models_side_by_side(monkeypatch):
    """Each within its part; a model of another kind takes none."""
    free(monkeypatch, GIB // 2)
    fake = ModelSettings(name="words", source="-", engine=EngineKind.FAKE)
    settings = Settings(models=(tiny("a"), tiny("b"), fake), engine=EngineSettings(context_tokens=64, max_sequences=4, threads=1))
    engines = load_engines(settings)
    assert sorted(engines) == ["a", "b", "words"]
    for engine in engines.values():
        engine.close()


@pytest.mark.parametrize(
    "damage", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0[]", b"\x05\0\0\0\0\0\0\0nonse"], ids=["empty", "no length", "no object", "no JSON"]
)
def test_damaged_weights_are_refused_in_one_line(tmp_path, damage: bytes):
    """Whatever is where the header should be."""
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(LoadError, match="its weights cannot be read") as refused:
        plan([tiny("a", str(folder))], Settings())
    assert "\n" not in str(refused.value)
