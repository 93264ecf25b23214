"""Runs sequences one after the other, as `generate` does with one."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipeline.engine.execution import Computed
from pipeline.engine.serial.held import held_bytes
from pipeline.scheduling.batch import Chunk
from pipeline.scheduling.sequence import Sequence, State

CACHES = ("past_key_values", "cache_params", "state")
"""What transformers' models call that which they keep of a sequence, as a field of the output and as an argument."""


@dataclass(slots=True)
class _Kept:
    """What the model keeps of a sequence: of its first `tokens` tokens."""

    tokens: int = 0
    caches: dict[str, Any] = field(default_factory=dict)


class SerialExecution:
    """One model, and what it keeps of each running sequence; see `execution.Execution`.

    A model that keeps nothing (or keeps it within itself, where no second sequence could have its own) computes the whole sequence
    for every token.

    Args:
        model: The network, with attention of its own.
        vocabulary: How many ids both its embedding and its head know.
        threads: Compute threads.
    """

    def __init__(self, model: Any, *, vocabulary: int, threads: int):
        self._model = model
        self._kept: dict[Sequence, _Kept] = {}
        self.vocabulary = vocabulary
        self.threads = threads

    def admit(self, sequence: Sequence) -> None:
        """Starts afresh."""
        self.clear(sequence)

    def grow(self, sequence: Sequence) -> None:
        """Nothing to do: the model grows what it keeps."""

    def copy(self, blocks: Seq[tuple[int, int]]) -> None:
        """Nothing to do: what the model keeps lies in no block."""

    def wipe(self, blocks: Seq[int]) -> None:
        """Nothing to do, likewise."""

    def run(self, decodes: Seq[Sequence], prefills: Seq[Chunk]) -> Computed:
        """Computes each sequence up to its last token. Of a prompt that is cut into chunks nothing runs before the last one."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        for gone in [sequence for sequence in self._kept if sequence.state is not State.RUNNING]:
            self.clear(gone)
        samples = [*decodes, *(chunk.sequence for chunk in prefills if chunk.samples)]
        with torch.inference_mode():
            rows = [self._last_logits(sequence) for sequence in samples]
        empty = torch.empty(0, self.vocabulary, dtype=self._model.dtype, device=self._model.device)
        return Computed(samples, torch.stack(rows) if rows else empty)

    def clear(self, sequence: Sequence) -> None:
        """Forgets a sequence."""
        self._kept.pop(sequence, None)

    def kept_bytes(self, sequence: Sequence) -> int:
        """What the model keeps of a sequence at the moment."""
        return held_bytes(self._kept[sequence].caches) if sequence in self._kept else 0

    def close(self) -> None:
        """Lets go of the weights and of all that was kept."""
        self._kept.clear()
        del self._model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _last_logits(self, sequence: Sequence) -> Tensor:
        kept = self._kept.pop(sequence, None)  # a forward that fails leaves a cache in an unknown state: it is not put back
        if kept is None or not kept.caches or kept.tokens != sequence.tokens - 1:
            kept = _Kept()
        new = sequence.token_ids(kept.tokens, sequence.tokens - kept.tokens)
        output = self._model(input_ids=torch.tensor([list(new)], device=self._model.device), use_cache=True, **kept.caches)
        self._kept[sequence] = _Kept(sequence.tokens, {name: output[name] for name in CACHES if output.get(name) is not None})
        logits: Tensor = output.logits[0, -1, : self.vocabulary]
        return logits
