"""How likely the tokens of a prompt are, each given those before it: by the model's own distribution, before any parameter of sampling."""

from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from pipeline.engine.sampler import TokenLogprobs
from pipeline.scheduling.batch import Chunk

ROWS = 32
"""Places whose distribution is made at a time: with a large vocabulary each takes half a MiB."""
SLICE_BYTES = 32 * 1024 * 1024
"""Logits of places that are scored, in float32, of which two slices may be alive: that of a step's first pass, and the current one."""


def places_at_a_time(vocabulary: int) -> int:
    """Places whose logits make a slice."""
    return max(SLICE_BYTES // (4 * vocabulary), 1)


def workspace_bytes(vocabulary: int, token_budget: int) -> int:
    """What scoring takes in a step beyond what sampling does."""
    return (2 * min(places_at_a_time(vocabulary), token_budget) + min(ROWS, token_budget)) * vocabulary * 4


def score(logits: Tensor, chunks: Seq[Chunk], alternatives: Seq[int]) -> list[list[TokenLogprobs]]:
    """Scores runs of places in prompts; each place tells of the token after it.

    Args:
        logits: Of all places of all chunks, [places, vocabulary].
        chunks: The runs.
        alternatives: How many of the likeliest tokens are wanted beside the prompt's own, for each run.
    """
    with torch.inference_mode():
        parts = zip(chunks, logits.split([chunk.count for chunk in chunks]), alternatives, strict=True)
        return [_score(part, chunk.sequence.token_ids(chunk.start + 1, chunk.count), wanted) for chunk, part, wanted in parts]


def _score(logits: Tensor, token_ids: Seq[int], alternatives: int) -> list[TokenLogprobs]:
    following = torch.tensor(token_ids, device=logits.device)
    scores: list[TokenLogprobs] = []
    for part, own_ids in zip(logits.split(ROWS), following.split(ROWS), strict=True):
        logprobs = part.log_softmax(-1, dtype=torch.float32)
        own = logprobs.gather(1, own_ids[:, None])[:, 0].tolist()
        if not alternatives:
            scores += [TokenLogprobs(chosen, ()) for chosen in own]
            continue
        best, ids = logprobs.topk(min(alternatives, logprobs.shape[1]), -1)
        tops = zip(ids.tolist(), best.tolist(), strict=True)
        scores += [TokenLogprobs(chosen, tuple(zip(*top, strict=True))) for chosen, top in zip(own, tops, strict=True)]
    return scores
