"""Counter-based random numbers."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.randomness import uniforms

INT64 = st.integers(-(2**63), 2**63 - 1)
MASK = 2**64 - 1


def in_plain_integers(seed: int, choice: int, position: int) -> float:
    """The same numbers without tensors: what must come out on every device and in every release."""

    def mix(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        return bits ^ (bits >> 31)

    golden = 0x9E3779B97F4A7C15
    stream = mix(mix((seed + golden) & MASK) ^ (choice * golden & MASK))
    return (mix((stream + (position + 1) * golden) & MASK) >> 11) * 2.0**-53


def draw(seed: int, choice: int, position: int) -> float:
    """One number."""
    return uniforms(*(torch.tensor([value]) for value in (seed, choice, position))).item()


@given(seed=INT64, choice=st.integers(0, 127), position=st.integers(0, 2**20))
def test_numbers_are_those_of_the_definition(seed, choice, position):
    """Bit for bit, for any seed: products wrap and shifts are logical."""
    number = draw(seed, choice, position)
    assert number == in_plain_integers(seed, choice, position)
    assert 0.0 <= number < 1.0


def test_numbers_are_spread_evenly_and_differ_by_seed_choice_and_position():
    """Neighbouring counters give unrelated numbers: each range of 10,000 has the mean, spread and correlation of uniform ones."""
    count = torch.arange(10_000)
    zero = torch.zeros_like(count)
    for rows in ((count, zero, zero), (zero, count, zero), (zero, zero, count)):
        numbers = uniforms(*rows)
        assert abs(numbers.mean().item() - 1 / 2) < 0.01
        assert abs(numbers.var().item() - 1 / 12) < 0.002
        assert abs(torch.corrcoef(torch.stack((numbers[:-1], numbers[1:])))[0, 1].item()) < 0.03
        assert len(numbers.unique()) == 10_000
