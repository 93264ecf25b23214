"""Buckets in Redis, for workers that share a tenant's rate. The only module that knows a Redis client.

One script call decides all requests of a poll, so that a step of the worker's loop pays for at most one round trip. Redis'
own clock is the time: the workers' need not agree. Keys share a hash tag, as a script's keys must lie on one node of a cluster.
"""

import json
from collections.abc import Sequence
from math import ceil
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.quota.limiter import Ask, Rates

MICROSECONDS = 1_000_000
CONNECT_S = 2.0
"""Connecting is done on a thread of its own, where a slow name server may take its time."""

# The arithmetic is `Bucket`'s, in microseconds. ARGV is one JSON array, which costs less than hundreds of arguments: the burst, then four
# numbers per ask: the tenant's key, whether it is counted without a question, what it costs in requests and in tokens. The answer is each
# ask's wait, 0 for one that goes.
SCRIPT = """
local clock = redis.call('TIME')
local asks = cjson.decode(ARGV[1])
local now, burst = clock[1] * 1000000 + clock[2], asks[1]
local buckets, waits = {}, {}
for k = 1, #KEYS do
  local stored = redis.call('HMGET', KEYS[k], 'requests', 'tokens')
  buckets[k] = {math.max(tonumber(stored[1] or 0), now), math.max(tonumber(stored[2] or 0), now), false}
end
for i = 2, #asks, 4 do
  local full, forced, requests, tokens = buckets[asks[i]], asks[i + 1] == 1, asks[i + 2], asks[i + 3]
  local wait = math.max(0, math.max(full[1] + math.min(requests, burst), full[2] + math.min(tokens, burst)) - burst - now)
  if forced or wait < 1 then
    wait = 0
    full[1], full[2], full[3] = math.max(full[1] + requests, now), math.max(full[2] + tokens, now), true
  end
  waits[#waits + 1] = math.ceil(wait)
end
for k = 1, #KEYS do
  local full = buckets[k]
  if full[3] then
    redis.call('HSET', KEYS[k], 'requests', string.format('%.0f', full[1]), 'tokens', string.format('%.0f', full[2]))
    redis.call('PEXPIRE', KEYS[k], math.max(1, math.ceil((math.max(full[1], full[2]) - now) / 1000)))
  end
end
return waits
"""


class StoreLost(Exception):
    """Redis did not answer in time, or not at all."""


class RedisStore:
    """A connection that works: made by `connect`, of no use after the first `StoreLost`."""

    def __init__(self, client: redis.Redis, rates: Rates, prefix: str):
        self._client = client
        self._rates = rates
        self._prefix = prefix
        self._decide = client.register_script(SCRIPT)

    @classmethod
    def connect(cls, url: str, rates: Rates, *, prefix: str, timeout_s: float) -> "RedisStore":
        """Connects and asks for a sign of life.

        Args:
            url: `redis://`, `rediss://` or `unix://`, as the client takes it.
            rates: What each tenant may.
            prefix: What the keys begin with.
            timeout_s: The longest that `take` waits for an answer.

        Raises:
            StoreLost: Nobody answers.
        """
        client = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=CONNECT_S, retry=Retry(NoBackoff(), 0))
        try:
            client.ping()
        except redis.RedisError as error:
            client.close()
            raise StoreLost(f"{type(error).__name__}: {error}") from error
        return cls(client, rates, prefix)

    def take(self, asks: Sequence[Ask], settlements: Sequence[Ask] = ()) -> list[float]:
        """Counts the settlements, then lets asks through in their order; see `Limiter.take`.

        Raises:
            StoreLost: No answer in time. What Redis made of the question is not known; at worst a tenant paid twice.
        """
        keys: dict[str, int] = {}
        arguments = [ceil(self._rates.burst_s * MICROSECONDS)]
        for ask, is_forced in (*((ask, 1) for ask in settlements), *((ask, 0) for ask in asks)):
            rate = self._rates.of(ask.tenant)
            costs_s = (ask.requests * rate.request_interval_s, ask.tokens * rate.token_interval_s)
            arguments += (keys.setdefault(ask.tenant, len(keys) + 1), is_forced, *(round(cost_s * MICROSECONDS) for cost_s in costs_s))
        try:
            waits_us = cast("list[int]", self._decide(keys=[f"{{{self._prefix}}}.quota.{tenant}" for tenant in keys], args=[json.dumps(arguments)]))
        except (redis.RedisError, OSError) as error:
            raise StoreLost(f"{type(error).__name__}: {error}") from error
        return [wait_us / MICROSECONDS for wait_us in waits_us[len(settlements) :]]

    def close(self) -> None:
        """Lets go of the connection."""
        self._client.close()
