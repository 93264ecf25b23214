"""From logits to tokens."""

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from pipeline.engine.sampler import NOT_A_NUMBER, Draws, Sampler
from pipeline.engine.work import Work
from pipeline.scheduling.sequence import Sequence
from schemas.request import SamplingParams

VOCABULARY = 50
CPU = torch.device("cpu")


def logits_of(rows: int, seed: int = 0) -> torch.Tensor:
    """Random logits."""
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


class Running:
    """A sampler with running sequences, one per set of parameters."""

    def __init__(self, *parameters: dict[str, Any], prompt: tuple[int, ...] = (1, 2, 3), rows: list[int] | None = None):
        self.sampler = Sampler(rows=len(parameters) + 3, vocabulary=VOCABULARY, device=CPU)
        self.sequences = [Sequence(key=i, prompt_ids=prompt, row=row) for i, row in enumerate(rows or range(len(parameters)))]
        for sequence, given in zip(self.sequences, parameters, strict=True):
            self.admit(sequence, **given)

    def admit(self, sequence: Sequence, *, ends: tuple[int, ...] = (), index: int = 0, **given: Any) -> None:
        """Gives a sequence its parameters."""
        sampling = SamplingParams(**({"max_tokens": 99, "temperature": 0.0, "seed": 0} | given))
        sequence.index = index
        work = Work(
            prompt_ids=tuple(sequence.prompt_ids),
            sampling=sampling,
            max_tokens=99,
            min_tokens=sampling.min_tokens,
            end_ids=frozenset(ends),
            is_chat=False,
        )
        self.sampler.admit(sequence, work)

    def sample(self, logits: torch.Tensor) -> Draws:
        """Draws, without taking the tokens up."""
        return self.sampler.sample(logits.clone(), self.sequences)

    def take(self, logits: torch.Tensor) -> list[int]:
        """Draws and takes the tokens up."""
        token_ids = self.sample(logits).token_ids
        self.sampler.record(self.sequences, token_ids)
        for sequence, token in zip(self.sequences, token_ids, strict=True):
            sequence.output_ids.append(token)
        return token_ids


def test_at_temperature_0_the_best_token_is_taken():
    """Also beside rows that draw, and with a temperature too small to divide by."""
    logits = logits_of(3)
    best = logits.argmax(-1).tolist()
    assert Running({}, {}, {}).sample(logits).token_ids == best
    mixed = Running({}, {"temperature": 1.0}, {"temperature": 1e-300}).sample(logits).token_ids
    assert [mixed[0], mixed[2]] == [best[0], best[2]]


@pytest.mark.parametrize("given", [{}, {"temperature": 0.5}, {"top_k": 4}, {"top_p": 0.7}, {"min_p": 0.2}], ids=str)
def test_tokens_are_drawn_as_often_as_they_are_likely(given):
    """Over 4,000 seeds the frequencies are the softmax of what temperature and filters left, by a chi-square test."""
    logits = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -8.0])
    wanted = (logits / given.get("temperature", 1.0)).softmax(-1)
    if "top_k" in given:
        wanted[4:] = 0
    if "top_p" in given:
        wanted[3:] = 0
    wanted[wanted < given.get("min_p", 0.0) * wanted.max()] = 0
    wanted /= wanted.sum()
    draws = 4_000
    running = Running(*({"temperature": 1.0, "seed": seed} | given for seed in range(draws)))
    padded = torch.full((draws, VOCABULARY), -100.0)
    padded[:, : len(logits)] = logits
    counts = Counter(running.sample(padded).token_ids)
    assert not any(counts[token] for token in range(len(logits)) if wanted[token] == 0)
    likely = [token for token in range(len(logits)) if wanted[token] * draws > 5]
    chi_square = sum((counts[t] - draws * wanted[t].item()) ** 2 / (draws * wanted[t].item()) for t in likely)
    assert chi_square < 25, "seven tokens: above 25 less than once in 2,000 tries, and the seeds are fixed"


def test_draws_depend_on_seed_position_and_choice_alone():
    """A sequence draws the same alone, in another row and beside others; another seed, choice or position draws anew."""
    parameters = [{"temperature": 1.5, "seed": seed, "index": index, "top_p": 0.9 + 0.01 * index} for seed in (7, 8) for index in range(5)]
    together = Running(*parameters)
    tokens = [together.take(logits_of(len(parameters), step)) for step in range(6)]
    for i, given in enumerate(parameters):
        alone = Running(given, rows=[2])
        assert [alone.take(logits_of(len(parameters), step)[i : i + 1])[0] for step in range(6)] == [step[i] for step in tokens]
    flat = torch.zeros(1, VOCABULARY)
    assert len({Running({"temperature": 1.0, "seed": seed}).sample(flat).token_ids[0] for seed in range(20)}) > 10
    assert len({Running({"temperature": 1.0, "index": index}).sample(flat).token_ids[0] for index in range(20)}) > 10
    one = Running({"temperature": 1.0})
    assert len({one.take(flat)[0] for _ in range(20)}) > 10


def test_a_sequence_that_gets_a_row_again_draws_and_counts_as_before():
    """Preemption moves a sequence to another row and its draws and penalties go on where they were."""
    given = {"temperature": 1.0, "seed": 3, "frequency_penalty": 1.5}
    steady, moved = Running(given), Running(given)
    for step in range(8):
        if step == 4:
            moved.sequences[0].row = 3
            moved.admit(moved.sequences[0], **given)
        assert steady.take(logits_of(1, step)) == moved.take(logits_of(1, step))


def test_the_repetition_penalty_is_that_of_transformers():
    """Prompt and output alike."""
    running = Running({"repetition_penalty": 1.8}, prompt=(4, 5, 6, 6))
    for step in range(12):
        logits = logits_of(1, step).abs() if step % 2 else logits_of(1, step)
        sequence = running.sequences[0]
        seen = torch.tensor([[*sequence.prompt_ids, *sequence.output_ids]])
        wanted = RepetitionPenaltyLogitsProcessor(1.8)(seen, logits.clone()).argmax(-1).tolist()
        assert running.take(logits) == wanted


def test_presence_and_frequency_penalties_look_at_the_output_only():
    """OpenAI's formula: a token's logit falls by frequency x how often it came, and by presence if it came at all."""
    running = Running({"presence_penalty": 0.7, "frequency_penalty": 0.4}, {})
    logits = logits_of(1).repeat(2, 1)
    counts: Counter[int] = Counter()
    for _ in range(30):
        penalty = torch.zeros(VOCABULARY)
        for token, count in counts.items():
            penalty[token] = 0.4 * count + 0.7
        wanted = int((logits[0] - penalty).argmax())
        got = running.take(logits)
        assert got == [wanted, int(logits[1].argmax())]
        counts[wanted] += 1
    assert len(counts) > 3


def test_logit_bias_moves_single_tokens_of_single_rows():
    """A bias of 100 wins, one of -100 loses, and the neighbour sees neither."""
    logits = logits_of(3)
    best = logits.argmax(-1).tolist()
    biased = Running({"logit_bias": ((5, 100.0), (6, 1.0))}, {"logit_bias": ((best[1], -100.0),)}, {}).sample(logits).token_ids
    assert biased[0] == 5
    assert biased[1] != best[1]
    assert biased[2] == best[2]


def test_ends_cannot_be_drawn_before_min_tokens():
    """Ending tokens have no chance until enough are out, whatever their logits, and every chance after."""
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 9] = 50.0
    running = Running({"min_tokens": 2, "ends": (9, 11)}, {"min_tokens": 2, "ends": (9, 11), "temperature": 1.0})
    first, second, third = (running.take(logits) for _ in range(3))
    assert 9 not in first + second
    assert third == [9, 9]


def test_logprobs_are_the_models_own():
    """Before temperature, bias and penalties: the chosen token's, and as many of the best as were asked for."""
    logits = logits_of(4)
    raw = logits.log_softmax(-1)
    asked = [{"logprobs": 3}, {"logprobs": 0, "temperature": 2.0}, {}, {"logprobs": 1, "logit_bias": ((7, 100.0),), "frequency_penalty": 1.0}]
    draws = Running(*asked).sample(logits)
    assert set(draws.logprobs) == {0, 1, 3}
    for place, report in draws.logprobs.items():
        assert report.chosen == pytest.approx(raw[place, draws.token_ids[place]].item())
        best = raw[place].topk(asked[place]["logprobs"])
        assert [token for token, _ in report.top] == best.indices.tolist()
        assert [value for _, value in report.top] == pytest.approx(best.values.tolist())
    assert draws.token_ids[3] == 7


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("given", [{}, {"temperature": 1.0, "top_p": 0.9, "logprobs": 2}], ids=["greedy", "drawn"])
def test_a_row_without_usable_numbers_is_named_and_harms_no_other(broken, given):
    """NaN anywhere in a row, an infinity on top or nothing left to choose: that row has no token, its neighbours have theirs."""
    logits = logits_of(3)
    wanted = Running(given, given, given).sample(logits).token_ids
    logits[1] = logits[1].masked_fill(torch.arange(VOCABULARY) == 17, broken) if broken != -torch.inf else broken
    assert Running(given, given, given).sample(logits).token_ids == [wanted[0], NOT_A_NUMBER, wanted[2]]


def test_bfloat16_logits_are_sampled_in_float32():
    """Half precision ends with the model's output."""
    logits = logits_of(2).bfloat16()
    given = {"temperature": 0.8, "top_p": 0.9}
    assert Running(given, {}).sample(logits).token_ids == Running(given, {}).sample(logits.float()).token_ids
