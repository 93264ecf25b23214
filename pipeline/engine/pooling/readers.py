"""What is read off a model: an embedding of each text, or the numbers of its classification head."""

from enum import StrEnum
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.engine.pooling.batching import Run
from pipeline.engine.pooling.dense import Dense

Row = tuple[Run, ...]


class Pooling(StrEnum):
    """Which tokens make the embedding of a text. The values are sentence-transformers' names."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "lasttoken"


class Reader(Protocol):
    """Runs a model and gives one row per text, [texts, width], in the order of the inputs."""

    def packed(self, network: Any, inputs: dict[str, Tensor], row: Row) -> Tensor:
        """Reads texts that share one row."""
        ...

    def padded(self, network: Any, inputs: dict[str, Tensor], row: Row) -> Tensor:
        """Reads texts that have a row each; `row` is how they would lie without padding."""
        ...


def pool(hidden: Tensor, row: Row, pooling: Pooling) -> Tensor:
    """Makes one vector of each text's tokens, [T, width] -> [texts, width], in float32."""
    vectors = []
    for run in row:
        texts = hidden[run.start : run.end].unflatten(0, (run.texts, run.tokens))
        match pooling:
            case Pooling.MEAN:
                vectors.append(texts.mean(1, dtype=torch.float32))
            case Pooling.CLS:
                vectors.append(texts[:, 0].float())
            case Pooling.LAST:
                vectors.append(texts[:, -1].float())
    return torch.cat(vectors)


class Vectors:
    """Embeddings of an encoder's last hidden states: pooled, through the layers that follow, at length 1 where that is asked for."""

    def __init__(self, pooling: Pooling, *, is_normalised: bool, dense: tuple[Dense, ...] = ()):
        self._pooling = pooling
        self._dense = dense
        self._is_normalised = is_normalised

    def packed(self, network: Any, inputs: dict[str, Tensor], row: Row) -> Tensor:
        """See `Reader`."""
        return self._vectors(network(**inputs).last_hidden_state[0], row)

    def padded(self, network: Any, inputs: dict[str, Tensor], row: Row) -> Tensor:
        """See `Reader`."""
        return self._vectors(network(**inputs).last_hidden_state[inputs["attention_mask"].bool()], row)

    def _vectors(self, hidden: Tensor, row: Row) -> Tensor:
        vectors = pool(hidden, row, self._pooling)
        for layer in self._dense:
            vectors = layer(vectors)
        return normalize(vectors) if self._is_normalised else vectors


class Logits:
    """The output of a classification head that looks at the first token of a text.

    In a packed row that head would look at the first token of the row. So the encoder's last module hands it, in place of the
    row, the first token of each text as a row of its own; from there on the model's own code goes its way.
    """

    def __init__(self) -> None:
        self._row: Row | None = None

    def attach(self, network: Any, inputs: dict[str, Tensor]) -> None:
        """Finds that last module by running the model once, and stands behind it.

        Raises:
            LookupError: No module of the encoder gives out its last hidden states as they are.
        """
        last_module(network, inputs).register_forward_hook(self._hand_over)

    def packed(self, network: Any, inputs: dict[str, Tensor], row: Row) -> Tensor:
        """See `Reader`."""
        self._row = row
        try:
            logits: Tensor = network(**inputs).logits
        finally:
            self._row = None
        return logits.float()

    def padded(self, network: Any, inputs: dict[str, Tensor], row: Row) -> Tensor:  # noqa: ARG002 -- the head knows its way in a padded batch
        """See `Reader`."""
        logits: Tensor = network(**inputs).logits
        return logits.float()

    def _hand_over(self, _module: nn.Module, _inputs: Any, hidden: Tensor) -> Tensor | None:
        if self._row is None:
            return None
        return pool(hidden[0], self._row, Pooling.CLS).to(hidden.dtype).unsqueeze(1)


def last_module(network: Any, inputs: dict[str, Tensor]) -> nn.Module:
    """The module whose output is the encoder's last hidden states.

    Raises:
        LookupError: There is none.
    """
    encoder = network.base_model
    outputs: list[tuple[nn.Module, Any]] = []
    leaves = [module for module in encoder.modules() if not any(True for _ in module.children())]
    hooks = [leaf.register_forward_hook(lambda module, _, output: outputs.append((module, output))) for leaf in leaves]
    seen: list[Any] = []
    hooks.append(encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(output)))
    try:
        with torch.inference_mode():
            network(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    last = seen[-1][0]
    found = next((module for module, output in reversed(outputs) if output is last), None)
    if found is None:
        raise LookupError("no module of its encoder gives out the last hidden states")
    return found
