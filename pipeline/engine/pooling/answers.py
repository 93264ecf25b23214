"""From a model's rows to what was asked for. Pure arithmetic, in float32."""

from enum import StrEnum

import numpy as np

from schemas.pooled_results import Pooled, Rows

SMALLEST = np.float32(1e-12)
"""Stands in for the length of a vector that has none."""


class Activation(StrEnum):
    """What makes probabilities or scores of a head's numbers."""

    NONE = "none"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


def embeddings(rows: Rows, *, dimensions: int, is_normalised: bool) -> Pooled:
    """The first `dimensions` of each, at length 1 again where the whole ones are."""
    if dimensions == rows.shape[1]:
        return Pooled(rows=rows)
    return Pooled(rows=_normalised(rows[:, :dimensions]) if is_normalised else rows[:, :dimensions])


def cosines(rows: Rows, *, firsts: int) -> Pooled:
    """The cosine of each of the first `firsts` with its counterpart among the rest; of the only one with all the rest."""
    units = _normalised(rows)
    scores: Rows = (units[:firsts] * units[firsts:]).sum(axis=1, keepdims=True)
    return Pooled(rows=scores)


def classes(rows: Rows, *, labels: tuple[str, ...], activation: Activation) -> Pooled:
    """Probabilities of the labels, or the head's own numbers."""
    match activation:
        case Activation.SOFTMAX:
            powers = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows = powers / powers.sum(axis=1, keepdims=True)
        case Activation.SIGMOID:
            rows = np.exp(-np.logaddexp(np.float32(0), -rows))
        case Activation.NONE:
            pass
    return Pooled(rows=rows, labels=labels)


def _normalised(rows: Rows) -> Rows:
    units: Rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST)
    return units
