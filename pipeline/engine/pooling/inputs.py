"""Texts as tensors: one packed row, or a padded batch."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.engine.pooling.work import Text


@dataclass(frozen=True, slots=True)
class InputForm:
    """What a model wants to be told.

    Attributes:
        device: Where it runs.
        first_position: Position of a text's first token; RoBERTa and its kin count from behind the padding token's.
        padding_id: Fills up what is padded.
        has_types: Whether it takes the numbers of a pair's texts.
    """

    device: torch.device
    first_position: int
    padding_id: int
    has_types: bool

    @classmethod
    def of(cls, network: Any) -> "InputForm":
        """Reads a model's wishes off its code and config."""
        padding_id = getattr(network.config, "pad_token_id", None)
        return cls(
            device=network.device,
            first_position=_first_position(network),
            padding_id=0 if padding_id is None else padding_id,
            has_types="token_type_ids" in inspect.signature(network.forward).parameters,
        )

    def packed(self, texts: Sequence[Text]) -> dict[str, Tensor]:
        """One row of all texts, [1, T] each; every text counts its positions anew."""
        inputs = {
            "input_ids": self._row(chain.from_iterable(text.token_ids for text in texts)),
            "position_ids": self._row(chain.from_iterable(range(self.first_position, self.first_position + len(text)) for text in texts)),
        }
        if self.has_types:
            inputs["token_type_ids"] = self._row(chain.from_iterable(_types(text) for text in texts))
        return inputs

    def padded(self, texts: Sequence[Text]) -> dict[str, Tensor]:
        """A row per text, [texts, longest] each, padded on the right."""
        longest = max(map(len, texts))
        inputs = {
            "input_ids": self._rows([(*text.token_ids, *[self.padding_id] * (longest - len(text))) for text in texts]),
            "attention_mask": self._rows([(*[1] * len(text), *[0] * (longest - len(text))) for text in texts]),
        }
        if self.has_types:
            inputs["token_type_ids"] = self._rows([(*_types(text), *[0] * (longest - len(text))) for text in texts])
        return inputs

    def _row(self, numbers: Any) -> Tensor:
        return self._rows([tuple(numbers)])

    def _rows(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self.device)


def _types(text: Text) -> tuple[int, ...]:
    return text.type_ids or (0,) * len(text)


def first_position_of(table: nn.Embedding) -> int:
    """Where positions start in a table of them: behind the padding token's own, which is set only where there is one."""
    return 0 if table.padding_idx is None else table.padding_idx + 1


def position_table(network: nn.Module) -> nn.Embedding | None:
    """The table of learned positions, where there is one."""
    tables = (module for name, module in network.named_modules() if name.endswith("position_embeddings") and isinstance(module, nn.Embedding))
    return next(tables, None)


def _first_position(network: nn.Module) -> int:
    table = position_table(network)
    return 0 if table is None else first_position_of(table)
