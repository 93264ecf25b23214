"""Continuous batching: whatever happens around a sequence, it gets what it would get alone."""

import random
from functools import cache
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings
from schemas.events import FinishReason
from tests.engine.serving import begin_anew, completion, engine_of, ids_of, serve
from tests.engine.tiny_models import VOCABULARY, WIDE, continued_by_transformers, tiny_model

PROMPTS = [random.Random(i).choices(range(VOCABULARY), k=tokens) for i, tokens in enumerate((40, 1, 17, 5, 30, 23, 2, 11))]


salts = count()


@cache
def wide_model():
    """A cache of one MiB holds eight of its blocks."""
    return tiny_model("llama", **WIDE)


@cache
def alone(index: int, tokens: int) -> list[int]:
    """What transformers makes of a prompt by itself."""
    return continued_by_transformers(wide_model(), PROMPTS[index], tokens)


@pytest.mark.parametrize("block_tokens", [1, 5, 16])
def test_output_does_not_depend_on_chunk_and_block_size(block_tokens):
    """Prompts longer and shorter than a step, chunks that end within and on block borders; nothing is found of what came before."""
    engine = engine_of(wide_model(), settings=EngineSettings(max_sequences=3, token_budget=1_024, block_tokens=block_tokens))
    for token_budget in (16, 17, 64, 1_024):
        begin_anew(engine, tokens=token_budget, sequences=3)
        answers = ids_of(engine, [completion(prompt, max_tokens=8) for prompt in PROMPTS[:5]], tenants=[str(token_budget)] * 5)
        assert answers == [alone(i, 8) for i in range(5)]
        assert engine.stats().kv_blocks_used == 0
    assert engine.stats().prefix_hit_tokens_total == 0


@pytest.mark.parametrize("is_filled", [False, True])
def test_rows_that_are_filled_up_change_no_output(monkeypatch, is_filled):
    """Of prompts in chunks, of sequences that decode, and of places that are sampled: what fills them up is not heard of."""
    monkeypatch.setattr("pipeline.engine.loading.fills", lambda *_: is_filled)
    engine = engine_of(wide_model(), settings=EngineSettings(max_sequences=3, token_budget=19, block_tokens=5, prefix_cache=False))
    assert ids_of(engine, [completion(prompt, max_tokens=8) for prompt in PROMPTS[:5]]) == [alone(i, 8) for i in range(5)]
    assert engine.stats().kv_blocks_used == 0


def test_sequences_of_very_different_length_decode_together(llama, monkeypatch):
    """So different that padding one to the other costs more than another round: each keeps its own output."""
    monkeypatch.setattr("pipeline.engine.packing.BUCKET_PADDING_TOKENS", 16)
    engine = engine_of(llama, settings=EngineSettings(max_sequences=4, token_budget=256, block_tokens=4))
    prompts = [random.Random(tokens).choices(range(VOCABULARY), k=tokens) for tokens in (2, 110, 5, 100)]
    answers = ids_of(engine, [completion(prompt, max_tokens=8) for prompt in prompts])
    assert answers == [continued_by_transformers(llama, prompt, 8) for prompt in prompts]


@cache
def tight_engine():
    """An engine whose cache holds a fraction of the load. Examples share it; what it has found out under one salt is of no use under another."""
    return engine_of(wide_model(), settings=EngineSettings(max_sequences=6, token_budget=48, block_tokens=8, kv_cache_mib=1))


@settings(max_examples=15, deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 12), min_size=len(PROMPTS), max_size=len(PROMPTS)),
    lanes=st.lists(st.sampled_from(Lane), min_size=len(PROMPTS), max_size=len(PROMPTS)),
    cancels=st.dictionaries(st.integers(0, len(PROMPTS) - 1), st.integers(1, 30), max_size=4),
    rows=st.integers(1, 6),
    budget=st.integers(16, 48),
)
def test_neither_arrivals_nor_lanes_nor_preemptions_nor_cancels_change_an_output(arrivals, lanes, cancels, rows, budget):
    """In a cache that holds a fraction of the load: each answer is whole, or cancelled and a prefix; blocks are conserved."""
    engine = tight_engine()
    begin_anew(engine, tokens=budget, sequences=rows)
    assert engine.stats().kv_blocks_total == 8

    def cancel(step: int) -> None:
        for key, at in cancels.items():
            if step == at:
                engine.cancel(key)

    requests = [completion(prompt, max_tokens=12) for prompt in PROMPTS]
    answers = serve(engine, requests, arrivals=arrivals, lanes=lanes, tenants=[str(next(salts))] * len(PROMPTS), between=cancel)
    for key in range(len(PROMPTS)):
        got = answers.get((key, 0))
        if key not in cancels:
            assert got.token_ids == alone(key, 12)
            assert got.finish_reason is FinishReason.LENGTH
        elif got is not None:
            assert got.token_ids == alone(key, 12)[: len(got.token_ids)]
        assert got is None or not got.outputs_after_the_end
    assert engine.stats().kv_blocks_used == 0
    assert engine.stats().running == engine.stats().waiting == 0


def test_a_small_cache_forces_preemption_and_nobody_notices():
    """Three growing sequences in room for two, let in without a reserve: somebody is preempted and computes again, and each output is whole."""
    settings = EngineSettings(max_sequences=3, token_budget=64, block_tokens=8, kv_cache_mib=1)
    engine = engine_of(wide_model(), settings=settings, policy=FirstCome())
    answers = ids_of(engine, [completion(PROMPTS[i], max_tokens=24) for i in (2, 3, 7)])
    assert answers == [alone(i, 24) for i in (2, 3, 7)]
    assert engine.stats().preemptions_total > 0


def test_seeded_sampling_is_the_same_alone_and_in_a_batch():
    """Draws depend on seed, choice and position, not on neighbours, chunks or preemptions."""
    body = {"max_tokens": 20, "temperature": 1.2, "top_p": 0.95, "frequency_penalty": 0.5, "n": 2}
    requests = [completion(PROMPTS[i], seed=i % 2, **body) for i in (2, 3, 7, 2)]
    roomy = EngineSettings(max_sequences=8, token_budget=256)
    together = serve(engine_of(wide_model(), settings=roomy), requests)
    tight = serve(engine_of(wide_model(), settings=EngineSettings(max_sequences=3, token_budget=16, block_tokens=8, kv_cache_mib=1)), requests)
    for key, one in enumerate(requests):
        by_itself = serve(engine_of(wide_model(), settings=roomy), [one])
        for choice in range(2):
            assert by_itself[0, choice].token_ids == together[key, choice].token_ids == tight[key, choice].token_ids
    assert together[0, 0].token_ids != together[0, 1].token_ids
    assert together[0, 0].token_ids == together[3, 0].token_ids, "the same prompt and seed"


def test_requests_without_a_seed_draw_differently():
    """Nobody who names no seed gets somebody else's output."""
    answers = ids_of(engine_of(wide_model()), [completion([1, 2, 3], max_tokens=12, temperature=2) for _ in range(4)])
    assert len({tuple(answer) for answer in answers}) == 4


def test_a_cancel_storm_leaves_an_empty_engine():
    """Everything is cancelled, waiting, prefilling or decoding; unknown and repeated cancels are ignored."""
    engine = engine_of(wide_model(), settings=EngineSettings(max_sequences=3, token_budget=16, block_tokens=8, kv_cache_mib=1))
    for key, prompt in enumerate(PROMPTS):
        engine.add(key, engine.prepare(completion(prompt, max_tokens=20, n=2)), Lane.DEFAULT, 0.0)
    for step in range(4):
        engine.step(float(step))
    for key in [*range(len(PROMPTS)), 0, 99]:
        engine.cancel(key)
    assert not engine.has_work()
    assert engine.step(9.0) == []
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.waiting_tokens, stats.kv_blocks_used) == (0, 0, 0, 0)


def test_priority_is_served_before_flex():
    """With one row, a priority request that comes later ends first, and the flex one is still answered in full."""
    engine = engine_of(wide_model(), settings=EngineSettings(max_sequences=1, token_budget=64))
    order = []
    requests = [completion(PROMPTS[3], max_tokens=8), completion(PROMPTS[2], max_tokens=8)]
    tokens: dict[int, list[int]] = {0: [], 1: []}

    def step(now_s: float) -> None:
        for output in engine.step(now_s):
            tokens[output.key] += output.token_ids
            if output.finish_reason:
                order.append(output.key)

    for key, lane in enumerate((Lane.FLEX, Lane.PRIORITY)):
        engine.add(key, engine.prepare(requests[key]), lane, float(key))
        step(float(key))
    while engine.has_work():
        step(2.0)
    assert order == [1, 0]
    assert tokens[1] == alone(2, 8)
