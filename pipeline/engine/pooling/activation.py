"""Which activation stands behind a classification head, as its checkpoint says."""

from typing import Any

from pipeline.engine.load_error import LoadError
from pipeline.engine.pooling.answers import Activation

NAMES = {"Identity": Activation.NONE, "Sigmoid": Activation.SIGMOID, "Softmax": Activation.SOFTMAX}
"""torch's classes, as sentence-transformers names them in a cross-encoder's config."""


def activation_of(config: Any, source: str) -> Activation:
    """Reads a model's config: sentence-transformers' entry, then transformers' `problem_type`, then the number of labels.

    Raises:
        LoadError: It names an activation that is not served.
    """
    entry = getattr(config, "sentence_transformers", None) or {}
    name = entry.get("activation_fn") or getattr(config, "sbert_ce_default_activation_function", None)
    if name is not None:
        activation = NAMES.get(str(name).rpartition(".")[-1])
        if activation is None:
            raise LoadError(f"{source}: its config asks for the activation {name}, which is not served; {', '.join(NAMES)} are")
        return activation
    match config.problem_type:
        case "regression":
            return Activation.NONE
        case "multi_label_classification":
            return Activation.SIGMOID
    return Activation.SIGMOID if config.num_labels == 1 else Activation.SOFTMAX


def labels_of(config: Any) -> tuple[str, ...]:
    """Names of a head's outputs, in order."""
    return tuple(str(config.id2label.get(number, f"LABEL_{number}")) for number in range(config.num_labels))
