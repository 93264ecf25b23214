"""How long a step takes, learned from the steps that were run.

A step's time is taken for a sum: a part that every step has, and parts for its prompt tokens, its decoding sequences, the keys
and values that it reads, what its prompt tokens attend to, what it costs that both kinds share a step, and for each piece of a prompt.
The parts are found by least squares over the steps of late, weighted by the inverse of their time, so that it is the relative error
that is small, and none of them is negative. That is recursive least squares with forgetting in its information form, which does not
lose its footing when a kind of step stays away for long (the covariance form does: Åström and Wittenmark, Adaptive Control, 11.5);
the bound at zero is kept by descending one coordinate at a time.

A machine that is shared is faster now and slower then, by more than the parts of the sum are wrong. So its speed is followed beside
them, from step to step: a prediction is as many times the sum as steps of late were. What the speed explains the sum learns by half:
kinds of steps that do not occur meanwhile are right when they come, and what lasts ends up in the sum.
"""

import math
from collections.abc import Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

from pipeline.scheduling.batch import Batch
from pipeline.scheduling.quantiles import Window

REMEMBERED_STEPS = 200
"""A step this many steps ago counts a third."""
ERRORS_KEPT = 256
TRUSTED_AFTER_STEPS = 24
"""Steps before which nothing is predicted: three for each term, and some."""
HOLD = 1e-4
"""How much a term keeps to what it was, relative to the most that was ever known about it."""
LEAST_DOUBT = 0.25
"""A step counts as at most this much slower or faster than expected, or as twice the p95 of the errors, whichever is more."""
MOST_MARGIN = 0.5
"""Where steps vary by more than this, it is the machine that is unsteady, and smaller steps would not help."""

SLOWER_GAIN, FASTER_GAIN = 0.3, 0.5
"""Part of what a step was off by that is expected of the next one: what disturbs a step mostly lasts for some. What is not the
step's own only ever makes it slower, so one that was fast tells more."""
SLOWER_STEP, FASTER_STEP = 1.12, 1.15
"""How many times slower or faster than the step before a step may show the machine to be: a pause is no change of speed, steps in a
row are, and neither is what the sum has wrong."""


class Terms(NamedTuple):
    """The terms of the model in their order: how much of each a step has, or what one of each costs, in seconds."""

    step: float = 0.0
    prefill_tokens: float = 0.0
    decodes: float = 0.0
    kv_tokens: float = 0.0
    prefill_context: float = 0.0
    mixed: float = 0.0
    chunks: float = 0.0


TERMS = Terms._fields


class Load:
    """What a step computes.

    `chunks` are pieces of prompts; `prefill_context` sums up, over their tokens, the tokens that each of them attends to.
    """

    __slots__ = ("chunks", "decodes", "kv_tokens", "prefill_context", "prefill_tokens")

    def __init__(self) -> None:
        self.prefill_tokens = self.decodes = self.kv_tokens = self.chunks = 0
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
        self.chunks += 1
        self.prefill_tokens += count
        self.kv_tokens += start
        self.prefill_context += count * (start + count / 2)

    def terms(self) -> Terms:
        """Gives it in the terms of the model."""
        return Terms(
            step=1.0,
            prefill_tokens=self.prefill_tokens,
            decodes=self.decodes,
            kv_tokens=self.kv_tokens,
            prefill_context=self.prefill_context,
            mixed=self.prefill_tokens * self.decodes,
            chunks=self.chunks,
        )


class StepModel:
    """Learns from each step and predicts the next. Seconds everywhere; errors are shares of the prediction."""

    def __init__(self) -> None:
        size = len(TERMS)
        self.seconds = Terms()
        """What one of each costs, as the machine is now."""
        self.steps = 0
        self.known = False
        """Whether enough was seen to predict."""
        self.margin = 0.0
        """By what share of the prediction 95 of 100 steps of late are slower at most; `MOST_MARGIN` where it is more."""
        self._speed = 1.0
        """How many times as long steps take now as the sum says."""
        self._believed = 1.0
        """What was believed of the step before; what it took counts for nothing more, or two pauses in a row would be taken in full."""
        self._fitted = [0.0] * size
        self._products = [[0.0] * size for _ in range(size)]
        self._targets = [0.0] * size
        self._most = [0.0] * size
        self._errors = Window(ERRORS_KEPT)
        self._distances = Window(ERRORS_KEPT)

    @property
    def fixed_s(self) -> float:
        """The part that every step has."""
        return self.seconds.step

    @property
    def error_p95(self) -> float | None:
        """By what share of its measured time a step of late was predicted wrong, in 95 of 100 cases; None while too few were seen."""
        return self._distances.quantile(0.95) if len(self._distances) >= TRUSTED_AFTER_STEPS else None

    def predict(self, load: Load) -> float:
        """Tells how long a step will take."""
        return float(sum(map(mul, self.seconds, load.terms())))

    def observe(self, load: Load, measured_s: float) -> None:
        """Learns from a step. One that took suspiciously long or short counts as if it had taken what is barely plausible."""
        if measured_s <= 0.0:
            return
        terms = load.terms()
        if self.known:
            predicted_s = max(sum(map(mul, self.seconds, terms)), 1e-9)
            self._errors.add(measured_s / predicted_s - 1.0)
            self._distances.add(abs(1.0 - predicted_s / measured_s))
            self.margin = _margin(self._errors)
            self._follow(measured_s / predicted_s)
            doubt = 1.0 + max(LEAST_DOUBT, 2.0 * self._distances.quantile(0.95))
            measured_s = min(max(measured_s, predicted_s / doubt), predicted_s * doubt)
        self._learn(terms, measured_s / math.sqrt(self._speed))
        self.seconds = self._seconds_now()
        self.steps += 1
        self.known = self.known or self.steps >= TRUSTED_AFTER_STEPS

    def _seconds_now(self) -> Terms:
        return Terms._make(each * self._speed for each in self._fitted)

    def _follow(self, change: float) -> None:
        """Follows the machine's speed, given how many times as long as predicted a step took."""
        believed = min(max(change, min(self._believed, 1.0) / FASTER_STEP), max(self._believed, 1.0) * SLOWER_STEP)
        self._speed *= believed ** (SLOWER_GAIN if believed > 1.0 else FASTER_GAIN)
        self._believed = believed

    def _learn(self, terms: Sequence[float], measured_s: float) -> None:
        keep = 1.0 - 1.0 / REMEMBERED_STEPS
        scaled = [term / measured_s for term in terms]
        products, targets, most, seconds = self._products, self._targets, self._most, self._fitted
        for j, factor in enumerate(scaled):
            targets[j] = keep * targets[j] + factor
            if not factor:
                products[j] = [keep * old for old in products[j]]
                continue
            row = products[j] = [keep * old + factor * other for old, other in zip(products[j], scaled, strict=True)]
            most[j] = max(most[j], row[j])
        for j, factor in enumerate(scaled):  # one descent, along what the step had; the next step goes on from there
            if factor:
                row, own, hold = products[j], seconds[j], HOLD * most[j]
                left = targets[j] - sum(map(mul, row, seconds)) + row[j] * own
                seconds[j] = max((left + hold * own) / (row[j] + hold), 0.0)

    def to_json(self) -> dict[str, Any]:
        """Gives what was learned, to be kept across restarts."""
        return {
            "terms": list(TERMS),
            "seconds": self._fitted,
            "speed": self._speed,
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
            (model._speed,) = _numbers([kept["speed"]])
            model.seconds = model._seconds_now()
            model._products = [_numbers(row, size) for row in kept["products"]]
            model._targets, model._most = _numbers(kept["targets"], size), _numbers(kept["most"], size)
            model._errors = Window(ERRORS_KEPT, _numbers(kept["errors"]))
            model._distances = Window(ERRORS_KEPT, _numbers(kept["distances"]))
            model.steps = int(kept["steps"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is not a step model ({error})") from error
        if len(model._products) != size or min(model._fitted) < 0.0 or model._speed <= 0.0:
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
