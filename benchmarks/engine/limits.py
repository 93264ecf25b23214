"""The least time that a load can take on a machine: what has to be read and what has to be multiplied, and nothing else.

decode step  >= max((weight bytes + context tokens * KV bytes per token) / bandwidth, 2 * parameters * batch / FLOPS)
prefill      >= (2 * N * T + 2 * L * H * d * T^2) / FLOPS
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.engine.loads import Ask

STORED_BYTES = 2
"""Of a weight: an engine may keep it as it is stored, and widen it where it multiplies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the probe got out of it."""

    bytes_per_s: float
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What the formula needs of a model. `body` parameters multiply every token, `head` ones only a token that is sampled from.

    A number of the KV cache takes `number_bytes`.
    """

    body: int
    head: int
    layers: int
    query_width: int
    kv_width: int
    number_bytes: int

    @property
    def kv_bytes(self) -> int:
        """KV cache of one token: keys and values of all layers."""
        return 2 * self.layers * self.kv_width * self.number_bytes

    @property
    def weight_bytes(self) -> int:
        """What a decode step reads."""
        return (self.body + self.head) * STORED_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """What a load cannot do without."""

    wall_s: float
    bytes: float
    flops: float


def size_of(config: dict[str, Any], number_bytes: int) -> Size:
    """Counts a Llama-like model from its config.json: attention projections, a gated MLP, one output matrix."""
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    query_width, kv_width = heads * width, config["num_key_value_heads"] * width
    layer = hidden * (2 * query_width + 2 * kv_width) + 3 * hidden * config["intermediate_size"]
    return Size(
        body=layers * layer,
        head=hidden * config["vocab_size"],
        layers=layers,
        query_width=query_width,
        kv_width=kv_width,
        number_bytes=number_bytes,
    )


def least(size: Size, machine: Machine, asks: Sequence[Ask], concurrent: int) -> Least:
    """Plays the load through with an engine that has no cost of its own: `concurrent` requests under way, all advance in each step."""
    waiting = deque(asks)
    running: list[tuple[int, int]] = []  # context and what is left to generate, in tokens
    wall_s = moved = multiplied = 0.0
    while waiting or running:
        while waiting and len(running) < concurrent:
            ask = waiting.popleft()
            flops = prefill_flops(size, len(ask.prompt_ids))
            wall_s, multiplied = wall_s + flops / machine.flops, multiplied + flops
            if ask.max_tokens > 1:
                running.append((len(ask.prompt_ids) + 1, ask.max_tokens - 1))
        if not running:
            continue
        step_bytes, step_flops = decode_cost(size, [context for context, _ in running])
        wall_s += max(step_bytes / machine.bytes_per_s, step_flops / machine.flops)
        moved, multiplied = moved + step_bytes, multiplied + step_flops
        running = [(context + 1, left - 1) for context, left in running if left > 1]
    return Least(wall_s=wall_s, bytes=moved, flops=multiplied)


def prefill_flops(size: Size, tokens: int) -> float:
    """One prompt, its last token sampled from."""
    return 2.0 * size.body * tokens + 2.0 * size.head + 2.0 * size.layers * size.query_width * tokens**2


def decode_cost(size: Size, contexts: Sequence[int]) -> tuple[float, float]:
    """Bytes and operations of one step over sequences of these lengths."""
    return float(size.weight_bytes + sum(contexts) * size.kv_bytes), 2.0 * (size.body + size.head) * len(contexts)
