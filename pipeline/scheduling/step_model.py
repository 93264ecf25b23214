"""How long a step takes, learned from the steps that were run.

A step's time is taken for a sum: a part that every step has, and parts for its prompt tokens, its decoding sequences, the keys
and values that it reads, what its prompt tokens attend to, and what it costs that both kinds share a step. The parts are found by
least squares over the steps of late, weighted by the inverse of their time, so that it is the relative error that is small, and
none of them is negative. That is recursive least squares with forgetting in its information form, which does not lose its footing
when a kind of step stays away for long (the covariance form does: Åström and Wittenmark, Adaptive Control, 11.5); the bound at
zero is kept by descending one coordinate at a time.

A machine that becomes slower or faster as a whole is followed at once: where most of the last few steps are off in the same way, all
parts are taken that many times as long, until least squares have caught up.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.quantiles import Window

TERMS = ("step", "prefill_tokens", "decodes", "kv_tokens", "prefill_context", "mixed")
REMEMBERED_STEPS = 200
"""A step this many steps ago counts a third."""
ERRORS_KEPT = 256
TRUSTED_AFTER_STEPS = 24
"""Steps before which nothing is predicted: four for each term."""
SWEEPS = 3
"""Descents per step; the next step goes on from there."""
HOLD = 1e-4
"""How much a term keeps to what it was, relative to the most that was ever known about it."""
LEAST_DOUBT = 0.25
"""A step counts as at most this much slower or faster than expected, or as twice the p95 of the errors, whichever is more."""

MOST_MARGIN = 0.5
"""Where steps vary by more than this, it is the machine that is unsteady, and smaller steps would not help."""


DRIFT_STEPS = 9
"""Steps of late whose median tells that the whole machine drifted: five slow ones in a row are no accident."""
LEAST_DRIFT = 1.15
"""Less than this is left to least squares."""


class Load:
    """What a step computes, in the terms of the model.

    `prefill_context` sums up, over the prompt tokens, the tokens that each of them attends to.
    """

    __slots__ = ("decodes", "kv_tokens", "prefill_context", "prefill_tokens")

    def __init__(self) -> None:
        self.prefill_tokens = self.decodes = self.kv_tokens = 0
        self.prefill_context = 0.0

    @classmethod
    def of(cls, batch: Batch) -> "Load":
        """Reads a whole batch."""
        load = cls()
        load.decodes = len(batch.decodes)
        load.kv_tokens = sum([s.computed_tokens for s in batch.decodes])
        for chunk in batch.prefills:
            load.add_chunk(chunk.start, chunk.count)
        return load

    def add_chunk(self, start: int, count: int) -> None:
        """Adds a part of a prompt."""
        self.prefill_tokens += count
        self.kv_tokens += start
        self.prefill_context += count * (start + count / 2)

    def terms(self) -> tuple[float, ...]:
        """Gives what each of `TERMS` is multiplied by."""
        tokens, decodes = self.prefill_tokens, self.decodes
        return (1.0, tokens, decodes, self.kv_tokens, self.prefill_context, tokens * decodes)


class StepModel:
    """Learns from each step and predicts the next. Seconds everywhere; errors are shares of the prediction."""

    def __init__(self) -> None:
        size = len(TERMS)
        self.seconds = [0.0] * size
        """Seconds per unit of each of `TERMS`, as the machine is now."""
        self.steps = 0
        self.known = False
        """Whether enough was seen to predict."""
        self.margin = 0.0
        """By what share of the prediction 95 of 100 steps of late are slower at most; `MOST_MARGIN` where it is more."""
        self._drift = 1.0
        self._ratios: deque[float] = deque(maxlen=DRIFT_STEPS)
        self._fitted = [0.0] * size
        self._products = [[0.0] * size for _ in range(size)]
        self._targets = [0.0] * size
        self._most = [0.0] * size
        self._errors = Window(ERRORS_KEPT)
        self._distances = Window(ERRORS_KEPT)

    @property
    def fixed_s(self) -> float:
        """The part that every step has."""
        return self.seconds[0]

    @property
    def error_p95(self) -> float | None:
        """By what share of its measured time a step of late was predicted wrong, in 95 of 100 cases; None while too few were seen."""
        return self._distances.quantile(0.95) if len(self._distances) >= TRUSTED_AFTER_STEPS else None

    def predict(self, load: Load) -> float:
        """Tells how long a step will take."""
        return float(sum(map(mul, self.seconds, load.terms())))

    def observe(self, load: Load, measured_s: float) -> None:
        """Learns from a step. One that took suspiciously long or short counts as if it had taken what is barely plausible."""
        terms = load.terms()
        if measured_s <= 0.0:
            return
        if self.known:
            fitted_s = max(sum(map(mul, self._fitted, terms)), 1e-9)
            predicted_s = fitted_s * self._drift
            self._ratios.append(measured_s / fitted_s)
            self._errors.add(measured_s / predicted_s - 1.0)
            self._distances.add(abs(1.0 - predicted_s / measured_s))
            self.margin = _margin(self._errors)
            doubt = 1.0 + max(LEAST_DOUBT, 2.0 * self._distances.quantile(0.95))
            measured_s = min(max(measured_s, predicted_s / doubt), predicted_s * doubt)
        self._learn(terms, measured_s)
        self._drift = self._find_drift()
        self.seconds = [each * self._drift for each in self._fitted]
        self.steps += 1
        self.known = self.known or self.steps >= TRUSTED_AFTER_STEPS

    def _find_drift(self) -> float:
        if len(self._ratios) < DRIFT_STEPS:
            return 1.0
        median = sorted(self._ratios)[DRIFT_STEPS // 2]
        return median if not 1.0 / LEAST_DRIFT < median < LEAST_DRIFT else 1.0

    def _learn(self, terms: Sequence[float], measured_s: float) -> None:
        keep = 1.0 - 1.0 / REMEMBERED_STEPS
        scaled = [term / measured_s for term in terms]
        for j, factor in enumerate(scaled):
            self._products[j] = [keep * old + factor * other for old, other in zip(self._products[j], scaled, strict=True)]
            self._targets[j] = keep * self._targets[j] + factor
            self._most[j] = max(self._most[j], self._products[j][j])
        seconds = self._fitted
        for _ in range(SWEEPS):
            for j, row in enumerate(self._products):
                hold = HOLD * self._most[j]
                if weight := row[j] + hold:
                    own = seconds[j]
                    left = self._targets[j] - sum(map(mul, row, seconds)) + row[j] * own
                    seconds[j] = max((left + hold * own) / weight, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Gives what was learned, to be kept across restarts."""
        return {
            "terms": list(TERMS),
            "seconds": self._fitted,
            "products": self._products,
            "targets": self._targets,
            "most": self._most,
            "errors": self._errors.values(),
            "distances": self._distances.values(),
            "steps": self.steps,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "StepModel":
        """Reads what `to_json` gave.

        Raises:
            ValueError: It is something else, or of another version.
        """
        model, size = cls(), len(TERMS)
        try:
            if tuple(kept["terms"]) != TERMS:
                raise ValueError("its terms are those of another version")
            model._fitted = _numbers(kept["seconds"], size)
            model.seconds = list(model._fitted)
            model._products = [_numbers(row, size) for row in kept["products"]]
            model._targets, model._most = _numbers(kept["targets"], size), _numbers(kept["most"], size)
            model._errors = Window(ERRORS_KEPT, _numbers(kept["errors"]))
            model._distances = Window(ERRORS_KEPT, _numbers(kept["distances"]))
            model.steps = int(kept["steps"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is not a step model ({error})") from error
        if len(model._products) != size or min(model.seconds) < 0.0:
            raise ValueError("it is not a step model")
        model.known = model.steps >= TRUSTED_AFTER_STEPS
        model.margin = _margin(model._errors)
        return model


def _margin(errors: Window) -> float:
    return min(max(errors.quantile(0.95), 0.0), MOST_MARGIN) if len(errors) else 0.0


def _numbers(values: Sequence[Any], size: int | None = None) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)) or (size is not None and len(numbers) != size):
        raise ValueError("it does not hold the numbers of a step model")
    return numbers
