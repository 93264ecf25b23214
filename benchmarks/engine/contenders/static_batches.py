"""`generate` on batches of at most 16, padded on the left, each as long as its longest output.

What is generated beyond a request's own end does not count.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from benchmarks.engine.contenders.base import Setup
from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Clock, Measured

BATCH = 16


def start(setup: Setup) -> "StaticBatches":
    """Loads and warms up."""
    torch.set_num_threads(setup.threads)
    model = AutoModelForCausalLM.from_pretrained(
        setup.folder, dtype=getattr(torch, setup.dtype), attn_implementation="sdpa", use_safetensors=True, local_files_only=True
    )
    contender = StaticBatches(model.eval())
    contender.run([Ask(prompt_ids=(11,) * 64, max_tokens=2)] * 4, 4)
    return contender


class _Times(StoppingCriteria):
    """Asked after each token: notes when, and ends nothing before its time."""

    def __init__(self) -> None:
        self.at_s: list[float] = []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002 -- as transformers calls it
        self.at_s.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


class StaticBatches:
    """One batch after the other, in order of arrival."""

    def __init__(self, model: Any):
        self._model = model

    def run(self, asks: Sequence[Ask], concurrent: int) -> Measured:
        """Serves the requests."""
        clock = Clock()
        for index in range(min(concurrent, len(asks))):
            clock.sends(index)
        size = min(concurrent, BATCH)
        for start_index in range(0, len(asks), size):
            batch = asks[start_index : start_index + size]
            for offset, at_s in enumerate(self._generate(batch)):
                for place, ask in enumerate(batch):
                    clock.gets(start_index + place, int(offset < ask.max_tokens), at_s)
            for index in range(len(clock.sent_s), min(start_index + size + concurrent, len(asks))):
                clock.sends(index)
        return clock.measured()

    def _generate(self, batch: Sequence[Ask]) -> list[float]:
        longest = max(len(ask.prompt_ids) for ask in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, ask in enumerate(batch):
            ids[row, longest - len(ask.prompt_ids) :] = torch.tensor(ask.prompt_ids)
            mask[row, longest - len(ask.prompt_ids) :] = 1
        times = _Times()
        settings = GenerationConfig(max_new_tokens=max(ask.max_tokens for ask in batch), do_sample=False, pad_token_id=0)
        settings.eos_token_id = None
        self._model.generation_config = settings
        self._model.generate(ids, attention_mask=mask, generation_config=settings, stopping_criteria=StoppingCriteriaList([times]))
        return times.at_s
