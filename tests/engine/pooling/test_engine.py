"""Many requests in each step: what is asked comes back whole, and faults stay with whose they are."""

import numpy as np
import pytest
import torch

from pipeline.engine.pooling.engine import PoolingEngine
from pipeline.scheduling.sequence import Lane
from schemas.errors import EngineError
from schemas.events import FinishReason
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import ask, drain, pooling_engine, tiny_encoder
from tests.engine.serving import request

POISON = 99
LETHAL = 98


def embeddings(*texts):
    """A request for the embeddings of some ids."""
    return request(Endpoint.EMBEDDINGS, input=list(texts))


@pytest.fixture
def engine() -> PoolingEngine:
    """A fresh engine: 32 tokens per step."""
    return pooling_engine(tiny_encoder("bert"))


@pytest.fixture
def fragile(engine) -> PoolingEngine:
    """One whose model raises where a certain token is in the batch, and computes no number for another."""

    def poisoned(_module, _args, kwargs):
        if (kwargs["input_ids"] == POISON).any():
            raise RuntimeError("poisoned")

    engine._runner._network.register_forward_pre_hook(poisoned, with_kwargs=True)
    with torch.no_grad():
        engine._runner._network.get_input_embeddings().weight[LETHAL] = float("nan")
    return engine


def add(engine: PoolingEngine, key: int, *texts, lane: Lane = Lane.DEFAULT) -> None:
    """Queues a request for embeddings."""
    engine.add(key, engine.prepare(embeddings(*texts)), lane, 0.0)


def test_a_request_is_spread_over_steps_and_answered_once(engine):
    """With the last of its texts, in the order of the request, each as if it came alone."""
    texts = [[10 + n] * (1 + n % 7) for n in range(30)]
    add(engine, 5, *texts)
    outputs, steps = [], 0
    while engine.has_work():
        steps += 1
        outputs += engine.step(0.0)
        assert engine.stats().batch_tokens <= 32
    assert steps >= sum(map(len, texts)) // 32
    (output,) = outputs
    assert (output.key, output.finish_reason, output.token_ids) == (5, FinishReason.STOP, ())
    expected = [ask(engine, embeddings(text))[0].rows[0] for text in texts]
    torch.testing.assert_close(torch.from_numpy(output.pooled.rows), torch.from_numpy(np.stack(expected)), atol=1e-5, rtol=1e-5)


def test_what_comes_back_does_not_depend_on_the_neighbours(engine):
    """Several requests side by side give what each gives alone."""
    asked = [embeddings(*[[10 + n, 50 + n, 30][: 1 + (n + i) % 3] for i in range(n + 1)]) for n in range(6)]
    together = ask(engine, *asked)
    for one, pooled in zip(asked, together, strict=True):
        torch.testing.assert_close(torch.from_numpy(pooled.rows), torch.from_numpy(ask(engine, one)[0].rows), atol=1e-5, rtol=1e-5)


def test_a_text_that_fails_harms_no_neighbour(fragile):
    """Its own request fails, with the others in the same step untouched."""
    clean = [ask(fragile, embeddings([n, n + 1]))[0].rows for n in range(10, 14)]
    for key, start in enumerate(range(10, 14)):
        add(fragile, key, [start, start + 1])
    add(fragile, 9, [20, 21], [POISON, 3], [22])
    outputs = drain(fragile)
    assert isinstance(outputs[9].error, EngineError)
    assert "RuntimeError" in outputs[9].error.message
    assert "poisoned" not in outputs[9].error.message
    for key, rows in enumerate(clean):
        torch.testing.assert_close(torch.from_numpy(outputs[key].pooled.rows), torch.from_numpy(rows), atol=1e-5, rtol=1e-5)


def test_a_result_that_is_not_a_number_fails_its_request_only(fragile):
    """It is not sent, and the texts beside it are."""
    add(fragile, 1, [10, LETHAL])
    add(fragile, 2, [10, 11])
    outputs = drain(fragile)
    assert isinstance(outputs[1].error, EngineError)
    assert outputs[2].error is None
    assert outputs[2].pooled is not None


def test_a_failed_request_takes_no_more_steps(fragile):
    """Its other texts are not computed, and its key may come again."""
    add(fragile, 1, [POISON], *[[10] * 30] * 20)
    (output,) = fragile.step(0.0)
    assert output.error is not None
    assert not fragile.has_work()
    add(fragile, 1, [10])
    assert drain(fragile)[1].pooled is not None


def test_a_broken_device_is_the_engines_fault(engine):
    """It is raised, not blamed on a text: nothing runs there any more."""

    def breaks(_module, _args):
        raise torch.AcceleratorError("device lost")

    engine._runner._network.register_forward_pre_hook(breaks)
    add(engine, 1, [10], [11])
    with pytest.raises(torch.AcceleratorError):
        engine.step(0.0)


def test_a_cancel_takes_effect_between_steps(engine):
    """Of a request half done nothing follows; others go on; unknown keys are ignored."""
    add(engine, 1, *[[10] * 20] * 10)
    add(engine, 2, *[[11] * 10] * 4)
    engine.step(0.0)
    engine.cancel(1)
    engine.cancel(1)
    engine.cancel(77)
    assert list(drain(engine)) == [2]


def test_gauges_count_what_waits_and_what_runs(engine):
    """Requests and tokens, before, during and after."""
    add(engine, 1, [10] * 20, [11] * 10)
    add(engine, 2, [12] * 15)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.waiting_tokens) == (0, 2, 45)
    engine.step(0.0)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.waiting_tokens) == (1, 1, 25)
    assert (stats.batch_sequences, stats.batch_tokens) == (1, 20)
    drain(engine)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.waiting_tokens) == (0, 0, 0)


def test_warming_up_leaves_nothing_behind(engine):
    """It runs the model, and no work waits afterwards."""
    engine.warm_up()
    assert not engine.has_work()
    assert engine.stats().batch_tokens == 0


def test_priority_is_read_first(engine):
    """A request of a higher lane passes those that wait."""
    add(engine, 1, *[[10] * 30] * 3, lane=Lane.FLEX)
    add(engine, 2, [11] * 30, lane=Lane.PRIORITY)
    assert [output.key for output in engine.step(0.0)] == [2]
