"""How likely the tokens of a prompt are."""

import pytest
import torch

from pipeline.engine.scoring import ROWS, SLICE_BYTES, places_at_a_time, score, workspace_bytes
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Sequence

VOCABULARY = 50


def logits_of(places: int) -> torch.Tensor:
    """Random logits."""
    return torch.randn(places, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3


def test_each_place_tells_of_the_token_after_it():
    """By the model's own distribution, with as many alternatives as are asked for; every run has its own wish."""
    first, second = (Sequence(key=key, prompt_ids=(3, 1, 4, 1, 5, 9)) for key in range(2))
    logits = logits_of(5)
    scores = score(logits, [Chunk(first, 0, 3), Chunk(second, 3, 2)], [2, 0])
    expected = logits.log_softmax(-1)
    targets = [1, 4, 1, 5, 9]
    assert [score.chosen for part in scores for score in part] == pytest.approx([float(expected[i, token]) for i, token in enumerate(targets)])
    assert [[token for token, _ in score.top] for score in scores[0]] == expected[:3].topk(2).indices.tolist()
    assert [[value for _, value in score.top] for score in scores[0]] == [pytest.approx(row) for row in expected[:3].topk(2).values.tolist()]
    assert [score.top for score in scores[1]] == [(), ()]


@pytest.mark.parametrize("alternatives", [0, VOCABULARY + 9])
def test_long_runs_in_half_precision_are_scored_in_float32(alternatives):
    """A slice at a time, with every token as an alternative if that is asked for; the logits stay as they are."""
    places = 2 * ROWS + 3
    sequence = Sequence(key=0, prompt_ids=tuple(place % VOCABULARY for place in range(places + 1)))
    logits = logits_of(places).bfloat16()
    before = logits.clone()
    (scores,) = score(logits, [Chunk(sequence, 0, places)], [alternatives])
    expected = logits.float().log_softmax(-1)
    assert [score.chosen for score in scores] == pytest.approx([float(expected[i, (i + 1) % VOCABULARY]) for i in range(places)])
    assert {len(score.top) for score in scores} == {min(alternatives, VOCABULARY)}
    assert torch.equal(logits, before)


@pytest.mark.parametrize("vocabulary", [100, 32_000, 152_000, SLICE_BYTES])
def test_a_step_scores_within_what_is_planned_for_it(vocabulary):
    """However large the vocabulary: two slices and some distributions; at least one place."""
    places = places_at_a_time(vocabulary)
    assert places >= 1
    assert places == 1 or places * vocabulary * 4 <= SLICE_BYTES
    assert workspace_bytes(vocabulary, 1_024) == (2 * min(places, 1_024) + ROWS) * vocabulary * 4
    assert workspace_bytes(vocabulary, 16) <= 3 * 16 * vocabulary * 4
