"""The models that are measured: random weights in the shapes of known ones, made once, and the one that ships; all are stored in bfloat16."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.models import TINY

CACHE = Path(__file__).parents[2] / ".cache" / "benchmarks"
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A transformers configuration, by its kind."""

    kind: str
    config: dict[str, Any]


SHAPES: dict[str, Shape] = {
    "smollm2-135m": Shape(
        kind="llama",
        config={
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1_536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8_192,
            "rope_theta": 100_000.0,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": Shape(
        kind="qwen3",
        config={
            "vocab_size": 151_936,
            "hidden_size": 1_024,
            "intermediate_size": 3_072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40_960,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
        },
    ),
}
SHIPPED = "tiny"
NAMES = (*SHAPES, SHIPPED)


def folder_of(name: str) -> Path:
    """Finds the model's folder; a random one is made if it is not there yet."""
    return TINY if name == SHIPPED else made(name, SHAPES[name])


def made(name: str, shape: Shape) -> Path:
    """A folder with a model of random weights, always the same."""
    folder = CACHE / f"{name}-bfloat16"
    if not (folder / "config.json").exists():
        _make(shape, folder)
    return folder


def _make(shape: Shape, folder: Path) -> None:
    import torch  # noqa: PLC0415 -- only who makes weights pays for the import
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    torch.manual_seed(SEED)
    config = AutoConfig.for_model(shape.kind, **shape.config)
    network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    part = folder.with_name(f"{folder.name}.part")
    network.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
