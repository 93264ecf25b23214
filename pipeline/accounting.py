"""What is counted and logged of requests that are answered. No prompt, no output."""

import structlog

from pipeline.delivery.requests import InFlight
from pipeline.telemetry import Metrics

log = structlog.get_logger(__name__)


def count_tokens(metrics: Metrics, inflight: InFlight, tokens: int, now_s: float) -> None:
    """Counts the output of one step."""
    if inflight.first_token_s is None:
        inflight.first_token_s = now_s
        metrics.time_to_first_token.labels(inflight.request.model).observe(now_s - inflight.admitted_s)
    inflight.output_tokens += tokens
    metrics.generation_tokens.inc(tokens)


def count_end(metrics: Metrics, inflight: InFlight, now_s: float) -> None:
    """Notes how long a request took that went well."""
    metrics.request_duration.labels(inflight.request.model).observe(now_s - inflight.admitted_s)
    if inflight.output_tokens > 1 and inflight.first_token_s is not None:
        metrics.time_per_output_token.labels(inflight.request.model).observe((now_s - inflight.first_token_s) / (inflight.output_tokens - 1))


def tell_end(metrics: Metrics, inflight: InFlight, outcome: str, now_s: float, *, is_cached: bool) -> None:
    """Counts a request by how it ended, and logs it."""
    metrics.requests.labels(outcome).inc()
    log.info(
        "request_finished",
        origin=str(inflight.request.origin),
        model=inflight.request.model,
        lane=inflight.lane.name.lower(),
        outcome=outcome,
        prompt_tokens=inflight.job.prompt_tokens,
        output_tokens=inflight.output_tokens,
        ttft_ms=None if inflight.first_token_s is None else round((inflight.first_token_s - inflight.admitted_s) * 1e3, 1),
        duration_ms=round((now_s - inflight.admitted_s) * 1e3, 1),
        attempts=inflight.attempts,
        is_cached=is_cached,
    )
