"""Runs a packed batch through the model: ids in, logits of the sampled places out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.attention.hook import answering
from pipeline.engine.attention.paged import PagedAttention
from pipeline.engine.backbone import Backbone
from pipeline.engine.packing import PackedBatch
from pipeline.engine.rewrites.prepared import filled
from pipeline.engine.threads import use_threads


class Runner:
    """One model and its cache.

    Args:
        model: The network.
        attention: Its cache.
        backbone: What of it lies below its head; None where that cannot be told, and then no prompts are scored.
        vocabulary: How many ids both its embedding and its head know.
        threads: Compute threads. Their number belongs to the process, so models that share one take turns in setting it.
        is_filled: Whether rows are filled up to numbers that products are prepared for.
    """

    def __init__(
        self, model: nn.Module, attention: PagedAttention, backbone: Backbone | None, *, vocabulary: int, threads: int, is_filled: bool = False
    ):
        self._model = model
        self._is_filled = is_filled
        self._backbone = backbone
        self.attention = attention
        self.vocabulary = vocabulary
        self.threads = threads

    @property
    def scores_prompts(self) -> bool:
        """Tells whether the head can run by itself."""
        return self._backbone is not None

    def run(self, batch: PackedBatch) -> Tensor:
        """Computes the batch and writes its keys and values; running it again gives the same.

        Returns:
            Logits of the places in `batch.last`, [places, vocabulary], in the model's dtype. The output head runs at these places only.
        """
        use_threads(self.threads)
        self.attention.step = batch.attention
        return self._logits(batch, batch.last)

    def run_in_slices(self, batch: PackedBatch) -> tuple[Tensor, list[Callable[[], Tensor]]]:
        """Computes the batch as `run` does, but its output head for one slice of places at a time.

        Returns:
            What `run` gives, and for each of `batch.further` what makes its logits, [places, vocabulary]: nothing is held of them before.
        """
        if not batch.further:
            return self.run(batch), []
        assert self._backbone is not None, "prompts are not scored without it"  # noqa: S101 -- our bug, not outside input
        with self._backbone.noting() as noted:
            logits = self.run(batch)
        return logits, [partial(self._logits_again, noted[0], self._backbone, batch, places) for places in batch.further]

    def close(self) -> None:
        """Lets go of weights and cache."""
        del self._model, self._backbone, self.attention
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _logits(self, batch: PackedBatch, places: Tensor) -> Tensor:
        ids, positions = self._full(batch.input_ids), self._full(batch.position_ids)
        kept = places if batch.scored else self._full(places)  # slices have a bound, and one size
        with torch.inference_mode(), answering(self.attention):
            output = self._model(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=kept)
        logits: Tensor = output.logits
        return logits[0, : places.numel(), : self.vocabulary]

    def _full(self, numbers: Tensor) -> Tensor:
        """With zeros behind them where there is to be more: a token, its position, or a place."""
        count = numbers.shape[-1]
        return F.pad(numbers, (0, filled(count) - count)) if self._is_filled else numbers

    def _logits_again(self, computed: Any, backbone: Backbone, batch: PackedBatch, places: Tensor) -> Tensor:
        with backbone.giving(computed):
            return self._logits(batch, places)
