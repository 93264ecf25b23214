"""Models that cannot be batched run one sequence at a time, and everything around that is as with the others."""

import random
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from pipeline.engine.architecture import seems_batched
from pipeline.engine.load_error import LoadError
from pipeline.engine.loading import build_serial, load
from pipeline.engine.serial.held import Held, held_bytes
from pipeline.engine.sizing import SERIAL_ROWS
from pipeline.scheduling.sequence import Lane
from pipeline.settings import ModelSettings
from tests.engine.serving import SMALL, completion, ids_of, serve
from tests.engine.tiny_models import COMMON, VOCABULARY

FEW_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
NOT_BATCHED = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "deepseek_v3": {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
    },
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 8},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2},
    "qwen3_next": {
        "num_hidden_layers": 4,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
}
PROMPTS = [random.Random(i).choices(range(VOCABULARY), k=tokens) for i, tokens in enumerate((13, 3, 7))]


def network(kind: str, **overrides):
    """A model with random weights and attention of its own."""
    config = AutoConfig.for_model(kind, **(COMMON | NOT_BATCHED.get(kind, {}) | overrides))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config = GenerationConfig()
    return model


def engine_over(model, settings=SMALL):
    """An engine that runs it serially, without a tokenizer."""
    return build_serial(model, None, ModelSettings(name="tiny", source="tiny"), settings)


def alone(model, prompt: list[int], tokens: int) -> list[int]:
    """What `generate` makes of one prompt, by computing all of it for every token."""
    row = torch.tensor([prompt])
    settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0, use_cache=False)
    return model.generate(row, attention_mask=torch.ones_like(row), generation_config=settings)[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", sorted(NOT_BATCHED.keys() - {"deepseek_v3"}))  # which is found out by trying
def test_it_is_known_beforehand_that_they_are_not_batched(kind):
    """By the configuration alone, to plan memory with."""
    assert not seems_batched(AutoConfig.for_model(kind, **(COMMON | NOT_BATCHED[kind])))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", NOT_BATCHED)
def test_sequences_that_take_turns_get_what_each_gets_alone(kind):
    """Caches, recurrent states and models that keep nothing: greedy output equals `generate`, whatever runs in between."""
    model = network(kind)
    expected = [alone(model, prompt, 6) for prompt in PROMPTS]
    assert ids_of(engine_over(model), [completion(prompt, max_tokens=6) for prompt in PROMPTS], arrivals=[0, 1, 3]) == expected


def test_a_failing_sequence_harms_no_other():
    """What was half computed is computed again; the culprit alone gets the error."""
    model = network("mamba")
    expected = [alone(model, prompt, 6) for prompt in PROMPTS]
    engine, forward = engine_over(model), model.forward

    def fails_on_the_second(input_ids, **rest):
        if input_ids.tolist() == [PROMPTS[1]]:
            raise ZeroDivisionError
        return forward(input_ids=input_ids, **rest)

    model.forward = fails_on_the_second
    answers = serve(engine, [completion(prompt, max_tokens=6) for prompt in PROMPTS])
    assert answers[1, 0].error is not None
    assert [answers[i, 0].token_ids for i in (0, 2)] == [expected[0], expected[2]]


def test_nothing_is_kept_of_what_has_ended_or_was_cancelled():
    """States go with their sequences."""
    engine = engine_over(network("mamba"))
    ids_of(engine, [completion(prompt, max_tokens=3) for prompt in PROMPTS])
    for key, prompt in enumerate(PROMPTS):
        engine.add(key, engine.prepare(completion(prompt, max_tokens=9)), Lane.DEFAULT, 0.0)
    engine.step(0.0)
    engine.cancel(0)
    engine.cancel(1)
    engine.step(0.0)
    assert [sequence.key for sequence in engine._execution._kept] == [2]


def test_as_many_run_by_turns_as_memory_holds():
    """What grows with the sequence bounds them by its full length, at least one runs; a state that stays as it is bounds nobody."""
    roomy = SMALL.model_copy(update={"max_sequences": 64, "kv_cache_mib": 4})
    assert engine_over(network("mamba"), roomy)._scheduler.budget.sequences == SERIAL_ROWS
    assert engine_over(network("gptj"), roomy)._scheduler.budget.sequences == SERIAL_ROWS
    long = network("gptj", max_position_embeddings=4_096)  # keys and values of two layers, 32 numbers each, in float32: 2 MiB
    assert engine_over(long, roomy)._scheduler.budget.sequences == 2
    assert engine_over(long, roomy.model_copy(update={"kv_cache_mib": 1}))._scheduler.budget.sequences == 1


def test_what_a_model_keeps_is_counted_whatever_it_is_made_of():
    """Tensors in lists, mappings and objects, each once; what grows is told from what does not."""
    tensor = torch.zeros(3, 4)
    kept = {"state": [tensor, tensor], "cache": SimpleNamespace(layers=(SimpleNamespace(keys=torch.zeros(5, dtype=torch.bfloat16)),))}
    kept["cache"].itself = kept["cache"]
    assert held_bytes(kept) == 3 * 4 * 4 + 5 * 2
    assert Held.between((5, 150), (9, 190)) == Held(fixed=100, per_token=10)
    assert Held.between((5, 150), (9, 150)).of(4_096) == 150


def test_loading_falls_back_and_says_so(tmp_path, capfd):
    """A checkpoint that cannot be batched is served all the same, with one warning that names the reason."""
    model = network("gptj")
    model.save_pretrained(tmp_path)
    engine = load(ModelSettings(name="tiny", source=str(tmp_path)), SMALL)
    assert ids_of(engine, [completion(PROMPTS[0], max_tokens=6)]) == [alone(model, PROMPTS[0], 6)]
    said = capfd.readouterr().out
    assert said.count("model_not_batched") == 1
    assert "model type 'gptj' cannot be batched: its layers do not attend through the hook" in said
    assert "one sequence at a time" in said


def test_a_model_that_does_not_continue_what_it_keeps_is_refused():
    """Proof before service here too."""
    model = network("mamba")
    forward = model.forward
    model.forward = lambda input_ids, **rest: forward(input_ids=input_ids.flip(1) if rest.get("use_cache") else input_ids, **rest)
    with pytest.raises(LoadError, match="token by token its logits are"):
        engine_over(model)
