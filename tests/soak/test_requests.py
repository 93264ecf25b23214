"""Many requests, some of them invalid in every way there is: all are answered, and the worker is none the worse for it."""

import json
import random
from pathlib import Path

import pytest

from tests.peer import CHAT, line

pytestmark = pytest.mark.integration

INVALID_EVERY = 20
GROWTH_BYTES = 64 * 2**20


def invalid(name: str, kind: int) -> tuple[bytes | None, str]:
    """A record that no worker can serve, and the code of its refusal."""
    ways = [
        (line(name, url="/v1/nothing", prompt="a"), "unknown_url"),
        (line(name, model="absent", prompt="a"), "unknown_model"),
        (line(name, prompt="a", frobnicate=1), "unsupported_field"),
        (line(name, url=CHAT, messages=[{"role": "user", "content": "a"}], tools=[]), "unsupported_field"),
        (line(name, url=CHAT, messages=[]), "invalid_request"),
        (line(name, prompt="a", max_tokens="ten"), "invalid_request"),
        (line(name, prompt=""), "invalid_request"),
        (line(name, prompt="a", temperature=float("nan")), "invalid_request"),
        (line(name, prompt="a", stop=[""]), "invalid_request"),
        (line(name, prompt=[1, 99_999_999]), "invalid_token"),
        (line(name, prompt=[11] * 5_000), "prompt_too_long"),
        (line(name, prompt="a" * 1_200_000), "record_too_large"),
        (None, "invalid_json"),
        (b"\xff{not json", "invalid_json"),
    ]
    value, code = ways[kind % len(ways)]
    return (json.dumps(value).encode() if isinstance(value, dict) else value), code


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in use."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(text.split()[1]) * 1024 for text in status.splitlines() if text.startswith("VmRSS:"))


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.timeout(1_800)
def test_one_in_twenty_is_invalid_and_all_are_answered(start_worker, connect, count):
    """Each valid request gets all its tokens, each invalid one its code; memory stays flat, and the engine serves on."""
    worker = start_worker(PENSTOCK_ENGINE__KV_CACHE_MIB="16")  # what is not yet touched of a larger cache would count as growth
    peer = connect()
    draw = random.Random(0)
    lengths: dict[str, int] = {}
    codes: dict[str, str] = {}

    def publish(first: int, end: int) -> None:
        for n in range(first, end):
            name = f"r-{n}"
            if n % INVALID_EVERY == 7:
                value, codes[name] = invalid(name, n // INVALID_EVERY)
                peer.send(value, key=name, headers={"correlation_id": name})
            else:
                lengths[name] = draw.randrange(1, 16)
                prompt = [draw.randrange(10, 1_500) for _ in range(draw.randrange(1, 60))]
                peer.send(json.dumps(line(name, prompt=prompt, max_tokens=lengths[name], ignore_eos=True)).encode(), key=name)
        peer.flush()

    def answered() -> bool:
        return sum(stream.terminal is not None for stream in peer.streams.values()) == len(lengths) + len(codes)

    publish(0, count // 5)
    peer.wait_until(answered, 600, "the answers of the first fifth")
    before_bytes = resident_bytes(worker.process.pid)
    publish(count // 5, count)
    peer.wait_until(answered, 1_200, "all answers")
    grown_bytes = resident_bytes(worker.process.pid) - before_bytes
    assert {name: len(peer.streams[name].token_ids) for name in lengths} == lengths
    assert {name: peer.streams[name].code for name in codes} == codes
    assert {stream.terminals_seen for stream in peer.streams.values()} == {1}
    peer.wait_no_lag(peer.prefix, timeout_s=60)
    assert grown_bytes < GROWTH_BYTES, f"{grown_bytes / 2**20:.0f} MiB more than after the first fifth"
    letters = [headers["penstock_error_code"] for _, _, headers in peer.dead_letters]
    assert letters.count("record_too_large") == list(codes.values()).count("record_too_large")
    peer.publish(line("after", prompt="Once upon a time", max_tokens=8, ignore_eos=True))
    assert len(peer.wait("after")[0].token_ids) == 8
    print(f"{count} requests, memory grew by {grown_bytes / 2**20:.1f} MiB")  # noqa: T201 -- a long run reports
