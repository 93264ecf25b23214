"""Runs a packed batch through the model: ids in, logits of the sampled places out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.engine.attention.hook import answering
from pipeline.engine.attention.paged import PagedAttention
from pipeline.engine.backbone import Backbone
from pipeline.engine.packing import PackedBatch
from pipeline.engine.threads import use_threads


class Runner:
    """One model and its cache.

    Args:
        model: The network.
        attention: Its cache.
        backbone: What of it lies below its head; None where that cannot be told, and then no prompts are scored.
        vocabulary: How many ids both its embedding and its head know.
        threads: Compute threads. Their number belongs to the process, so models that share one take turns in setting it.
    """

    def __init__(self, model: nn.Module, attention: PagedAttention, backbone: Backbone | None, *, vocabulary: int, threads: int):
        self._model = model
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
        with torch.inference_mode(), answering(self.attention):
            output = self._model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, logits_to_keep=places)
        logits: Tensor = output.logits
        return logits[0, :, : self.vocabulary]

    def _logits_again(self, computed: Any, backbone: Backbone, batch: PackedBatch, places: Tensor) -> Tensor:
        with backbone.giving(computed):
            return self._logits(batch, places)
