"""From settings to a limiter."""

from functools import partial

from pipeline.quota.limiter import Limiter, LocalLimiter, Rate, Rates
from pipeline.settings import RateLimitSettings, RateSettings
from pipeline.telemetry import Metrics


def open_limiter(settings: RateLimitSettings, prefix: str, metrics: Metrics) -> Limiter:
    """Makes the limiter that the settings ask for; one that is shared begins to connect.

    Args:
        settings: The rates, and where they are kept.
        prefix: Tells this deployment from others in the same Redis.
        metrics: Hears whether Redis answers.
    """
    rates = Rates(default=_rate(settings), tenants={name: _rate(own) for name, own in settings.tenants.items()}, burst_s=settings.burst_s)
    local = LocalLimiter(rates)
    is_limited = rates.default.is_limited or any(rate.is_limited for rate in rates.tenants.values())
    if settings.redis_url is None or not is_limited:
        return local
    from pipeline.quota.shared import SharedLimiter  # noqa: PLC0415 -- a client that few deployments need
    from pipeline.quota.store import RedisStore  # noqa: PLC0415 -- likewise

    timeout_s = settings.redis_timeout_ms / 1000
    connect = partial(RedisStore.connect, settings.redis_url.get_secret_value(), rates, prefix=prefix, timeout_s=timeout_s)
    shared = SharedLimiter(connect, local, on_loss=settings.on_redis_loss, on_change=metrics.rate_limit_store_up.set)
    shared.start()
    return shared


def _rate(settings: RateSettings) -> Rate:
    return Rate(requests_per_minute=settings.requests_per_minute, tokens_per_minute=settings.tokens_per_minute)
