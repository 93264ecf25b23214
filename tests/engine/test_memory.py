"""When memory is short: smaller steps for a while, and only what cannot run alone fails."""

import pytest
import torch

from pipeline.scheduling.budget import RECOVERY_STEPS
from pipeline.scheduling.sequence import Lane
from pipeline.settings import EngineSettings
from schemas.errors import EngineError
from tests.engine.faults import Fault
from tests.engine.serving import completion, engine_of, serve
from tests.engine.tiny_models import continued_by_transformers

PROMPTS = [[i + 1, i + 11, i + 21, i + 31] for i in range(5)]
OUTPUT_TOKENS = 6
SETTINGS = EngineSettings(max_sequences=8, token_budget=64, block_tokens=4, kv_cache_mib=1, threads=1)
SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
]


@pytest.fixture(scope="module")
def expected(llama):
    """What each prompt gets alone."""
    return [continued_by_transformers(llama, prompt, OUTPUT_TOKENS) for prompt in PROMPTS]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: type(error).__name__)
def test_steps_that_are_too_large_are_made_smaller_and_everybody_is_served(llama, expected, error):
    """Whatever takes more than a few tokens at once fails; every output is whole, and the steps stay small afterwards."""
    engine = engine_of(llama, settings=SETTINGS)
    with Fault(engine, lambda ids: ids.shape[1] > 4, error) as shortage:
        answers = serve(engine, [completion(prompt, max_tokens=OUTPUT_TOKENS) for prompt in PROMPTS])
    assert shortage.struck
    assert [answers[key, 0].token_ids for key in range(5)] == expected
    assert not any(answer.error for answer in answers.values())
    assert engine._scheduler.budget.tokens < 64
    assert engine.stats().kv_blocks_used == 0


def test_flex_work_waits_first(llama, expected):
    """After a shortage the last in rank give up their rows, and get them back in time; nobody's output changes."""
    engine = engine_of(llama, settings=SETTINGS)
    lanes = [Lane.FLEX, Lane.DEFAULT, Lane.FLEX, Lane.DEFAULT, Lane.FLEX]
    running = []

    def watch(_: int) -> None:
        running.append({s.key for s in engine._scheduler.running})

    fails = iter([False, True])
    with Fault(engine, lambda _: next(fails, False), MemoryError()):
        answers = serve(engine, [completion(prompt, max_tokens=OUTPUT_TOKENS) for prompt in PROMPTS], lanes=lanes, between=watch)
    assert running[1] == set(range(5))
    assert {1, 3} <= running[2]
    assert len(running[2]) == 4
    assert [answers[key, 0].token_ids for key in range(5)] == expected


def test_the_budget_grows_back(llama):
    """One shortage does not make the engine slow for ever."""
    engine = engine_of(llama, settings=SETTINGS)
    fails = iter([True])
    with Fault(engine, lambda _: next(fails, False), MemoryError()):
        serve(engine, [completion(PROMPTS[0], max_tokens=RECOVERY_STEPS // 2)])
        assert engine._scheduler.budget.tokens == 32
    serve(engine, [completion(PROMPTS[0], max_tokens=RECOVERY_STEPS)])
    assert engine._scheduler.budget.tokens == 64


@pytest.mark.parametrize("culprit", range(5))
@pytest.mark.parametrize("when", ["prefill", "decode"])
def test_a_sequence_that_cannot_run_alone_fails_alone(llama, expected, culprit, when):
    """In the step in which it strikes; its neighbours' outputs are whole, and it may be tried again."""
    token = PROMPTS[culprit][2] if when == "prefill" else 95
    assert not any(token in answer for key, answer in enumerate(expected) if key != culprit)
    requests = [completion(prompt, max_tokens=OUTPUT_TOKENS) for prompt in PROMPTS]
    if when == "decode":
        requests[culprit] = completion(PROMPTS[culprit], max_tokens=OUTPUT_TOKENS, logit_bias={"95": 100})
    engine = engine_of(llama, settings=SETTINGS)
    with Fault(engine, token, torch.OutOfMemoryError("out of memory")):
        answers = serve(engine, requests)
    assert isinstance(answers[culprit, 0].error, EngineError)
    assert [answers[key, 0].token_ids for key in range(5) if key != culprit] == [answer for key, answer in enumerate(expected) if key != culprit]
    assert engine.stats().kv_blocks_used == 0
    assert serve(engine, [completion(PROMPTS[culprit], max_tokens=OUTPUT_TOKENS)])[0, 0].token_ids == expected[culprit]


def test_a_prompt_too_large_for_one_step_is_computed_in_smaller_chunks(llama):
    """Alone in its step it is tried in halves before it is at fault."""
    engine = engine_of(llama, settings=SETTINGS)
    prompt = list(range(60))
    with Fault(engine, lambda ids: ids.shape[1] > 9, MemoryError()):
        answer = serve(engine, [completion(prompt, max_tokens=4)])[0, 0]
    assert answer.token_ids == continued_by_transformers(llama, prompt, 4)
