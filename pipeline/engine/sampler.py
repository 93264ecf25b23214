"""From logits to tokens, for all sequences of a step at once.

A row's numbers depend on nothing but that row. Order: penalties, logit bias, suppression of ends before `min_tokens`,
temperature, then top-k, top-p (of what top-k left) and min-p. Log-probabilities are the model's own, before all that.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.engine.filters import keep_likely
from pipeline.engine.penalties import Penalties
from pipeline.engine.randomness import uniforms
from pipeline.engine.work import Work
from pipeline.scheduling.sequence import Sequence

GREEDY_BELOW = 1e-5
"""A temperature under this is 0: the division would overflow before it made a difference."""

NOT_A_NUMBER = -1
"""In place of a token: the model's output for this sequence holds no usable number."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probability of a sampled token, and of the likeliest ones, best first."""

    chosen: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Draws:
    """What was sampled: a token per sequence (or `NOT_A_NUMBER`), and log-probabilities by place where asked for."""

    token_ids: list[int]
    logprobs: dict[int, TokenLogprobs]


class Sampler:
    """Keeps the sampling parameters of running sequences, a row each."""

    def __init__(self, *, rows: int, vocabulary: int, device: torch.device):
        self._device = device
        self._vocabulary = vocabulary
        self._is_plain = np.ones(rows, dtype=np.bool_)  # greedy, nothing added, nothing asked
        self._temperature = np.zeros(rows, dtype=np.float32)
        self._filters = np.zeros((rows, 3), dtype=np.float64)  # top_k, top_p, min_p
        self._streams = np.zeros((rows, 2), dtype=np.int64)  # seed, choice
        self._min_tokens = np.zeros(rows, dtype=np.int64)
        self._logprobs = np.full(rows, -1, dtype=np.int64)
        self._added: list[tuple[Numbers, npt.NDArray[np.float32]] | None] = [None] * rows  # logit bias
        self._ends: list[Numbers] = [np.empty(0, dtype=np.int64)] * rows
        self._penalties = Penalties(rows=rows, vocabulary=vocabulary, device=device)

    def admit(self, sequence: Sequence, work: Work) -> None:
        """Takes in the parameters of a sequence that got its row, and its output so far."""
        row, sampling = sequence.row, work.sampling
        assert sampling.seed is not None, "prepare draws a seed where the request names none"  # noqa: S101 -- our bug, not outside input
        temperature = 0.0 if sampling.temperature < GREEDY_BELOW else sampling.temperature
        self._temperature[row] = temperature
        self._filters[row] = sampling.top_k or self._vocabulary, sampling.top_p, sampling.min_p
        self._streams[row] = sampling.seed, sequence.index
        self._min_tokens[row] = work.min_tokens
        self._logprobs[row] = -1 if sampling.logprobs is None else sampling.logprobs
        self._added[row] = None
        if sampling.logit_bias:
            ids, values = zip(*sampling.logit_bias, strict=True)
            self._added[row] = np.array(ids, dtype=np.int64), np.array(values, dtype=np.float32)
        self._ends[row] = np.array(sorted(work.end_ids), dtype=np.int64)
        penalised = self._penalties.admit(sequence, sampling)
        self._is_plain[row] = not (temperature or work.min_tokens or sampling.logprobs is not None or sampling.logit_bias or penalised)

    def sample(self, logits: Tensor, sequences: Seq[Sequence]) -> Draws:
        """Draws the next token of each sequence; changes no state, so that a step may be tried again.

        Args:
            logits: [sequences, vocabulary], overwritten.
            sequences: Running ones, in the order of the logits.
        """
        with torch.inference_mode():
            return self._sample(logits.float(), sequences)

    def record(self, sequences: Seq[Sequence], token_ids: Seq[int]) -> None:
        """Counts tokens that became output, for penalties. The draw of a failed sequence counts as token 0: it has no future."""
        self._penalties.record([s.row for s in sequences], [max(token, 0) for token in token_ids])

    def _sample(self, scores: Tensor, sequences: Seq[Sequence]) -> Draws:
        rows = np.array([s.row for s in sequences], dtype=np.int64)
        if self._is_plain[rows].all():
            return Draws(self._checked(scores, _largest(scores)), {})
        asking = np.flatnonzero(self._logprobs[rows] >= 0)
        raw = scores[self._tensor(asking)].log_softmax(-1) if asking.size else None
        positions = np.array([len(s.output_ids) for s in sequences], dtype=np.int64)
        self._penalties.apply(scores, rows)
        self._add(scores, rows, positions)
        best = _largest(scores)
        chosen = self._checked(scores, best)
        drawing = np.flatnonzero(self._temperature[rows])
        if drawing.size:
            drawn = self._draw(scores[self._tensor(drawing)], rows[drawing], positions[drawing])
            for place, token in zip(drawing.tolist(), drawn.tolist(), strict=True):
                if chosen[place] != NOT_A_NUMBER:
                    chosen[place] = token
        return Draws(chosen, {} if raw is None else self._report(raw, asking, rows, chosen))

    def _add(self, scores: Tensor, rows: Numbers, positions: Numbers) -> None:
        """Adds logit biases, and minus infinity where an end would come too early."""
        places, ids, values = [], [], []
        for place, (row, early) in enumerate(zip(rows.tolist(), (positions < self._min_tokens[rows]).tolist(), strict=True)):
            if added := self._added[row]:
                places.append(np.full(added[0].size, place))
                ids.append(added[0])
                values.append(added[1])
            if early:
                ends = self._ends[row]
                places.append(np.full(ends.size, place))
                ids.append(ends)
                values.append(np.full(ends.size, -np.inf, dtype=np.float32))
        if places:
            where = self._tensor(np.concatenate(places)), self._tensor(np.concatenate(ids))
            scores.index_put_(where, torch.from_numpy(np.concatenate(values)).to(self._device), accumulate=True)

    def _draw(self, scores: Tensor, rows: Numbers, positions: Numbers) -> Tensor:
        """Inverts the cumulative distribution at one random number per row."""
        temperature = torch.from_numpy(self._temperature[rows]).to(self._device)
        probabilities = keep_likely((scores / temperature[:, None]).softmax(-1), self._filters[rows])
        seeds, choices = torch.from_numpy(self._streams[rows]).unbind(1)
        numbers = uniforms(seeds, choices, torch.from_numpy(positions)).float().to(self._device)
        cumulative = probabilities.cumsum(-1)
        total = cumulative[:, -1:]
        # Strictly below the total, so that the first place above the target is a token of some probability.
        below = torch.minimum(numbers[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, below, right=True)[:, 0]

    def _report(self, raw: Tensor, asking: Numbers, rows: Numbers, chosen: list[int]) -> dict[int, TokenLogprobs]:
        counts = self._logprobs[rows[asking]].tolist()
        tokens = torch.tensor([max(chosen[place], 0) for place in asking.tolist()], device=self._device)
        own = raw.gather(1, tokens[:, None])[:, 0].tolist()
        values, ids = (part.tolist() for part in raw.topk(min(max(counts), self._vocabulary), -1))
        return {
            place: TokenLogprobs(own[i], tuple(zip(ids[i][:count], values[i][:count], strict=True)))
            for i, (place, count) in enumerate(zip(asking.tolist(), counts, strict=True))
        }

    def _checked(self, scores: Tensor, best: Tensor) -> list[int]:
        """The best tokens; argmax finds a NaN where there is one, so that looking at the best is looking at all."""
        token_ids: list[int] = best.tolist()
        finite = scores.gather(1, best[:, None])[:, 0].isfinite()
        if not finite.all():
            token_ids = [token if usable else NOT_A_NUMBER for token, usable in zip(token_ids, finite.tolist(), strict=True)]
        return token_ids

    def _tensor(self, numbers: Numbers) -> Tensor:
        return torch.from_numpy(numbers).to(self._device)


def _largest(scores: Tensor) -> Tensor:
    """Where the largest number of each row lies, [sequences]; the first NaN counts as larger. On a processor numpy is several times as fast."""
    return torch.from_numpy(scores.numpy().argmax(-1)) if scores.device.type == "cpu" else scores.argmax(-1)
