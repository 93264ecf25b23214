"""Several choices of one request: one prompt, and an output each, as if each had been asked for alone."""

import random

import pytest

from pipeline.settings import EngineSettings
from tests.engine.serving import completion, engine_of, serve
from tests.engine.tiny_models import VOCABULARY, continued_by_transformers

SETTINGS = EngineSettings(max_sequences=8, token_budget=64, block_tokens=8, kv_cache_mib=1, threads=1)
PROMPT = random.Random(1).choices(range(VOCABULARY), k=40)


def computed_tokens(engine, requests) -> int:
    """Serves requests and counts the tokens that steps computed."""
    total = 0

    def count(_: int) -> None:
        nonlocal total
        total += engine.stats().batch_tokens

    serve(engine, requests, between=count)
    return total


@pytest.fixture(scope="module")
def engines(llama):
    """One that keeps prefixes, and one that does not."""
    return [engine_of(llama, settings=SETTINGS.model_copy(update={"prefix_cache": prefix_cache})) for prefix_cache in (True, False)]


@pytest.mark.parametrize("prompt_tokens", [1, 7, 8, 9, 16, 33, 40])
def test_every_choice_is_what_it_is_alone(llama, engines, prompt_tokens):
    """Wherever the prompt ends within a block, greedily and drawn, whether or not prefixes are kept."""
    prompt = PROMPT[:prompt_tokens]
    greedy, drawn = completion(prompt, n=4, max_tokens=12), completion(prompt, n=3, max_tokens=12, temperature=1.3, seed=5)
    expected = continued_by_transformers(llama, prompt, 12)
    fresh = serve(engine_of(llama, settings=SETTINGS), [drawn])
    for engine in engines:
        answers = serve(engine, [greedy, drawn], tenants=[str(prompt_tokens)] * 2)
        assert all(answers[0, choice].token_ids == expected for choice in range(4))
        assert len({tuple(answers[1, choice].token_ids) for choice in range(3)}) == 3
        assert [fresh[0, choice].token_ids for choice in range(3)] == [answers[1, choice].token_ids for choice in range(3)]


def test_a_prompt_is_computed_once_for_all_choices(llama):
    """Each further choice computes the prompt's last token and its own, whether or not prefixes are kept."""
    for prefix_cache in (True, False):
        engine = engine_of(llama, settings=SETTINGS.model_copy(update={"prefix_cache": prefix_cache}))
        assert computed_tokens(engine, [completion(PROMPT, n=6, max_tokens=5)]) <= 40 + 5 * 1 + 6 * 4


def test_choices_hold_the_prompts_full_blocks_together(llama):
    """Five blocks of prompt, of which four are shared and the last is copied, and later a block each to grow."""
    engine = engine_of(llama, settings=SETTINGS)
    used = []
    serve(engine, [completion(PROMPT[:38], n=4, max_tokens=3)], between=lambda _: used.append(engine.stats().kv_blocks_used))
    assert max(used) == 4 + 4


def test_more_choices_than_rows_are_all_answered(llama):
    """They come in as others end, and find the prompt with those that still run, or in the cache."""
    for prefix_cache in (True, False):
        engine = engine_of(llama, settings=SETTINGS.model_copy(update={"prefix_cache": prefix_cache, "max_sequences": 3}))
        answers = serve(engine, [completion(PROMPT[:21], n=10, max_tokens=6)])
        expected = continued_by_transformers(llama, PROMPT[:21], 6)
        assert [answers[0, choice].token_ids for choice in range(10)] == [expected] * 10
