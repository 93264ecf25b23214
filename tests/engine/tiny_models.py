"""Tiny models with random weights, one per architecture, and how transformers itself continues a prompt with them."""

import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from pipeline.engine.attention.hook import NAME

VOCABULARY = 96
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
MIXTURE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
WIDE: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 248, "max_position_embeddings": 64}
"""Keys and values so wide that a cache of one MiB holds eight blocks of eight tokens, and of no width that has a kernel of its own."""


def tiny_model(kind: str, **overrides: Any) -> Any:
    """A model of `kind` whose weights are large enough for its output to wander; attention goes through the hook."""
    config = AutoConfig.for_model(kind, **(COMMON | overrides))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.1 if "embed" in name or "wte" in name else 1.5 * parameter.shape[-1] ** -0.5)
    model.generation_config = GenerationConfig()
    return model.eval()


_eager: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def eager(model: Any) -> Any:
    """A copy of a model that attends by transformers' own code; made once, so that nobody may change the model afterwards."""
    if model not in _eager:
        _eager[model] = copy.deepcopy(model)
        _eager[model].set_attn_implementation("eager")
    return _eager[model]


def continued_by_transformers(model: Any, prompt_ids: list[int], tokens: int, **options: Any) -> list[int]:
    """What `generate` makes of one prompt alone, greedily unless `options` say otherwise."""
    row = torch.tensor([prompt_ids])
    settings = GenerationConfig(**({"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0} | options))
    output = eager(model).generate(row, attention_mask=torch.ones_like(row), generation_config=settings)
    return output[0, len(prompt_ids) :].tolist()
