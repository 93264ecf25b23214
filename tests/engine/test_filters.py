"""Top-k, top-p and min-p."""

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pipeline.engine.filters import HEAD_TOKENS, keep_likely


def filtered(logits: torch.Tensor, *filters: tuple[int, float, float]) -> torch.Tensor:
    """Which tokens are left, one row of filters per row of logits."""
    rows = np.array([(top_k or logits.shape[-1], top_p, min_p) for top_k, top_p, min_p in filters])
    return keep_likely(logits.softmax(-1), rows) > 0


def by_transformers(logits: torch.Tensor, top_k: int, top_p: float, min_p: float) -> torch.Tensor:
    """What transformers' own processors leave, in the same order."""
    for wanted, warper in ((top_k, TopKLogitsWarper), (top_p < 1.0, lambda _: TopPLogitsWarper(top_p)), (min_p, lambda _: MinPLogitsWarper(min_p))):
        if wanted:
            logits = warper(top_k)(None, logits)
    return logits > -torch.inf


FILTERS = [
    (0, 1.0, 0.0),
    (1, 1.0, 0.0),
    (5, 1.0, 0.0),
    (0, 0.5, 0.0),
    (0, 0.95, 0.0),
    (0, 1.0, 0.1),
    (40, 0.8, 0.0),
    (300, 0.99, 0.02),
    (0, 1e-6, 0.0),
]


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
def test_filters_leave_what_those_of_transformers_leave(spread):
    """For flat and for peaked distributions, beyond the sorted head and within it."""
    logits = torch.randn(len(FILTERS), 3 * HEAD_TOKENS, generator=torch.Generator().manual_seed(0)) * spread
    left = filtered(logits, *FILTERS)
    for row, filters in enumerate(FILTERS):
        # min-p compares with the best token; dividing by what top-k and top-p left cancels out there.
        assert torch.equal(left[row], by_transformers(logits[row : row + 1], *filters)[0]), filters


def test_a_row_is_filtered_the_same_alone_and_beside_others():
    """A neighbour that needs everything sorted changes nothing, to the last bit."""
    logits = torch.randn(len(FILTERS), 1_000, generator=torch.Generator().manual_seed(1))
    rows = np.array([(top_k or 1_000, top_p, min_p) for top_k, top_p, min_p in FILTERS])
    together = keep_likely(logits.softmax(-1), rows)
    for row in range(len(FILTERS)):
        assert torch.equal(keep_likely(logits[row : row + 1].softmax(-1), rows[row : row + 1])[0], together[row])


def test_equally_likely_tokens_share_their_fate():
    """What is as likely as the last token kept is kept."""
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert filtered(logits, (2, 1.0, 0.0)).tolist() == [[True, True, True, True, False]]


def test_a_row_without_numbers_does_not_stop_the_others():
    """NaN in one row leaves the rest as they are."""
    logits = torch.stack((torch.full((8,), torch.nan), torch.arange(8.0)))
    assert filtered(logits, (2, 0.9, 0.1), (2, 1.0, 0.0))[1].tolist() == [False] * 6 + [True] * 2
