"""Rates as the worker applies them: reservations, settlements, refusals."""

import pytest

from pipeline.engine.base import Job
from pipeline.quota.limiter import LocalLimiter, Rate, Rates
from pipeline.quota.quotas import FIRST_GUESS_TOKENS, Quotas, Reservation
from schemas.errors import RateLimited


def job(prompt_tokens: int = 10, max_output_tokens: int = 10) -> Job:
    """A job of that size."""
    return Job(prompt_tokens=prompt_tokens, max_output_tokens=max_output_tokens, choices=1, work=None)


def quotas(metrics, **rate: float) -> Quotas:
    """One tenant, `a`, with that rate; nobody else has one."""
    return Quotas(LocalLimiter(Rates(tenants={"a": Rate(**rate)})), metrics)


def test_a_tenant_above_its_requests_is_told_when_to_come_again(metrics):
    """Three per minute: the fourth waits for the first third of a minute, another tenant for nothing."""
    limit = quotas(metrics, requests_per_minute=3)
    *first, refused = limit.reserve([("a", job())] * 4, 100.0)
    assert all(isinstance(verdict, Reservation) for verdict in first)
    assert isinstance(refused, RateLimited)
    assert refused.retry_after_s == pytest.approx(20.0)
    assert "20 s" in refused.message
    assert isinstance(limit.reserve([("b", job())], 100.0)[0], Reservation)
    assert limit.blocked("a", 100.0).retry_after_s == pytest.approx(20.0)
    assert limit.blocked("b", 100.0) is None
    assert limit.blocked("a", 120.1) is None
    assert isinstance(limit.reserve([("a", job())], 120.1)[0], Reservation)
    assert metrics.registry.get_sample_value("penstock_rate_limited_total", {"tenant": "a"}) == 2


def test_a_reservation_is_corrected_to_what_was_used(metrics):
    """Of a hundred tokens per minute forty are reserved; thirty come back, and the next eighty go."""
    limit = quotas(metrics, tokens_per_minute=100)
    (reservation,) = limit.reserve([("a", job(20, 20))], 0.0)
    assert isinstance(reservation, Reservation)
    assert reservation.tokens == 40
    assert isinstance(limit.reserve([("a", job(40, 40))], 0.0)[0], RateLimited)
    limit.settle(reservation, prompt_tokens=5, output_tokens=5, now_s=0.0)
    assert isinstance(limit.reserve([("a", job(40, 40))], 0.0)[0], Reservation)


def test_what_was_used_beyond_the_reservation_is_charged(metrics):
    """A tenant whose outputs were expected to be short waits longer when they were not."""
    limit = quotas(metrics, tokens_per_minute=1_000)
    (reservation,) = limit.reserve([("a", job(10, 5_000))], 0.0)
    assert reservation.tokens == 10 + FIRST_GUESS_TOKENS
    limit.settle(reservation, prompt_tokens=10, output_tokens=1_490, now_s=0.0)
    assert limit.blocked("a", 0.0).retry_after_s == pytest.approx(30.0, abs=0.1)


def test_the_expected_output_follows_what_the_tenant_writes(metrics):
    """After outputs of twenty tokens the next is expected to have twenty, and never more than it may have."""
    limit = quotas(metrics, tokens_per_minute=1e9)
    for _ in range(5):
        (reservation,) = limit.reserve([("a", job(10, 5_000))], 0.0)
        limit.settle(reservation, prompt_tokens=10, output_tokens=20, now_s=0.0)
    assert limit.reserve([("a", job(10, 5_000)), ("a", job(10, 8))], 0.0) == [Reservation("a", 30), Reservation("a", 18)]


def test_a_request_that_goes_to_another_worker_costs_nothing_here(metrics):
    """The one request of the minute can be taken again."""
    limit = quotas(metrics, requests_per_minute=1, tokens_per_minute=20)
    (reservation,) = limit.reserve([("a", job())], 0.0)
    assert limit.blocked("a", 0.0) is not None
    limit.release(reservation, 0.0)
    assert isinstance(limit.reserve([("a", job())], 0.0)[0], Reservation)


def test_an_answer_that_is_there_already_costs_a_request_and_no_tokens(metrics):
    """Two requests per minute, no tokens to spare: one hit goes, the next but one does not."""
    limit = quotas(metrics, requests_per_minute=2, tokens_per_minute=20)
    assert isinstance(limit.reserve([("a", job())], 0.0)[0], Reservation)
    assert [type(verdict) for verdict in limit.reserve([("a", None), ("a", None)], 0.0)] == [Reservation, RateLimited]


def test_a_tenants_own_rate_replaces_the_default():
    """The default holds for whoever has none; what an own rate leaves out is not limited."""
    limiter = LocalLimiter(Rates(default=Rate(requests_per_minute=1), tenants={"a": Rate(tokens_per_minute=600)}, burst_s=1.0))
    assert limiter.counts("anybody")
    assert limiter._rates.of("a").request_interval_s == 0.0
    assert limiter._rates.of("anybody").request_interval_s == 60.0
