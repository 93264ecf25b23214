"""Which tokens may be drawn: top-k, top-p and min-p as one threshold on probability per row.

A threshold is found in the sorted head of the distribution; rows for whose top-p it is too short get a longer one. Any
that is long enough gives the same threshold, so a row never depends on its neighbours. Tokens as likely as the last one
kept are kept too.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

HEAD_TOKENS = 256
"""Tokens that are sorted at first: sorting all of a large vocabulary takes longer than a step of a small model."""

HEAD_GROWTH = 8


def keep_likely(probabilities: Tensor, filters: npt.NDArray[np.float64]) -> Tensor:
    """Zeroes what the filters take out.

    Args:
        probabilities: [rows, vocabulary], each row summing to 1.
        filters: top_k (the vocabulary's size: off), top_p (1: off) and min_p (0: off) per row, [rows, 3].

    Returns:
        [rows, vocabulary], not normalised again.
    """
    vocabulary = probabilities.shape[-1]
    top_k, top_p, min_p = filters.T
    threshold = probabilities.new_zeros(probabilities.shape[0])
    if (top_k < vocabulary).any() or (top_p < 1.0).any():
        threshold = _thresholds(probabilities, np.minimum(top_k, vocabulary).astype(np.int64), top_p)
    if min_p.any():
        floor = torch.from_numpy(min_p).to(probabilities) * probabilities.amax(-1)
        threshold = torch.maximum(threshold, floor)
    elif not threshold.any():
        return probabilities
    return torch.where(probabilities >= threshold[:, None], probabilities, 0.0)


def _thresholds(probabilities: Tensor, top_k: npt.NDArray[np.int64], top_p: npt.NDArray[np.float64]) -> Tensor:
    """The least probability that top-k and top-p keep in each row, [rows]."""
    vocabulary = probabilities.shape[-1]
    thresholds = probabilities.new_zeros(probabilities.shape[0])
    pending = np.flatnonzero((top_k < vocabulary) | (top_p < 1.0))
    head_tokens = max(int(top_k[top_k < vocabulary].max(initial=1)), HEAD_TOKENS if (top_p < 1.0).any() else 1)
    while pending.size:
        rows = torch.from_numpy(pending).to(probabilities.device)
        limits = torch.from_numpy(top_k[pending]).to(probabilities.device)[:, None]
        shares = torch.from_numpy(top_p[pending]).to(probabilities)[:, None]
        thresholds[rows], is_short = _in_head(probabilities[rows], limits, shares, min(head_tokens, vocabulary))
        pending = pending[is_short.cpu().numpy()]
        head_tokens *= HEAD_GROWTH
    return thresholds


def _in_head(probabilities: Tensor, limits: Tensor, shares: Tensor, head_tokens: int) -> tuple[Tensor, Tensor]:
    """The thresholds by the `head_tokens` likeliest tokens, and which rows need to see more of them, both [rows]."""
    vocabulary = probabilities.shape[-1]
    head = probabilities.topk(head_tokens, -1).values
    places = torch.arange(head_tokens, device=head.device)
    cumulative = head.cumsum(-1)  # in order, so that a longer head has the same sums at the same places
    mass = torch.where(limits < vocabulary, cumulative.gather(-1, limits.clamp(max=head_tokens) - 1), 1.0)
    likely = ((cumulative - head < shares * mass) | (shares >= 1.0)) & (head > 0.0) & (places < limits)
    kept = likely.sum(-1, keepdim=True).clamp_(min=1)  # a row of NaN has none, and must not stop the others
    is_short = (kept == head_tokens) & (limits > head_tokens) & (shares < 1.0) & (head_tokens < vocabulary)
    return head.gather(-1, kept - 1)[:, 0], is_short[:, 0]
