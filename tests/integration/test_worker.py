"""A worker process on a real broker, seen from outside: what the wire contract promises, message by message."""

import functools
import json
import random
import signal
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.models import TINY
from tests.peer import CHAT, line

pytestmark = pytest.mark.integration


def prompts(count: int, vocabulary: int = 1_500, seed: int = 0) -> list[list[int]]:
    """Prompts of mixed lengths, as token ids."""
    draw = random.Random(seed)
    return [[draw.randrange(10, vocabulary) for _ in range(draw.randrange(4, 120))] for _ in range(count)]


@functools.cache
def reference_model():
    """The shipped model, as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)


def alone(prompt_ids: list[int], max_tokens: int) -> list[int]:
    """What the model itself generates for one prompt, greedily, whatever the token."""
    model = reference_model()
    ids = torch.tensor([prompt_ids])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens, eos_token_id=-1, pad_token_id=0)
    return out[0, len(prompt_ids) :].tolist()


def test_a_stream_is_begin_chunks_end_in_one_partition(peer):
    """One chat, by the letter: header names, consecutive seq, offsets of tokens, usage, and the committed offset at the end."""
    partition, offset = peer.publish(
        line("c-1", url=CHAT, messages=[{"role": "user", "content": "Tell me a story about a brave fox."}], temperature=0, max_tokens=24),
        headers={"correlation_id": "corr-9"},
    )
    (stream,) = peer.wait("c-1")
    assert stream.begins == 1
    assert peer.places["c-1"] == {(f"{peer.prefix}.chunks", next(iter(peer.places["c-1"]))[1])}
    assert [chunk["sequence_number"] for chunk in stream.chunks] == list(range(len(stream.chunks)))
    seen = 0
    for chunk in stream.chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["token_offset"] == seen
        seen += len(chunk["token_ids"])
    assert stream.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert stream.end["usage"]["completion_tokens"] == seen == len(stream.token_ids) <= 24
    assert stream.headers["correlation_id"] == "corr-9"
    assert stream.headers["seq"] == str(len(stream.chunks))
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    assert stream.text == tokenizer.decode(stream.token_ids, skip_special_tokens=True)
    peer.wait_no_lag(peer.prefix)
    assert (partition, offset) >= (0, 0)


def test_greedy_output_equals_generate_alone(peer):
    """Sixteen requests side by side give the tokens that the model gives for each alone."""
    work = prompts(16)
    peer.publish_all([line(f"g-{i}", prompt=p, temperature=0, max_tokens=20, ignore_eos=True) for i, p in enumerate(work)])
    streams = peer.wait(*(f"g-{i}" for i in range(16)))
    for prompt, stream in zip(work, streams, strict=True):
        assert stream.token_ids == alone(prompt, 20)
        assert stream.finish_reason == "length"


def test_a_result_is_one_batch_line(peer):
    """`stream: false` is answered with one OpenAI Batch output line on the results topic."""
    partition, offset = peer.publish(line("r-1", stream=False, prompt="Once upon a time", temperature=0, max_tokens=8, ignore_eos=True))
    result = peer.wait_result("r-1")
    assert result["error"] is None
    assert result["response"]["status_code"] == 200
    body = result["response"]["body"]
    assert body["object"] == "text_completion"
    assert body["usage"]["completion_tokens"] == 8
    assert body["choices"][0]["finish_reason"] == "length"
    assert result["headers"]["origin"] == f"{peer.prefix}.requests/{partition}/{offset}"
    assert result["headers"]["correlation_id"] == "r-1"


REFUSALS = [
    ("unknown-url", line("x", url="/v1/nothing", prompt="a"), "unknown_url"),
    ("unknown-model", line("x", model="absent", prompt="a"), "unknown_model"),
    ("unknown-field", line("x", prompt="a", frobnicate=1), "unsupported_field"),
    ("known-but-unsupported", line("x", url=CHAT, messages=[{"role": "user", "content": "a"}], tools=[]), "unsupported_field"),
    ("wrong-type", line("x", prompt="a", max_tokens="ten"), "invalid_request"),
    ("empty-prompt", line("x", prompt=""), "invalid_request"),
    ("empty-list", line("x", prompt=[]), "invalid_request"),
    ("empty-stop", line("x", prompt="a", stop=""), "invalid_request"),
    ("token-outside", line("x", prompt=[1, 99_999_999]), "invalid_token"),
    ("too-long", line("x", prompt=[11] * 5_000), "prompt_too_long"),
    ("min-above-max", line("x", prompt="a", min_tokens=9, max_tokens=3), "invalid_request"),
    ("not-finite", json.dumps(line("x", prompt="a", temperature=float("nan"))).encode(), "invalid_request"),
    ("embeddings", {"custom_id": "x", "method": "POST", "url": "/v1/embeddings", "body": {"model": "tiny", "input": "a"}}, "invalid_request"),
]


def test_every_refusal_has_its_code_and_harms_nobody(peer):
    """Bad requests among good ones: each gets its code, the good ones their full output, and nothing is left uncommitted."""
    good = prompts(4)
    peer.publish_all([line(f"good-{i}", prompt=p, temperature=0, max_tokens=40, ignore_eos=True) for i, p in enumerate(good)])
    for name, value, _ in REFUSALS:
        named = value.replace(b'"custom_id": "x"', f'"custom_id": "{name}"'.encode()) if isinstance(value, bytes) else value | {"custom_id": name}
        peer.publish(named, key=name)
    for name, value, code in REFUSALS:
        if isinstance(value, dict) and "stream" not in value["body"]:
            assert peer.wait_result(name)["error"]["code"] == code
        else:
            (stream,) = peer.wait(name)
            assert stream.code == code, name
            assert stream.begins == 0
    for i, stream in enumerate(peer.wait(*(f"good-{i}" for i in range(4)))):
        assert len(stream.token_ids) == 40, i
    peer.wait_no_lag(peer.prefix)


def test_what_cannot_be_parsed_goes_to_the_dead_letters(peer):
    """A null value, bad JSON, an oversized record and an unlisted reply topic keep their bytes and headers, and the requester hears of them."""
    where = {
        "null": peer.publish(None, key="null", headers={"correlation_id": "null", "mine": "1"}),
        "garbage": peer.publish(b"\xff{not json", key="garbage", headers={"correlation_id": "garbage"}),
        "huge": peer.publish(line("huge", prompt="a" * 2_000_000)),
        "elsewhere": peer.publish(line("elsewhere", prompt="a"), headers={"reply_to": f"{peer.prefix}.control"}),
        "url": peer.publish(line("url", url="/v2/x", prompt="a")),
    }
    codes = {
        "null": "invalid_json",
        "garbage": "invalid_json",
        "huge": "record_too_large",
        "elsewhere": "unauthorized_reply_topic",
        "url": "unknown_url",
    }
    peer.wait_until(lambda: len(peer.dead_letters) == len(where), 30, "dead letters")
    for key, value, headers in peer.dead_letters:
        name = key.decode()
        partition, offset = where[name]
        assert headers["penstock_error_code"] == codes[name]
        assert headers["penstock_origin"] == f"{peer.prefix}.requests/{partition}/{offset}"
        assert abs(int(headers["penstock_failed_at"]) / 1000 - time.time()) < 300
        assert headers["penstock_attempts"] == "1"
        if name == "null":
            assert value is None
            assert headers["mine"] == "1"
        if name == "huge":
            assert len(value) > 2_000_000
    for name in ("null", "garbage", "elsewhere", "url"):
        assert peer.wait(name)[0].code == codes[name]
    peer.wait_no_lag(peer.prefix)


def test_a_cancel_ends_a_running_and_a_queued_request(start_worker, connect):
    """A cancel yields the terminal event, whether the request runs or waits, and an unknown name is ignored."""
    start_worker(PENSTOCK_ENGINE__MAX_SEQUENCES="1")
    peer = connect()
    for name in ("first", "second", "third"):
        peer.publish(line(name, prompt="Once upon a time", max_tokens=900, ignore_eos=True, temperature=0), key="same")
    peer.wait_until(lambda: peer.streams.get("first") is not None and peer.streams["first"].chunks, 30, "the first chunk")
    for name in ("nobody", "third", "first"):
        peer.cancel(name)
    first, third = peer.wait("first", "third", timeout_s=20)
    assert first.code == third.code == "cancelled"
    assert 0 < len(first.token_ids) < 900
    assert not third.chunks
    peer.cancel("second")
    peer.wait("second")
    peer.wait_no_lag(peer.prefix)


def test_a_cancel_sent_while_no_worker_ran_still_holds(start_worker, connect):
    """A cancel that precedes the worker ends the request all the same."""
    start_worker().stop()
    peer = connect()
    peer.publish(line("early", prompt="Once upon a time", max_tokens=200, ignore_eos=True))
    peer.publish(line("kept", prompt="Once upon a time", max_tokens=4, ignore_eos=True))
    peer.cancel("early")
    start_worker()
    early, kept = peer.wait("early", "kept")
    assert early.code == "cancelled"
    assert kept.kind == "end"


def test_a_deadline_ends_a_request_queued_or_running(start_worker, connect):
    """Past its deadline a request ends with `deadline_exceeded`, also when it never ran."""
    start_worker(PENSTOCK_ENGINE__MAX_SEQUENCES="1")
    peer = connect()
    now_ms = int(time.time() * 1000)
    body = {"prompt": "Once upon a time", "max_tokens": 1000, "ignore_eos": True, "temperature": 0}
    peer.publish(line("past", **body), key="k", headers={"deadline": str(now_ms - 1000)})
    peer.publish(line("running", **body), key="k", headers={"deadline": str(now_ms + 1500)})
    peer.publish(line("queued", **body), key="k", headers={"deadline": str(now_ms + 1500)})
    past, running, queued = peer.wait("past", "running", "queued", timeout_s=30)
    assert past.code == running.code == queued.code == "deadline_exceeded"
    assert len(running.token_ids) < 1000
    peer.wait_no_lag(peer.prefix)


def test_a_request_sent_twice_is_one_stream(peer):
    """The same name and reply address join; another reply address is refused."""
    body = {"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": True, "temperature": 0}
    peer.publish(line("twice", **body))
    peer.publish(line("twice", **body))
    peer.wait_until(lambda: "twice" in peer.streams and peer.streams["twice"].begins == 1, 30, "begin")
    at = next(iter(peer.places["twice"]))[1]
    peer.publish(line("twice", **body), headers={"reply_partition": str((at + 1) % 4)})
    (stream,) = peer.wait("twice")
    assert len(stream.token_ids) == 200
    peer.wait_no_lag(peer.prefix)
    assert stream.begins == 1
    assert len(peer.places["twice"]) == 2


def test_sigterm_hands_back_and_a_restart_finishes(start_worker, connect):
    """A stopped worker exits 0; whatever it had not finished is finished by the next one, and every request ends exactly once."""
    worker = start_worker(PENSTOCK_LIMITS__DRAIN_S="1", PENSTOCK_ENGINE__MAX_SEQUENCES="8")
    peer = connect()
    work = prompts(40)
    names = [f"s-{i}" for i in range(40)]
    peer.publish_all([line(name, prompt=p, temperature=0, max_tokens=150, ignore_eos=True) for name, p in zip(names, work, strict=True)])
    peer.wait_until(lambda: any(stream.chunks for stream in peer.streams.values()), 30, "the first chunk")
    assert worker.stop() == 0
    unfinished = [name for name in names if not (name in peer.streams and peer.streams[name].terminal)]
    assert unfinished
    start_worker()
    streams = peer.wait(*names, timeout_s=90)
    assert [stream.kind for stream in streams] == ["end"] * 40
    assert all(len(stream.token_ids) == 150 for stream in streams)
    for name in random.Random(1).sample(names, 3):
        assert peer.streams[name].token_ids == alone(work[names.index(name)], 150)
    peer.wait_no_lag(peer.prefix)


def test_two_hundred_concurrent_requests_of_mixed_length(worker, peer):
    """Two hundred at once: each ends exactly once with the output it has alone, and they run in batches of more than sixteen."""
    work = prompts(200, seed=7)
    lengths = [random.Random(i).randrange(8, 64) for i in range(200)]
    names = [f"m-{i}" for i in range(200)]
    peer.publish_all([line(n, prompt=p, temperature=0, max_tokens=k, ignore_eos=True) for n, p, k in zip(names, work, lengths, strict=True)])
    streams = peer.wait(*names, timeout_s=110)
    assert [len(stream.token_ids) for stream in streams] == lengths
    assert {stream.terminals_seen for stream in streams} == {1}
    metrics = worker.metrics()
    assert metrics["penstock_batch_sequences_sum"] / metrics["penstock_batch_sequences_count"] > 16
    for i in random.Random(2).sample(range(200), 12):
        assert streams[i].token_ids == alone(work[i], lengths[i])
    peer.wait_no_lag(peer.prefix)


def test_health_follows_the_worker(start_worker, connect):
    """`/livez` and `/readyz` are 200 while it serves; `/readyz` is not once it drains."""
    worker = start_worker(PENSTOCK_LIMITS__DRAIN_S="5")
    peer = connect()
    assert worker.status("/livez") == worker.status("/readyz") == 200
    assert worker.status("/nothing") == 404
    peer.publish(line("long", prompt="Once upon a time", max_tokens=1000, ignore_eos=True))
    peer.wait_until(lambda: "long" in peer.streams and peer.streams["long"].chunks, 30, "the first chunk")
    worker.signal(signal.SIGTERM)
    deadline_s = time.monotonic() + 10
    seen = set()
    while worker.process.poll() is None and time.monotonic() < deadline_s:
        seen.add(worker.status("/readyz"))
        time.sleep(0.02)
    assert 503 in seen
    assert worker.process.wait(20) == 0


def test_prompts_and_outputs_stay_out_of_logs_and_metrics(worker, peer):
    """A canary in the prompt appears in no log line, metric or dead-letter header."""
    canary = "zebra-canary-4711"
    peer.publish(line("canary", prompt=canary, max_tokens=8))
    peer.publish(line("canary-2", prompt=canary, max_tokens="x" + canary))
    peer.publish(line("canary-3", prompt=canary, url="/v9"))
    peer.wait("canary", "canary-2", "canary-3")
    assert canary not in worker.log()
    assert canary not in json.dumps(worker.metrics())
    assert all(canary not in json.dumps(headers) for _, _, headers in peer.dead_letters)
    assert canary not in json.dumps([peer.streams[name].terminal for name in ("canary-2", "canary-3")])
