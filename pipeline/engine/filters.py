"""Which tokens may be drawn: top-k, top-p and min-p as one threshold on probability per row.

A threshold is found in the sorted head of the distribution; only where the head is too short for some row's top-p is
everything sorted. Both give the same threshold, so a row never depends on its neighbours. Tokens as likely as the last
one kept are kept too.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

HEAD_TOKENS = 256


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
        threshold = _head_threshold(probabilities, np.minimum(top_k, vocabulary).astype(np.int64), top_p)
    if min_p.any():
        floor = torch.from_numpy(min_p).to(probabilities) * probabilities.amax(-1)
        threshold = torch.maximum(threshold, floor)
    elif not threshold.any():
        return probabilities
    return torch.where(probabilities >= threshold[:, None], probabilities, 0.0)


def _head_threshold(probabilities: Tensor, top_k: npt.NDArray[np.int64], top_p: npt.NDArray[np.float64]) -> Tensor:
    vocabulary = probabilities.shape[-1]
    limited = top_k[top_k < vocabulary]
    head_tokens = max(int(limited.max(initial=1)), HEAD_TOKENS if (top_p < 1.0).any() else 1)
    limits = torch.from_numpy(top_k).to(probabilities.device)[:, None]
    shares = torch.from_numpy(top_p).to(probabilities)[:, None]
    while True:
        head_tokens = min(head_tokens, vocabulary)
        head = probabilities.topk(head_tokens, -1).values
        head = head.masked_fill(torch.arange(head_tokens, device=head.device) >= limits, 0.0)
        mass = torch.where(limits < vocabulary, head.sum(-1, keepdim=True), 1.0)
        before = head.cumsum(-1) - head
        likely = ((before < shares * mass) | (shares >= 1.0)) & (head > 0.0)
        kept = likely.sum(-1, keepdim=True).clamp_(min=1)  # a row of NaN has none, and must not stop the others
        short = (kept == head_tokens) & (shares < 1.0) & (limits > head_tokens)
        if head_tokens == vocabulary or not short.any():
            break
        head_tokens = vocabulary
    threshold = head.gather(-1, kept - 1)[:, 0]
    unlimited = (limits >= vocabulary) & (shares >= 1.0)
    return threshold.masked_fill(unlimited[:, 0], 0.0)
