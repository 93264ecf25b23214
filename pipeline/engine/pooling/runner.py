"""Runs texts through a model: packed into one row where the model has proved to take it, else in padded buckets of like length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.pooling.attention import laid_out
from pipeline.engine.pooling.batching import buckets, by_length, filling, runs
from pipeline.engine.pooling.inputs import InputForm
from pipeline.engine.pooling.readers import Reader
from pipeline.engine.pooling.work import Text
from pipeline.engine.rewrites.prepared import filled
from pipeline.engine.threads import use_threads
from schemas.pooled_results import Rows


class Runner:
    """One model.

    Args:
        network: The model, in evaluation mode.
        form: What it wants to be told.
        reader: What is read off it.
        threads: Compute threads. Their number belongs to the process, so models that share one take turns in setting it.
        is_packed: Whether texts share one row; attention must then be `attention.NAME`.
        is_filled: Whether that row, where they share one, is filled up to a number of tokens that products are prepared for.
    """

    def __init__(self, network: Any, form: InputForm, reader: Reader, *, threads: int, is_packed: bool, is_filled: bool = False):
        self._network = network
        self._form = form
        self._reader = reader
        self.threads = threads
        self.is_packed = is_packed
        self._is_filled = is_filled

    def run(self, texts: Sequence[Text]) -> Rows:
        """Computes a row per text, in their order; [texts, width]."""
        use_threads(self.threads)
        lengths = [len(text) for text in texts]
        batches = [by_length(lengths)] if self.is_packed else buckets(lengths)
        with torch.inference_mode():
            computed = np.concatenate([self._compute([texts[number] for number in numbers]).cpu().numpy() for numbers in batches])
        rows: Rows = np.empty_like(computed)
        rows[[number for numbers in batches for number in numbers]] = computed
        return rows

    def close(self) -> None:
        """Lets go of the weights."""
        del self._network
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _compute(self, texts: Sequence[Text]) -> Tensor:
        if self.is_packed and self._is_filled:
            lengths = [len(text) for text in texts]
            more = filling(lengths, filled(sum(lengths)))
            return self._computed([*texts, *(Text((self._form.padding_id,) * length) for length in more)])[: len(texts)]
        return self._computed(texts)

    def _computed(self, texts: Sequence[Text]) -> Tensor:
        row = runs([len(text) for text in texts])
        if not self.is_packed:
            return self._reader.padded(self._network, self._form.padded(texts), row)
        with laid_out(row):
            return self._reader.packed(self._network, self._form.packed(texts), row)
