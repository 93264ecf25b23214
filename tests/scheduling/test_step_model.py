"""What is learned of step times."""

import json
import math
from random import Random

import pytest

from pipeline.scheduling.step_model import TERMS, TRUSTED_AFTER_STEPS, Load, StepModel, Terms
from tests.scheduling.machine import learned, step_s


def load(decodes: int = 0, context: int = 64, chunk: int = 0, start: int = 0) -> Load:
    """A step of decodes with so much context each, and one chunk."""
    made = Load()
    made.decodes, made.kv_tokens = decodes, decodes * context
    if chunk:
        made.add_chunk(start, chunk)
    return made


def drawn(draw: Random) -> Load:
    """Some step, as they come in service."""
    return load(draw.randrange(1, 64), draw.randrange(16, 256), draw.choice([0, 0, 32, 128, 256]), draw.randrange(64))


def test_times_are_learned_from_noisy_steps():
    """After 500 steps with noise of 3 % and outliers, the p95 of the error is below 15 %, and unseen mixtures are predicted."""
    draw, model = Random(1), StepModel()
    for number in range(500):
        made = drawn(draw)
        pause = 8.0 if number % 97 == 50 else 1.0
        model.observe(made, step_s(made) * draw.lognormvariate(0, 0.03) * pause)
    assert model.error_p95 < 0.15
    for made in (load(8), load(48, 200), load(0, chunk=200), load(30, 100, 100)):
        assert model.predict(made) == pytest.approx(step_s(made), rel=0.1)


def test_one_pause_spoils_nothing():
    """A step that took a hundred times as long as it should moves the predictions by a few percent."""
    model = learned()
    before = model.predict(load(32))
    model.observe(load(32), 100 * step_s(load(32)))
    assert model.predict(load(32)) == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize(("pauses", "moved"), [(2, 0.15), (3, 0.35)])
@pytest.mark.parametrize("factor", [4.0, 100.0, 10_000.0])
def test_pauses_in_a_row_are_taken_for_a_slower_machine_little_by_little(pauses, moved, factor):
    """However long they are; twenty steps later nothing is left of them, in the sum neither."""
    model = learned()
    before, prompt_s = model.predict(load(32)), model.predict(load(8, chunk=128))
    for _ in range(pauses):
        model.observe(load(32), factor * step_s(load(32)))
    assert before < model.predict(load(32)) < (1.0 + moved) * before
    for _ in range(20):
        model.observe(load(32), step_s(load(32)))
    assert model.predict(load(32)) == pytest.approx(before, rel=0.03)
    assert model.predict(load(8, chunk=128)) == pytest.approx(prompt_s, rel=0.05)


def test_a_machine_that_slows_down_is_followed():
    """From a hundred steps on, predictions are those of the slower machine."""
    draw, model = Random(2), learned()
    for _ in range(400):
        made = drawn(draw)
        model.observe(made, 2.0 * step_s(made))
    assert model.predict(load(32)) == pytest.approx(2.0 * step_s(load(32)), rel=0.15)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_machine_that_changes_as_a_whole_is_followed_within_ten_steps(factor):
    """Slower or faster: every kind of step is predicted as it is now, those that did not occur since included."""
    draw, model = Random(4), learned()
    for _ in range(10):
        made = load(draw.randrange(1, 64), draw.randrange(16, 256))
        model.observe(made, factor * step_s(made))
    assert model.predict(load(8, chunk=128)) == pytest.approx(factor * step_s(load(8, chunk=128)), rel=0.3)


def test_what_does_not_occur_for_long_is_not_forgotten():
    """A thousand steps without a prompt leave what prompts cost as it was."""
    model = learned(steps=300)
    before = model.predict(load(8, chunk=128))
    for number in range(1_000):
        made = load(1 + number % 60)
        model.observe(made, step_s(made))
    assert model.predict(load(8, chunk=128)) == pytest.approx(before, rel=0.1)


def test_no_part_is_ever_negative():
    """Not even where noise says so."""
    draw, model = Random(3), StepModel()
    for _ in range(200):
        model.observe(drawn(draw), draw.random())
        assert min(model.seconds) >= 0.0


def test_nothing_is_predicted_before_enough_was_seen():
    """Two dozen steps; a step that took no time is none."""
    model = StepModel()
    model.observe(load(1), 0.0)
    for _ in range(TRUSTED_AFTER_STEPS):
        assert not model.known
        assert model.error_p95 is None
        model.observe(load(4), 0.01)
    assert model.known


def test_what_was_learned_survives_a_restart():
    """The model that is read again predicts the same and goes on learning the same."""
    model = learned()
    again = StepModel.from_json(json.loads(json.dumps(model.to_json())))
    assert (again.known, again.steps, again.margin, again.error_p95) == (model.known, model.steps, model.margin, model.error_p95)
    for one in (model, again):
        one.observe(load(16), 0.02)
    assert again.predict(load(40, chunk=64)) == model.predict(load(40, chunk=64))


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"terms": []},
        {"seconds": [1.0]},
        {"seconds": [-1.0] * len(TERMS)},
        {"seconds": [float("nan")] * len(TERMS)},
        {"products": []},
        {"products": 7},
        {"errors": ["x"]},
        {"speed": 0.0},
        {"steps": None},
    ],
)
def test_what_is_not_a_step_model_is_refused(broken):
    """Missing, mistyped, negative or not finite: a ValueError, which the reader answers by starting anew."""
    kept = learned().to_json() | broken if broken else {}
    with pytest.raises(ValueError):  # noqa: PT011 -- the message is for people
        StepModel.from_json(kept)


def test_the_terms_are_those_of_the_machine():
    """Each term is what the model multiplies it with."""
    found = load(3, 10, 20, 5).terms()
    assert found == Terms(step=1.0, prefill_tokens=20, decodes=3, kv_tokens=35, prefill_context=20 * 15.0, mixed=60, chunks=1)


def test_a_speed_that_floats_is_followed_from_step_to_step():
    """A shared machine whose speed wanders between a half more and a third less: errors are far below what it wanders."""
    draw, model, floating, errors, wandered = Random(5), learned(steps=200), 0.0, [], []
    for _ in range(800):
        floating = 0.95 * floating + draw.gauss(0.0, 0.06)
        made = drawn(draw)
        measured_s = step_s(made) * math.exp(floating)
        errors.append(abs(model.predict(made) / measured_s - 1.0))
        wandered.append(abs(math.exp(-floating) - 1.0))
        model.observe(made, measured_s)
    assert sum(errors) < 0.6 * sum(wandered)
    assert model.error_p95 < 0.3
