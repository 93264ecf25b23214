"""What the demo measured. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from pipeline.cli.demo.lanes import Lane

BATCH = "penstock_batch_sequences"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How full the worker's steps were. A histogram knows the largest by its bucket only, so it is a bound."""

    steps: int
    mean_sequences: float
    largest_at_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The summary of a run."""

    requests: int
    output_tokens: int
    seconds: float
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    batch_mean: float
    batch_largest_at_most: int
    steps: int


def summarise(lanes: Sequence[Lane], batches: Batches) -> Figures:
    """Puts lanes and batches together; every lane has ended."""
    first_tokens_s = sorted(lane.time_to_first_token_s for lane in lanes if lane.time_to_first_token_s is not None)
    seconds = max(lane.ended_s or 0.0 for lane in lanes) - min(lane.submitted_s for lane in lanes)
    tokens = sum(lane.tokens for lane in lanes)
    return Figures(
        requests=len(lanes),
        output_tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_s=round(tokens / seconds, 1),
        ttft_p50_ms=round(percentile(first_tokens_s, 50) * 1000, 1),
        ttft_p95_ms=round(percentile(first_tokens_s, 95) * 1000, 1),
        batch_mean=round(batches.mean_sequences, 2),
        batch_largest_at_most=min(batches.largest_at_most, len(lanes)),
        steps=batches.steps,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed (nearest rank)."""
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)] if ordered else math.nan


def read_batches(metrics: str) -> Batches:
    """Reads the step sizes from a worker's metrics."""
    samples = [sample for family in text_string_to_metric_families(metrics) if family.name == BATCH for sample in family.samples]
    count = next((sample.value for sample in samples if sample.name == f"{BATCH}_count"), 0.0)
    total = next((sample.value for sample in samples if sample.name == f"{BATCH}_sum"), 0.0)
    full = [float(sample.labels["le"]) for sample in samples if sample.name == f"{BATCH}_bucket" and sample.value == count]
    bound = min(full, default=0.0)
    return Batches(
        steps=int(count), mean_sequences=total / count if count else 0.0, largest_at_most=0 if count == 0 or math.isinf(bound) else int(bound)
    )


def read_running(metrics: str) -> int:
    """How many requests run at this moment."""
    families = text_string_to_metric_families(metrics)
    return int(sum(sample.value for family in families if family.name == "penstock_requests_running" for sample in family.samples))
