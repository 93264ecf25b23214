"""What the models of a worker will take, before any of them is loaded, and how they share what there is.

Weights and workspace have to fit; of what is left a half goes to the KV caches, and the other half stays free for what nobody
foresees. The figures come from the files' headers and the configurations alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pipeline.engine import architecture, checkpoint, reading, resources
from pipeline.engine.load_error import LoadError
from pipeline.engine.pooling.recipe import find_task
from pipeline.engine.scoring import workspace_bytes
from pipeline.engine.sizing import SERIAL_CONTEXT_TOKENS, SERIAL_ROWS
from pipeline.settings import MIB, EngineSettings, ModelSettings, Settings

log = structlog.get_logger(__name__)

KV_SHARE = 0.5
STATE_TOKENS = 64
"""What a recurrent layer keeps of a sequence, in tokens of a layer of the same width that attends."""
LOGITS_COPIES = 3
"""Logits, what the sampler makes of them, and their sorted form, all in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one model takes. `kv_wanted` is a cache for as many sequences of full length as run at a time; `kv_least` is what the settings demand."""

    name: str
    weights: int
    workspace: int
    kv_wanted: int
    kv_least: int = 0

    @property
    def fixed(self) -> int:
        """What it takes in any case."""
        return self.weights + self.workspace + self.kv_least


def plan(models: Sequence[ModelSettings], settings: Settings) -> dict[str, int]:
    """Plans the memory of all models together, logs the plan, and gives each model's KV cache in MiB, by name.

    Raises:
        LoadError: They do not fit; the message says what each takes and what to change. Or a model cannot be read.
    """
    device = resources.pick_device(settings.device)
    if not resources.is_available(device):
        raise LoadError(f"there is no {device.type} device here; use --device auto")
    free = resources.free_memory_bytes(device)
    needs = [_need(model, settings, device) for model in models]
    shares = share(needs, free)
    for need in needs:
        log.info(
            "memory_plan",
            model=need.name,
            weights_mib=need.weights // MIB,
            kv_cache_mib=shares[need.name] // MIB,
            workspace_mib=need.workspace // MIB,
            free_mib=free // MIB,
        )
    return {name: max(1, -(-kv // MIB)) for name, kv in shares.items()}  # up: a cache a little too small would cut the context


def share(needs: Sequence[Need], free: int) -> dict[str, int]:
    """Divides the memory: bytes of KV cache by name. Who wants less than an even part gets it, and leaves the rest to the others.

    Raises:
        LoadError: Not even what they take in any case is there.
    """
    fixed = sum(need.fixed for need in needs)
    if fixed >= free:
        raise LoadError(_too_large(needs, free))
    left = int((free - fixed) * KV_SHARE)
    shares = {need.name: need.kv_least for need in needs if need.kv_least}
    asking = sorted((need for need in needs if not need.kv_least), key=lambda need: need.kv_wanted)
    for position, need in enumerate(asking):
        shares[need.name] = min(need.kv_wanted, left // (len(asking) - position))
        left -= shares[need.name]
    return shares


def weights_bytes(folder: Path, number_bytes: int) -> int:
    """Counts a checkpoint's numbers by the headers of its files: a length of 8 bytes, then JSON (the safetensors format).

    Raises:
        ValueError: A file is cut short or not in that format.
    """
    return sum(_numbers(file) for file in folder.glob("*.safetensors") if not file.name.startswith("consolidated")) * number_bytes


def _numbers(file: Path) -> int:
    with file.open("rb") as data:
        length = int.from_bytes(data.read(8), "little")
        if not 0 < length <= file.stat().st_size - 8:
            raise ValueError(f"{file.name} is no safetensors file, or cut short")
        header = json.loads(data.read(length))
    return sum(_product(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _product(shape: Sequence[int]) -> int:
    numbers = 1
    for side in shape:
        numbers *= side
    return numbers


def _need(model: ModelSettings, settings: Settings, device: Any) -> Need:
    folder = checkpoint.find(model.source, model.revision)
    config = reading.read_config(folder, model.source).get_text_config(decoder=True)
    number_bytes = resources.pick_dtype(settings.dtype, config.dtype, device).itemsize
    try:
        weights = weights_bytes(folder, number_bytes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{model.source}: its weights cannot be read ({error}); fetch the model again") from error
    engine = settings.engine
    only_reads = find_task(folder) is not None
    kv_wanted = 0 if only_reads else _kv_wanted(config, settings, number_bytes)
    return Need(
        name=model.name,
        weights=weights,
        workspace=_workspace(config, engine, engine.pooling_token_budget if only_reads else engine.token_budget, number_bytes),
        kv_wanted=kv_wanted,
        kv_least=(engine.kv_cache_mib or 0) * MIB if kv_wanted else 0,
    )


def _kv_wanted(config: Any, settings: Settings, number_bytes: int) -> int:
    heads = getattr(config, "num_attention_heads", None) or 1
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    engine, limit_tokens = settings.engine, architecture.context_limit(config)
    attending = architecture.attention_layers(config)
    if architecture.seems_batched(config):
        blocks = -(-(engine.context_tokens or limit_tokens or 1) // engine.block_tokens)
        tokens = engine.max_sequences * blocks * engine.block_tokens * attending
    else:
        longest = engine.context_tokens or limit_tokens or SERIAL_CONTEXT_TOKENS
        tokens = min(engine.max_sequences, SERIAL_ROWS) * (attending * longest + (config.num_hidden_layers - attending) * STATE_TOKENS)
    return int(2 * kv_heads * width * number_bytes * tokens)


def _workspace(config: Any, engine: EngineSettings, step_tokens: int, number_bytes: int) -> int:
    """A step's activations, of which one layer's are alive at a time, the sampler's rows, and slices of those that are scored."""
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    activations = step_tokens * (4 * config.hidden_size + 2 * inner) * number_bytes
    sampled = LOGITS_COPIES * engine.max_sequences * config.vocab_size * 4
    return int(activations + sampled + workspace_bytes(config.vocab_size, step_tokens))


def _too_large(needs: Sequence[Need], free: int) -> str:
    parts = "; ".join(
        f"{need.name}: weights {need.weights // MIB} MiB, workspace {need.workspace // MIB} MiB, KV cache at least {need.kv_least // MIB} MiB"
        for need in needs
    )
    ways = ["pick a smaller model", "use --dtype bfloat16", "lower engine.max_sequences or engine.token_budget"]
    ways += ["lower engine.kv_cache_mib"] if any(need.kv_least for need in needs) else []
    ways += ["serve fewer models in one worker"] if len(needs) > 1 else []
    return f"does not fit into {free // MIB} MiB of free memory ({parts}): {', or '.join(ways)}"
