"""What was computed for one prompt is found by the next that begins alike, and nobody can tell from the output."""

import random
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings
from tests.engine.serving import begin_anew, completion, engine_of, ids_of, serve
from tests.engine.tiny_models import VOCABULARY, WIDE, continued_by_transformers, tiny_model

examples = count()
STEM = random.Random(0).choices(range(VOCABULARY), k=40)
ROOMY = EngineSettings(max_sequences=8, token_budget=64, block_tokens=8, kv_cache_mib=1, threads=1)


def hits(engine) -> int:
    """Tokens found so far."""
    return engine.stats().prefix_hit_tokens_total


def test_a_prompt_that_begins_alike_is_found_in_part(llama):
    """Full blocks only, while the first runs and after it ended, outputs included as in the next turn of a chat."""
    engine = engine_of(llama, settings=ROOMY)
    first = [*STEM, 1, 2]
    (said,) = ids_of(engine, [completion(first, max_tokens=10)])
    assert hits(engine) == 0
    prompts = [[*STEM[:20], 3, 4], first + said + [5], first]
    answers = ids_of(engine, [completion(prompt, max_tokens=10) for prompt in prompts], arrivals=[0, 2, 4])
    assert answers == [continued_by_transformers(llama, prompt, 10) for prompt in prompts]
    assert hits(engine) == 16 + 48 + 40
    assert engine.stats().prefix_query_tokens_total == 42 + 22 + 53 + 42
    assert engine.stats().kv_blocks_used == 0


def test_the_last_token_is_computed_even_where_all_is_known(llama):
    """A prompt of whole blocks, asked twice: its last block is computed again, since its last logits are sampled from."""
    engine = engine_of(llama, settings=ROOMY)
    expected = continued_by_transformers(llama, STEM, 6)
    for known in (0, 32, 64):
        assert ids_of(engine, [completion(STEM, max_tokens=6)]) == [expected]
        assert hits(engine) == known


def test_tenants_share_nothing(llama):
    """One that guesses another's prompt learns nothing from the time it takes; one's own is found."""
    engine = engine_of(llama, settings=ROOMY)
    request = completion(STEM, max_tokens=4)
    serve(engine, [request], tenants=["one"])
    serve(engine, [request], tenants=["two"])
    assert hits(engine) == 0
    serve(engine, [request], tenants=["one"])
    assert hits(engine) == 32


def test_the_cache_can_be_switched_off(llama):
    """Then nothing is kept, looked for or counted."""
    engine = engine_of(llama, settings=ROOMY.model_copy(update={"prefix_cache": False}))
    for _ in range(2):
        assert ids_of(engine, [completion(STEM, max_tokens=4)]) == [continued_by_transformers(llama, STEM, 4)]
    assert (hits(engine), engine.stats().prefix_query_tokens_total) == (0, 0)


def test_warming_up_leaves_nothing_to_be_found(llama):
    """Tokens of the warm-up are nobody's prompt."""
    engine = engine_of(llama, settings=ROOMY)
    engine.warm_up()
    before = hits(engine)
    ids_of(engine, [completion([0] * 64, max_tokens=1)], tenants=["someone"])
    assert hits(engine) == before


def test_seeded_sampling_is_the_same_after_a_hit():
    """Alone, in a batch, and where most of the prompt is found."""
    model = tiny_model("llama")
    body = {"max_tokens": 20, "temperature": 1.2, "top_p": 0.95, "repetition_penalty": 1.2, "n": 2}
    requests = [completion(STEM[: 20 + 4 * i], seed=7, **body) for i in range(4)]
    engine = engine_of(model, settings=ROOMY)
    together = serve(engine, requests)
    for key, request in enumerate(requests):
        alone = serve(engine_of(model, settings=ROOMY), [request])
        again = serve(engine, [request])
        for choice in range(2):
            assert alone[0, choice].token_ids == together[key, choice].token_ids == again[0, choice].token_ids
    assert hits(engine) >= 4 * 16


@pytest.fixture(scope="module")
def wide():
    """An engine with a cache of eight blocks, prompts, and what its model makes of each alone."""
    model = tiny_model("llama", **WIDE)
    engine = engine_of(model, settings=EngineSettings(max_sequences=4, token_budget=48, block_tokens=8, kv_cache_mib=1, threads=1))
    prompts = [STEM[:17], [*STEM[:17], 9], STEM[:30], STEM, [4] * 9, [4] * 24]
    return engine, prompts, [continued_by_transformers(model, prompt, 8) for prompt in prompts]


@settings(max_examples=12, deadline=None)
@given(
    order=st.lists(st.integers(0, 5), min_size=4, max_size=10),
    choices=st.lists(st.integers(1, 3), min_size=10, max_size=10),
    arrivals=st.lists(st.integers(0, 12), min_size=10, max_size=10),
    lanes=st.lists(st.sampled_from(Lane), min_size=10, max_size=10),
    tenants=st.lists(st.sampled_from(["one", "two"]), min_size=10, max_size=10),
    cancels=st.dictionaries(st.integers(0, 9), st.integers(1, 30), max_size=3),
    budget=st.integers(16, 48),
)
def test_hits_evictions_preemptions_and_cancels_change_no_output(wide, order, choices, arrivals, lanes, tenants, cancels, budget):
    """In a cache of eight blocks where everybody begins alike: each choice is whole, or cancelled and a prefix, and blocks are conserved."""
    engine, prompts, expected = wide
    begin_anew(engine, tokens=budget, sequences=4)
    example = next(examples)

    def cancel(step: int) -> None:
        for key, at in cancels.items():
            if step == at:
                engine.cancel(key)

    requests = [completion(prompts[index], max_tokens=8, n=choices[key]) for key, index in enumerate(order)]
    answers = serve(engine, requests, arrivals=arrivals, lanes=lanes, tenants=[f"{tenant} {example}" for tenant in tenants], between=cancel)
    for key, index in enumerate(order):
        for choice in range(choices[key]):
            answer = answers.get((key, choice))
            if key not in cancels:
                assert answer.token_ids == expected[index]
            elif answer is not None:
                assert answer.token_ids == expected[index][: len(answer.token_ids)]
            assert answer is None or not answer.outputs_after_the_end
    assert (engine.stats().kv_blocks_used, engine.stats().running, engine.stats().waiting) == (0, 0, 0)
