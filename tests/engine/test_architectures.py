"""Which architectures are served, token for token as transformers' own `generate`, and which are refused."""

import random
from functools import partial

import pytest
import torch
from transformers import AutoConfig

from pipeline.engine.architecture import CannotBatch, seems_batched
from pipeline.engine.load_error import LoadError
from pipeline.engine.loading import load
from pipeline.scheduling.budget import Budget
from pipeline.settings import ModelSettings
from tests.engine.serving import SMALL, completion, engine_of, ids_of
from tests.engine.tiny_models import MIXTURE, VOCABULARY, continued_by_transformers, tiny_model

LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
DEEPSEEK = LATENT | {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
}
WINDOW = {"sliding_window": 7}

SERVED = {
    "apertus": {},
    "arcee": {},
    "biogpt": {},
    "cohere": {},
    "cohere2": WINDOW,
    "deepseek_v3": DEEPSEEK,
    "ernie4_5": {},
    "exaone4": WINDOW,
    "gemma": {},
    "gemma2": WINDOW | {"attn_logit_softcapping": 1.0},
    "gemma3_text": WINDOW,
    "glm": {},
    "glm4": {},
    "gpt2": {},
    "gpt_neox": {},
    "gpt_oss": WINDOW | MIXTURE,
    "granite": {},
    "helium": {},
    "llama": {},
    "minicpm3": LATENT,
    "mistral": WINDOW,
    "mixtral": MIXTURE,
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": WINDOW,
    "olmoe": MIXTURE,
    "opt": {"ffn_dim": 48},
    "persimmon": {},
    "phi": {},
    "phi3": WINDOW,
    "phimoe": MIXTURE,
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1, **WINDOW},
    "qwen2_moe": MIXTURE,
    "qwen3": {},
    "qwen3_moe": MIXTURE,
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": WINDOW,
}


@pytest.mark.parametrize(("kind", "overrides"), SERVED.items(), ids=SERVED)
def test_batched_greedy_output_is_that_of_generate(kind, overrides):
    """Whatever the chunks, whoever comes first, whoever is preempted, whatever is found: each prompt gets what it gets alone."""
    model = tiny_model(kind, **overrides)
    draw = random.Random(kind)
    prompts = [draw.choices(range(VOCABULARY), k=tokens) for tokens in (27, 3, 12)]
    prompts.append(prompts[0][:18] + prompts[1])
    requests = [completion(prompt, max_tokens=10) for prompt in prompts]
    expected = [continued_by_transformers(model, prompt, 10) for prompt in prompts]
    assert len({token for answer in expected for token in answer}) > 3, "an output that stands still would prove little"
    engine = engine_of(model)
    assert seems_batched(model.config), "memory is planned by that"
    assert ids_of(engine, requests, arrivals=[0, 1, 3, 3]) == expected
    for chunk_tokens, arrivals in ((7, [4, 2, 0, 1]), (64, [0, 3, 1, 0])):
        engine._scheduler.budget = Budget(tokens=chunk_tokens, sequences=3)
        before = engine.stats()
        assert ids_of(engine, requests, arrivals=arrivals, between=partial(preempt_at, engine, {3, 6, 9})) == expected
        after = engine.stats()
        assert after.preemptions_total >= before.preemptions_total + 2
        assert after.prefix_hit_tokens_total >= before.prefix_hit_tokens_total + 24 + 16


def preempt_at(engine, steps, step):
    """Takes the rows and blocks of whoever is last in rank, before certain steps."""
    scheduler = engine._scheduler
    if step in steps and scheduler.running:
        scheduler._preempt(scheduler.running[-1])


@pytest.mark.parametrize(
    ("kind", "overrides", "reason"),
    [
        ("bloom", {}, "0 of its 2 layers"),
        ("diffllama", {}, "more than once"),
        ("doge", {}, "mask of its own"),
        ("llama", WINDOW, "layer 0 has a sliding window of 7 that it does not tell"),
        ("llama4_text", {}, "in chunks"),
        ("mamba", {}, "0 of its 2 layers"),
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}, "packed row"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "1 of its 2 layers"),
        ("qwen3_next", {}, "0 of its 2 layers"),
        ("recurrent_gemma", {}, "0 of its 2 layers"),
    ],
)
def test_what_cannot_be_batched_is_refused_by_name(kind, overrides, reason):
    """Recurrence, linear attention, ALiBi and masks of a model's own: one error names the model type and why."""
    with pytest.raises(CannotBatch, match=f"tiny: model type '{kind}' cannot be batched: .*{reason}") as refusal:
        engine_of(tiny_model(kind, **overrides))
    assert "\n" not in str(refusal.value)


def test_a_model_that_computes_something_else_in_a_packed_row_is_refused():
    """Whatever no list of architectures knows of: here rotary positions that count from the row's start."""
    model = tiny_model("llama")
    rotary = model.model.rotary_emb
    told = rotary.forward
    rotary.forward = lambda hidden, position_ids: told(hidden, torch.arange(position_ids.shape[1])[None])
    with pytest.raises(LoadError, match=r"over the paged cache its logits are .* off"):
        engine_of(model)


def test_a_model_that_fails_on_a_packed_row_is_refused():
    """Not with its own error, but with the one that says what happened."""
    model = tiny_model("llama")
    forward = model.forward
    model.forward = lambda input_ids, **rest: forward(input_ids=input_ids, **rest) if input_ids.shape[1] == 2 else 1 / 0
    with pytest.raises(LoadError, match=r"a packed batch fails in it \(ZeroDivisionError\)"):
        engine_of(model)


def test_an_encoder_decoder_is_refused_before_weights_are_read(tmp_path):
    """Nobody waits for gigabytes to learn it."""
    AutoConfig.for_model("t5").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(LoadError, match="model type 't5' is an encoder-decoder"):
        load(ModelSettings(name="tiny", source=str(tmp_path)), SMALL)


def test_rotary_variants_that_follow_the_batch_are_served_up_to_their_original_context():
    """Dynamic NTK and longrope change with the longest sequence only beyond it; within it they equal `generate`."""
    long = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 4.0}
    model = tiny_model("phi3", rope_parameters=long, original_max_position_embeddings=32, max_position_embeddings=128)
    engine = engine_of(model)
    assert engine.info.context_tokens == 32
    prompt = list(range(20))
    assert ids_of(engine, [completion(prompt, max_tokens=10)]) == [continued_by_transformers(model, prompt, 10)]
