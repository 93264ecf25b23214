"""The linear layers that some embedding models have behind the pooling: sentence-transformers' Dense."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from pipeline.engine.load_error import LoadError

WEIGHTS = "model.safetensors"

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda vectors: vectors,
    "Tanh": torch.tanh,
    "ReLU": functional.relu,
    "GELU": functional.gelu,
    "Sigmoid": torch.sigmoid,
}
"""torch's classes by name, all with their defaults. A name out of a file is looked up here and nowhere else."""


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """One layer, in float32.

    Attributes:
        weight: [outputs, inputs].
        bias: [outputs], where there is one.
        activation: What follows.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Callable[[Tensor], Tensor]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Applies the layer, [texts, inputs] -> [texts, outputs]."""
        return self.activation(functional.linear(vectors, self.weight, self.bias))

    @property
    def width(self) -> int:
        """Numbers that come out."""
        return int(self.weight.shape[0])


def read_layers(folders: tuple[Path, ...], width: int, device: torch.device, source: str) -> tuple[Dense, ...]:
    """Reads the layers that follow one another on vectors of `width` numbers.

    Raises:
        LoadError: One of them can't be read, is not served, or does not fit the one before.
    """
    layers: list[Dense] = []
    for folder in folders:
        layer = _read(folder, device, f"{source}: its {folder.name}")
        if layer.weight.shape[1] != width:
            raise LoadError(f"{source}: its {folder.name} takes {layer.weight.shape[1]} numbers, and gets {width}; fetch the model again")
        width = layer.width
        layers.append(layer)
    return tuple(layers)


def _read(folder: Path, device: torch.device, what: str) -> Dense:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise LoadError(f"{what} has no readable config.json; fetch the model again") from None
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise LoadError(f"{what} works on {config['module_input_name']}, which is not served; one behind the pooling is")
    activation = ACTIVATIONS.get(_torch_class(config.get("activation_function")))
    if activation is None:
        raise LoadError(f"{what} asks for the activation {config.get('activation_function')}, which is not served; {', '.join(ACTIVATIONS)} are")
    if not (folder / WEIGHTS).is_file():
        raise LoadError(f"{what} has no {WEIGHTS}; convert its weights to safetensors, for pickles can run code when loaded")
    try:
        weights = load_file(folder / WEIGHTS)
        weight, bias = weights["linear.weight"], weights.get("linear.bias")
    except Exception as error:
        raise LoadError(f"{what}/{WEIGHTS} cannot be read ({type(error).__name__}); fetch the model again") from error
    if weight.dim() != 2 or (bias is not None and bias.shape != weight.shape[:1]) or (bias is None) != (config.get("bias", True) is False):
        raise LoadError(f"{what}/{WEIGHTS} is not what its config.json says; fetch the model again")
    return Dense(weight.float().to(device), None if bias is None else bias.float().to(device), activation)


def _torch_class(name: Any) -> str:
    """The class of torch.nn that an entry names; nothing where it names something else."""
    return str(name).rpartition(".")[2] if str(name).startswith("torch.nn.") else ""
