"""Presence, frequency and repetition penalties, from counts that are kept as tokens come."""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor

from pipeline.scheduling.sequence import Sequence
from schemas.request import SamplingParams


class Penalties:
    """Counts the output tokens of those running sequences that are penalised, a row each.

    Presence and frequency penalties look at the output, as OpenAI's and vLLM's do; the repetition penalty at prompt and
    output, as transformers' does (Keskar et al. 2019). The counts take memory from the first penalised sequence on.
    """

    def __init__(self, *, rows: int, vocabulary: int, device: torch.device):
        self._shape = (rows, vocabulary)
        self._device = device
        self._factors = np.tile(np.array([0.0, 0.0, 1.0], dtype=np.float32), (rows, 1))  # presence, frequency, repetition
        self._is_penalised = np.zeros(rows, dtype=np.bool_)
        self._output: Tensor | None = None
        self._in_prompt: Tensor | None = None

    def admit(self, sequence: Sequence, sampling: SamplingParams) -> bool:
        """Takes in a sequence that got its row; tells whether it is penalised."""
        factors = sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty
        penalised = factors != (0.0, 0.0, 1.0)
        self._factors[sequence.row] = factors
        self._is_penalised[sequence.row] = penalised
        if penalised:
            output, in_prompt = self._counts()
            output[sequence.row] = 0
            in_prompt[sequence.row] = False
            in_prompt[sequence.row, torch.tensor(sequence.prompt_ids, device=self._device)] = True
            self.record([sequence.row] * len(sequence.output_ids), sequence.output_ids)
        return penalised

    def apply(self, scores: Tensor, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Lowers, in place, the scores of tokens that were there before: [sequences, vocabulary]."""
        places = np.flatnonzero(self._is_penalised[rows])
        if not places.size:
            return
        output, in_prompt = self._counts()
        where, theirs = torch.from_numpy(places).to(self._device), torch.from_numpy(rows[places]).to(self._device)
        presence, frequency, repetition = torch.from_numpy(self._factors[rows[places]]).to(self._device).T[..., None]
        counts, mine = output[theirs], scores[where]
        repeated = in_prompt[theirs] | (counts > 0)
        mine = torch.where(repeated, torch.where(mine > 0, mine / repetition, mine * repetition), mine)
        scores[where] = mine - frequency * counts - presence * (counts > 0)

    def record(self, rows: Seq[int], token_ids: Seq[int]) -> None:
        """Counts output tokens of penalised rows."""
        counted = [(row, token) for row, token in zip(rows, token_ids, strict=True) if self._is_penalised[row]]
        if counted:
            output, _ = self._counts()
            where = torch.tensor(counted, device=self._device).unbind(1)
            output.index_put_(where, output.new_ones(len(counted)), accumulate=True)

    def _counts(self) -> tuple[Tensor, Tensor]:
        if self._output is None or self._in_prompt is None:
            self._output = torch.zeros(self._shape, dtype=torch.int32, device=self._device)
            self._in_prompt = torch.zeros(self._shape, dtype=torch.bool, device=self._device)
        return self._output, self._in_prompt
