"""Proof before service: a model over the paged cache computes what it computes on its own.

Two random sequences run through chunked prefill and mixed decode, as they will in service, and the logits are held against
the model's own eager attention. It takes the time of a few short prompts, and finds what no list of architectures would.
"""

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.engine.architecture import reference_logits, refusal
from pipeline.engine.packing import Packer
from pipeline.engine.runner import Runner
from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Sequence

PROMPT_TOKENS = (21, 9)
ROWS = len(PROMPT_TOKENS)
OUTPUT_TOKENS = 4
TOKEN_BUDGET = 8

BOUNDS = {torch.float64: 1e-6, torch.float32: 2e-3, torch.float16: 0.05, torch.bfloat16: 0.15}
"""Largest distance of the logits from the reference's, relative to the spread of these. A wrong mask or position makes one near 1."""


class Proof:
    """What a model computes on its own, noted before anything in it is rewritten.

    Args:
        model: The network, as it was loaded.
        vocabulary: How many ids both its embedding and its head know.
        context_tokens: The longest context that will be served.
        source: The model, for messages.

    Raises:
        LoadError: It fails on its own.
    """

    def __init__(self, model: Any, *, vocabulary: int, context_tokens: int, source: str):
        draw = random.Random(0)  # noqa: S311 -- any tokens will do
        lengths = [min(tokens, context_tokens - OUTPUT_TOKENS) for tokens in PROMPT_TOKENS]
        self._model, self._source = model, source
        self._lengths = lengths if min(lengths) > 0 else []
        self._texts = [draw.choices(range(vocabulary), k=length + OUTPUT_TOKENS) for length in self._lengths]
        with self._blamed_on_the_model():
            self._references = [reference_logits(model, text).float() for text in self._texts]

    def check(self, runner: Runner, packer: Packer, pool: BlockPool) -> None:
        """Compares what is served with what was noted.

        Raises:
            LoadError: It computes something else over the paged cache.
        """
        with self._blamed_on_the_model():
            worst = _worst_distance(runner, packer, pool, self._texts, self._lengths, self._references)
        if not worst <= BOUNDS[self._model.dtype]:
            raise refusal(self._source, self._model.config.model_type, f"over the paged cache its logits are {worst:.1%} off")

    @contextmanager
    def _blamed_on_the_model(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            raise refusal(self._source, self._model.config.model_type, f"a packed batch fails in it ({type(error).__name__})") from error


def _worst_distance(runner: Runner, packer: Packer, pool: BlockPool, texts: list[list[int]], lengths: list[int], references: list[Tensor]) -> float:
    """Runs all but the last token of each text, the first `lengths` as prompts, and compares every logit that is sampled from."""
    scheduler = Scheduler(pool, max_sequences=len(texts), token_budget=TOKEN_BUDGET)
    for key, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        scheduler.add(Sequence(key=key, prompt_ids=text[:length]))
    worst = 0.0
    while scheduler.has_work():
        for sequence, logits in _step(scheduler, packer, runner):
            place = sequence.tokens - 1
            worst = max(worst, distance(logits.float(), references[sequence.key][place]))
            if len(sequence.output_ids) == OUTPUT_TOKENS - 1:
                scheduler.finish(sequence)
            else:
                sequence.output_ids.append(texts[sequence.key][place + 1])
    return worst


def _step(scheduler: Scheduler, packer: Packer, runner: Runner) -> list[tuple[Sequence, Tensor]]:
    batch = scheduler.plan(0.0)
    for sequence in batch.admitted:
        packer.admit(sequence)
    for sequence in batch.grown:
        packer.grow(sequence)
    packed = packer.pack(batch.decodes, batch.prefills)
    logits = runner.run(packed)
    for sequence in batch.decodes:
        sequence.computed_tokens += 1
    for chunk in batch.prefills:
        chunk.sequence.computed_tokens += chunk.count
    return list(zip(packed.samples, logits, strict=True))


def distance(logits: Tensor, reference: Tensor) -> float:
    """How far logits are from those they should be, [vocabulary] both, as a share of the spread of these."""
    spread = (reference - reference.mean()).norm()
    return float((logits - reference).norm() / spread) if spread > 0 else float((logits - reference).norm())
