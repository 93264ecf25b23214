"""First weights that can look back: a head that sees the token before, and a head that finds where the present token stood earlier.

A story repeats the names and things of its request. A small model that starts from noise has not discovered after a million tokens that copying
helps; one that starts with the two heads of Olsson et al. ("In-context learning and induction heads", 2022) in place copies from the first step.
Everything else starts from noise or silent as usual, and training may change all of it.
"""

import torch
from transformers import LlamaForCausalLM

_ALL = slice(None)
_TOKEN_SCALE = 0.07
_CONSTANT = 0.35
"""Value of the first embedding dimension of every token: what is the same everywhere lets a head attend by position alone."""
_POSITION_SCALE = 4.0
_MATCH_SCALE = 2.5
"""Both make attention sharp: over 0.9 on the token before, over 0.8 on the match."""
_WRITE_SCALE = 0.19
"""What the first head writes is as large as a token's embedding."""
_COPY_SCALE = 1.0
_FAST_PAIRS = slice(0, 5)
"""Rotary pairs that turn enough from one token to the next to tell them apart."""
_SLOW_PAIRS = slice(7, None)
"""Rotary pairs that hardly turn within a context, so that they compare content."""


Part = tuple[torch.nn.Parameter, tuple[slice, slice]]
"""A block of a matrix."""


def look_back(model: LlamaForCausalLM) -> list[Part]:
    """Puts one pair of heads per KV head into the first two layers, in place, and returns the blocks that they are made of."""
    config = model.config
    kv_heads, size = config.num_key_value_heads, config.head_dim
    spaces = _directions(2 * kv_heads * size, config.hidden_size).split(size)
    embedding = model.model.embed_tokens.weight
    parts: list[Part] = [(embedding, (_ALL, slice(0, 1)))]
    with torch.no_grad():
        embedding.normal_(std=_TOKEN_SCALE)
        embedding[:, 0] = _CONSTANT
        for layer in model.model.layers:  # every branch starts silent, so that what the heads write can be read
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.o_proj.weight.zero_()
        for kv_head in range(kv_heads):
            parts += _place(model, kv_head, seen=spaces[2 * kv_head], written=spaces[2 * kv_head + 1])
    return parts


def _place(model: LlamaForCausalLM, kv_head: int, seen: torch.Tensor, written: torch.Tensor) -> list[Part]:
    config = model.config
    size, head = config.head_dim, kv_head * config.num_attention_heads // config.num_key_value_heads
    kv_rows, rows = slice(kv_head * size, (kv_head + 1) * size), slice(head * size, (head + 1) * size)
    before, same = (layer.self_attn for layer in model.model.layers[:2])
    query, key = _one_back(size, config.rope_parameters["rope_theta"])
    slow = _slow_mask(size)
    blocks = [
        (before.q_proj.weight, (rows, _ALL), _POSITION_SCALE * torch.outer(query, _first(config.hidden_size))),
        (before.k_proj.weight, (kv_rows, _ALL), _POSITION_SCALE * torch.outer(key, _first(config.hidden_size))),
        (before.v_proj.weight, (kv_rows, _ALL), seen),
        (before.o_proj.weight, (_ALL, rows), _WRITE_SCALE * written.T),
        (same.q_proj.weight, (rows, _ALL), _MATCH_SCALE * slow * seen),
        (same.k_proj.weight, (kv_rows, _ALL), _MATCH_SCALE * slow * written),
        (same.v_proj.weight, (kv_rows, _ALL), seen),
        (same.o_proj.weight, (_ALL, rows), _COPY_SCALE * seen.T),
    ]
    for parameter, block, values in blocks:
        parameter[block] = values
    return [(parameter, block) for parameter, block, _ in blocks]


def _first(width: int) -> torch.Tensor:
    return torch.eye(1, width)[0]


def _directions(count: int, width: int) -> torch.Tensor:
    """Draws orthonormal rows, of shape [count, width], that leave the constant dimension out."""
    rows = torch.zeros(count, width)
    rows[:, 1:] = torch.nn.init.orthogonal_(torch.empty(count, width - 1))
    return rows


def _one_back(size: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives a query and a key whose product, once rotated by their positions, is greatest one position back."""
    pairs = size // 2
    turns = theta ** (-torch.arange(pairs) / pairs)
    used = torch.zeros(pairs)
    used[_FAST_PAIRS] = 1
    query = torch.cat((turns.cos() * used, -turns.sin() * used))
    key = torch.cat((used, torch.zeros(pairs)))
    return query, key


def _slow_mask(size: int) -> torch.Tensor:
    mask = torch.zeros(size // 2)
    mask[_SLOW_PAIRS] = 1
    return torch.cat((mask, mask))[:, None]
