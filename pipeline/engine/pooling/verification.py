"""Proof before service: a model in a packed row computes what it computes on each text alone.

It takes the time of a few short texts, and decides better than a list of architectures: what fails runs in padded buckets.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch

from pipeline.engine.load_error import LoadError
from pipeline.engine.pooling.attention import NAME
from pipeline.engine.pooling.inputs import InputForm
from pipeline.engine.pooling.readers import Logits, Reader
from pipeline.engine.pooling.runner import Runner
from pipeline.engine.pooling.work import Text
from pipeline.engine.rewrites.prepared import fills_for_many_rows
from pipeline.engine.rewrites.rewriting import rewrite_encoder
from pipeline.engine.threads import use_threads
from schemas.pooled_results import Rows

TEXT_TOKENS = (23, 9, 9, 3)
"""Two of equal length, which attend side by side, and others."""

BOUNDS = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""Largest distance of a text's row from what it is alone, relative to its size. A wrong mask or position makes one near 1."""


def choose_way(
    network: Any, form: InputForm, reader: Reader, *, threads: int, vocabulary: int, context_tokens: int, source: str
) -> tuple[Runner, str | None]:
    """Makes a runner of a model that is rewritten where that is faster, packs if that is right for it, and else says why not.

    Raises:
        LoadError: The model does not take texts at all.
    """
    use_threads(threads)  # kernels are compiled for one or for several
    padded = Runner(network, form, reader, threads=threads, is_packed=False)
    texts = sample_texts(vocabulary, form.padding_id, context_tokens)
    try:
        alone = [padded.run([text])[0] for text in texts]
    except Exception as error:
        raise LoadError(f"{source}: a {network.config.model_type} model does not take texts ({type(error).__name__}); pick a text encoder") from error
    rewrite_encoder(network, network.dtype, network.device)
    if not worst_distance(padded.run(texts), alone) <= BOUNDS[network.dtype]:
        raise LoadError(f"{source}: a {network.config.model_type} model computes something else from several texts than from each; it is not served")
    own_attention = network.config._attn_implementation  # noqa: SLF001 -- transformers has no other name for it
    try:
        if isinstance(reader, Logits):
            reader.attach(network, form.padded(texts[:1]))
        network.set_attn_implementation(NAME)
        is_filled = fills_for_many_rows(network.dtype, network.device)
        packed = Runner(network, form, reader, threads=threads, is_packed=True, is_filled=is_filled)
        worst = worst_distance(packed.run(texts), alone)
        reason = None if worst <= BOUNDS[network.dtype] else f"in a packed row it is {worst:.1%} off"
    except Exception as error:  # noqa: BLE001 -- a model's code may fail in any way on a form that it was not made for
        reason = f"it does not take a packed row ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]})"
    if reason is None:
        return packed, None
    network.set_attn_implementation(own_attention)
    return padded, reason


def sample_texts(vocabulary: int, padding_id: int, context_tokens: int) -> list[Text]:
    """Random texts that fit the context, without padding tokens, which some models take for the end."""
    draw = random.Random(0)  # noqa: S311 -- any tokens will do
    ids = [token for token in range(vocabulary) if token != padding_id]
    return [Text(tuple(draw.choices(ids, k=min(tokens, context_tokens)))) for tokens in TEXT_TOKENS]


def worst_distance(rows: Rows, references: Sequence[Rows]) -> float:
    """Largest distance of a row from its reference, relative to the size of that; not a number where a row is not."""
    distances = [
        torch.dist(torch.from_numpy(row), torch.from_numpy(reference)) / torch.from_numpy(reference).norm().clamp_min(1e-6)
        for row, reference in zip(rows, references, strict=True)
    ]
    return float(torch.stack(distances).max())
