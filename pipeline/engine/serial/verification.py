"""Proof before service: step by step, beside another sequence, a model computes what it computes in one go."""

import random
from typing import Any

import torch

from pipeline.engine.load_error import LoadError
from pipeline.engine.serial.execution import SerialExecution
from pipeline.engine.serial.held import Held
from pipeline.engine.verification import BOUNDS, distance
from pipeline.scheduling.sequence import Sequence, State

PROMPT_TOKENS = (9, 5)
OUTPUT_TOKENS = 3


def verify(model: Any, execution: SerialExecution, *, context_tokens: int, source: str) -> Held:
    """Compares a loaded model with itself, and measures what it keeps of a sequence.

    Raises:
        LoadError: What it keeps of a sequence does not continue it.
    """
    kind = model.config.model_type
    draw = random.Random(0)  # noqa: S311 -- any tokens will do
    lengths = [min(tokens, context_tokens - OUTPUT_TOKENS) for tokens in PROMPT_TOKENS]
    if min(lengths) < 1:
        return Held(0, 0)
    texts = [draw.choices(range(execution.vocabulary), k=length + OUTPUT_TOKENS) for length in lengths]
    sequences = [Sequence(key=i, prompt_ids=text[:length], state=State.RUNNING) for i, (text, length) in enumerate(zip(texts, lengths, strict=True))]
    worst = 0.0
    try:
        for _ in range(OUTPUT_TOKENS + 1):
            for sequence, logits in zip(sequences, execution.run(sequences, []).logits, strict=True):
                worst = max(worst, distance(logits.float(), _in_one_go(model, texts[sequence.key][: sequence.tokens], execution.vocabulary)))
                sequence.output_ids += texts[sequence.key][sequence.tokens : sequence.tokens + 1]
    except Exception as error:
        raise LoadError(f"{source}: model type {kind!r} cannot be served: it fails on a short text ({type(error).__name__})") from error
    long, short = ((sequence.tokens, execution.kept_bytes(sequence)) for sequence in sequences)
    for sequence in sequences:
        execution.clear(sequence)
    if not worst <= BOUNDS[model.dtype]:
        raise LoadError(f"{source}: model type {kind!r} cannot be served: token by token its logits are {worst:.1%} off")
    return Held.between(short, long)


def _in_one_go(model: Any, token_ids: list[int], vocabulary: int) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([token_ids], device=model.device), use_cache=False).logits[0, -1, :vocabulary]
    return logits.float()
