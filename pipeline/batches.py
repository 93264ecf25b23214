"""What a worker's last steps were made of, and why each was closed where it was: the page behind `/debug/batches`.

Counts and times only: no prompt, no output, no request's name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.engine.base import Engine, EngineStats
from pipeline.first_tokens import FirstTokens
from pipeline.scheduling.explanation import ClosedBatch

WINDOW_S = 5.0
"""What is summed up as recent."""
SHOWN_BATCHES = 32
"""Batches that are told one by one: what a person reads, and a page of some tens of KiB."""

Json = dict[str, Any]


def report(engines: Mapping[str, Engine], readings: Mapping[str, EngineStats], now_s: float, first_tokens: FirstTokens | None = None) -> Json:
    """Tells everything about all models of a worker; for any thread.

    Args:
        engines: The models by name.
        readings: Each model's gauges, as the loop has read them last.
        now_s: The monotonic clock.
        first_tokens: Where their times go, between one log record and the other; None before the worker reads the log.
    """
    models = [_model(name, engine.closed_batches(), readings.get(name, EngineStats()), now_s) for name, engine in engines.items()]
    return {"models": models, "first_tokens": None if first_tokens is None else first_tokens.report(now_s)}


def _model(name: str, batches: Sequence[ClosedBatch], stats: EngineStats, now_s: float) -> Json:
    return {
        "model": name,
        "running": stats.running,
        "waiting": stats.waiting,
        "waiting_tokens": stats.waiting_tokens,
        "kv_blocks_used": stats.kv_blocks_used,
        "kv_blocks_total": stats.kv_blocks_total,
        "preemptions": stats.preemptions_total,
        "deferrals": stats.deferrals_total,
        "step_error_p95": stats.step_error_p95,
        "recent": _recent([batch for batch in batches if now_s - batch.started_s <= WINDOW_S], now_s),
        "batches": [_batch(batch, now_s) for batch in batches[-SHOWN_BATCHES:]],
    }


def _recent(batches: Sequence[ClosedBatch], now_s: float) -> Json:
    seconds = max(now_s - batches[0].started_s, 1e-6) if batches else WINDOW_S
    shares = [share for batch in batches for share in batch.lanes.values()]
    foretold = [(batch.predicted_s, batch.measured_s) for batch in batches if batch.predicted_s is not None]
    return {
        "seconds": round(seconds, 3),
        "steps": len(batches),
        "decode_tokens_per_s": round(sum(share.decodes for share in shares) / seconds, 1),
        "prefill_tokens_per_s": round(sum(share.prefill_tokens for share in shares) / seconds, 1),
        "mean_sequences": _mean([batch.sequences for batch in batches]),
        "measured_ms": _mean([batch.measured_s * 1000 for batch in batches]),
        "predicted_ms": _mean([predicted_s * 1000 for predicted_s, _ in foretold]),
        "measured_where_predicted_ms": _mean([measured_s * 1000 for _, measured_s in foretold]),
        "closed": dict(Counter(batch.reason.value for batch in batches)),
    }


def _batch(batch: ClosedBatch, now_s: float) -> Json:
    return {
        "number": batch.number,
        "ago_ms": round((now_s - batch.started_s) * 1000, 1),
        "closed": batch.reason.value,
        "sequences": batch.sequences,
        "tokens": batch.tokens,
        "token_budget": batch.token_budget,
        "lanes": {
            lane.name.lower(): {
                "decodes": share.decodes,
                "prefill_chunks": share.prefill_chunks,
                "prefill_tokens": share.prefill_tokens,
                "waiting": share.waiting,
            }
            for lane, share in batch.lanes.items()
        },
        "tenants": dict(batch.tenants),
        "kv_blocks_used": batch.kv_blocks_used,
        "kv_blocks_total": batch.kv_blocks_total,
        "predicted_ms": None if batch.predicted_s is None else round(batch.predicted_s * 1000, 3),
        "measured_ms": round(batch.measured_s * 1000, 3),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None
