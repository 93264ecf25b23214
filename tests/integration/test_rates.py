"""Tenants' rates, seen from outside: real workers on a real broker, sharing the rates in a real Redis."""

import json
import urllib.request
from collections.abc import Callable

import pytest

from tests.integration.conftest import Start
from tests.peer import Peer, line
from tests.redis_server import redis_server

pytestmark = pytest.mark.integration

CANARY = "heliotrope"
FLOOD, OTHERS, ALLOWED = 200, 60, 10


def test_a_flood_is_refused_with_a_retry_time_by_all_workers_together_and_the_others_go_on(
    start_worker: Start, connect: Callable[[], Peer], topic_prefix: str, tmp_path
):
    """Ten of the flood are answered, by two workers; the rest hear when to come again. Without Redis the workers go on."""
    floods = [f"{topic_prefix}.flood-{letter}" for letter in "ab"]  # with two topics each worker has some of their partitions
    with redis_server(tmp_path / "redis") as redis:
        settings = {
            "PENSTOCK_MODELS": '[{"name": "tiny", "source": "none", "engine": "fake"}]',
            "PENSTOCK_KAFKA__REQUEST_TOPICS": json.dumps([{"topic": flood, "tenant": "flood"} for flood in floods]),
            "PENSTOCK_RATE_LIMITS__TENANTS": json.dumps({"flood": {"requests_per_minute": ALLOWED}}),
            "PENSTOCK_RATE_LIMITS__REDIS_URL": redis.url,
            "PENSTOCK_RATE_LIMITS__REDIS_TIMEOUT_MS": "1000",
        }
        workers = [start_worker(**settings), start_worker(**settings)]
        peer = connect()
        for number in range(FLOOD):
            value = json.dumps(line(f"f-{number}", prompt=CANARY, max_tokens=8, ignore_eos=True)).encode()
            peer.send(value, key=f"f-{number}", topic=floods[number % 2])
            if number < OTHERS:
                peer.send(json.dumps(line(f"g-{number}", prompt=CANARY, max_tokens=8, ignore_eos=True)).encode(), key=f"g-{number}")
        peer.flush()
        others = peer.wait(*(f"g-{number}" for number in range(OTHERS)))
        assert {stream.kind for stream in others} == {"end"}
        streams = peer.wait(*(f"f-{number}" for number in range(FLOOD)))
        refused = [stream for stream in streams if stream.kind == "error"]
        assert ALLOWED <= FLOOD - len(refused) <= ALLOWED + 3  # one more every six seconds, should this take so long
        assert {stream.code for stream in refused} == {"rate_limited"}
        assert all(0 < int(stream.headers["retry_after_ms"]) <= 60_000 for stream in refused)
        assert all(worker.metrics()["penstock_rate_limit_store_up"] == 1 for worker in workers)
        redis.kill()
        for number in range(FLOOD):
            peer.send(json.dumps(line(f"h-{number}", prompt=CANARY, max_tokens=8)).encode(), key=f"h-{number}")
            peer.send(json.dumps(line(f"i-{number}", prompt=CANARY, max_tokens=8)).encode(), key=f"i-{number}", topic=floods[number % 2])
        peer.flush()
        assert {stream.kind for stream in peer.wait(*(f"h-{number}" for number in range(FLOOD)))} == {"end"}
        alone = [stream.kind for stream in peer.wait(*(f"i-{number}" for number in range(FLOOD)))]
        # Each worker has counted what it let through itself, and lets the rest of one rate through.
        assert 0 < alone.count("end") <= ALLOWED + 3
        peer.wait_no_lag(topic_prefix)
        assert any("rate_limit_store_lost" in worker.log() for worker in workers)
        for worker in workers:
            pages = "".join(urllib.request.urlopen(worker.url + page, timeout=5).read().decode() for page in ("/debug/batches", "/metrics"))
            assert '"closed": "' in pages
            assert CANARY not in pages + worker.log()
