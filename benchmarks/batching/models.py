"""The models that policies are compared on: the one that ships, and random weights in two larger shapes."""

from pathlib import Path

from benchmarks.engine import models
from benchmarks.engine.models import SHIPPED, Shape

SMALL = "llama-15m"
SHAPE = Shape(
    kind="llama",
    config={
        "vocab_size": 12_288,
        "hidden_size": 384,
        "intermediate_size": 1_024,
        "num_hidden_layers": 7,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2_048,
        "tie_word_embeddings": True,
    },
)
NAMES = (SHIPPED, SMALL, "smollm2-135m")


def folder_of(name: str) -> Path:
    """Finds a model's folder; a random one is made if it is not there yet."""
    return models.made(SMALL, SHAPE) if name == SMALL else models.folder_of(name)
