"""Who is measured. Each module imports its own engine, in a process (and an environment) of its own."""

from importlib import import_module
from typing import cast

from benchmarks.engine.contenders.base import Contender, Setup

MODULES = {
    "penstock": "penstock",
    "vllm": "vllm",
    "transformers-cb": "transformers_batching",
    "generate-16": "static_batches",
}
OURS = "penstock"


def make(name: str, setup: Setup) -> Contender:
    """Loads the model and warms up."""
    return cast("Contender", import_module(f"{__name__}.{MODULES[name]}").start(setup))
