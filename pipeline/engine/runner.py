"""Runs a packed batch through the model: ids in, logits of the sampled places out."""

import torch
from torch import Tensor, nn

from pipeline.engine.attention.hook import answering
from pipeline.engine.attention.paged import PagedAttention
from pipeline.engine.packing import PackedBatch
from pipeline.engine.threads import use_threads


class Runner:
    """One model and its cache.

    Args:
        model: The network.
        attention: Its cache.
        vocabulary: How many ids both its embedding and its head know.
        threads: Compute threads. Their number belongs to the process, so models that share one take turns in setting it.
    """

    def __init__(self, model: nn.Module, attention: PagedAttention, *, vocabulary: int, threads: int):
        self._model = model
        self.attention = attention
        self.vocabulary = vocabulary
        self.threads = threads

    def run(self, batch: PackedBatch) -> Tensor:
        """Computes the batch and writes its keys and values; running it again gives the same.

        Returns:
            Logits, [samples, vocabulary], in the model's dtype. The output head runs at these places only.
        """
        use_threads(self.threads)
        self.attention.step = batch.attention
        with torch.inference_mode(), answering(self.attention):
            output = self._model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, logits_to_keep=batch.last)
        logits: Tensor = output.logits
        return logits[0, :, : self.vocabulary]

    def close(self) -> None:
        """Lets go of weights and cache."""
        del self._model, self.attention
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
