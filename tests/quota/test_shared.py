"""Rates that workers share, in a real Redis."""

import itertools
import random
import time
from collections.abc import Callable, Iterator

import pytest

from compose.redis_server import RedisServer
from pipeline.quota.limiter import Ask, LocalLimiter, Rate, Rates
from pipeline.quota.opening import open_limiter
from pipeline.quota.shared import SETTLE_EVERY_S, SharedLimiter
from pipeline.quota.store import RedisStore, StoreLost
from pipeline.settings import StoreLoss, load
from tests.redis_server import redis_server
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

RATES = Rates(tenants={"a": Rate(requests_per_minute=6, tokens_per_minute=6_000)})
TIMEOUT_S = 1.0
PREFIXES = itertools.count()

Make = Callable[..., SharedLimiter]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that the tests of this module share."""
    with redis_server(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture
def make(server: RedisServer) -> Iterator[Make]:
    """Makes limiters as workers of one deployment have them, connected."""
    prefix, made = f"test{next(PREFIXES)}", []

    def one(on_loss: StoreLoss = StoreLoss.LOCAL, rates: Rates = RATES, at: RedisServer = server) -> SharedLimiter:
        def connect() -> RedisStore:
            return RedisStore.connect(at.url, rates, prefix=prefix, timeout_s=TIMEOUT_S)

        limiter = SharedLimiter(connect, LocalLimiter(rates), on_loss=on_loss, on_change=lambda _: None)
        made.append(limiter)
        limiter.start()
        wait_for(lambda: limiter._store is not None)
        return limiter

    yield one
    for limiter in made:
        limiter.close()


def let_through(limiter: SharedLimiter, requests: int, tokens: int = 1) -> int:
    """How many of so many requests go."""
    return sum(wait_s == 0.0 for wait_s in limiter.take([Ask("a", tokens)] * requests, time.monotonic()))


def test_two_workers_together_let_through_one_rate(make: Make):
    """Six per minute, four asked of each: six go, and the last is told to wait for about ten seconds."""
    first, second = make(), make()
    assert let_through(first, 4) == 4
    assert let_through(second, 4) == 2
    (wait_s,) = first.take([Ask("a", 1)], time.monotonic())
    assert 5.0 < wait_s <= 10.0
    assert first.take([Ask("free", 1_000_000)] * 3, time.monotonic()) == [0.0] * 3


def test_what_one_worker_gives_back_another_may_take(make: Make):
    """Tokens that a request did not use are there for all, with the next question or the next beat."""
    first, second = make(), make()
    assert let_through(first, 1, tokens=6_000) == 1
    assert let_through(second, 1, tokens=3_000) == 0
    first.settle(Ask("a", -4_000, 0), time.monotonic())
    first.beat(time.monotonic() + SETTLE_EVERY_S)
    assert let_through(second, 1, tokens=3_000) == 1
    assert let_through(second, 1, tokens=3_000) == 0


def test_the_script_and_the_bucket_are_the_same_arithmetic(server: RedisServer):
    """Random asks and settlements within a moment: Redis and this process let the same ones through, and name the same waits."""
    draw = random.Random(0)
    rates = Rates(tenants={"a": Rate(requests_per_minute=40, tokens_per_minute=900), "b": Rate(tokens_per_minute=300)}, burst_s=30.0)
    store, local = RedisStore.connect(server.url, rates, prefix="same", timeout_s=TIMEOUT_S), LocalLimiter(rates)
    for _ in range(60):
        asks = [Ask(draw.choice("ab"), draw.randrange(1, 60)) for _ in range(draw.randrange(1, 6))]
        settled = [Ask(draw.choice("ab"), draw.randrange(-60, 20), 0)]
        now_s = time.monotonic()
        for ask in settled:
            local.settle(ask, now_s)
        expected = local.take(asks, now_s)
        # A few milliseconds pass between the two clocks' readings; an ask on the very edge may fall either way.
        assert store.take(asks, settled) == pytest.approx(expected, abs=0.5)
    store.close()


def test_a_lost_store_is_replaced_by_this_workers_own_count_and_found_again(tmp_path, make: Make):
    """Killed in the middle: the answer comes within the timeout, a tenant at its limit stays there, and a new server is used at once."""
    with redis_server(tmp_path / "redis") as own:
        limiter = make(at=own)
        assert let_through(limiter, 5) == 5
        own.kill()
        started_s = time.monotonic()
        assert let_through(limiter, 4) == 1
        assert time.monotonic() - started_s < TIMEOUT_S + 1.0
        assert limiter._store is None
        assert limiter.blocked_s("a", time.monotonic()) > 5.0
        own.start()
        wait_for(lambda: limiter._store is not None)
        assert let_through(limiter, 7) == 6  # the new server knows of nothing


@pytest.mark.parametrize(("on_loss", "goes"), [(StoreLoss.ADMIT, 50), (StoreLoss.REFUSE, 0)])
def test_without_a_store_the_setting_decides(tmp_path, make: Make, on_loss: StoreLoss, goes: int):
    """Everything goes, or nothing."""
    with redis_server(tmp_path / "redis") as own:
        limiter = make(on_loss, at=own)
        own.kill()
        assert let_through(limiter, 50) == goes


def test_nobody_to_connect_to_is_a_store_that_is_away(tmp_path, metrics):
    """A worker starts without Redis, counts alone, and shows it."""
    absent = redis_server(tmp_path)
    with pytest.raises(StoreLost):
        RedisStore.connect(absent.url, RATES, prefix="x", timeout_s=TIMEOUT_S)
    settings = load({"rate_limits": {"requests_per_minute": 6, "redis_url": absent.url}})
    limiter = open_limiter(settings.rate_limits, "x", metrics)
    assert isinstance(limiter, SharedLimiter)
    assert let_through(limiter, 9) == 6
    assert metrics.registry.get_sample_value("penstock_rate_limit_store_up") == 0
    absent.start()
    wait_for(lambda: metrics.registry.get_sample_value("penstock_rate_limit_store_up") == 1)
    limiter.close()
    absent.kill()
