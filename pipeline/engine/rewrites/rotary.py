"""Attention layers with rotary positions: queries, keys and values in one product, and turned in one pass."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.arrays import HELD, array, pair_for
from pipeline.engine.attention.hook import Form, UnsupportedAttention, answering, attend
from pipeline.engine.compilation import Kernel
from pipeline.engine.rewrites import rotation
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.rewrites.linear import faster
from pipeline.engine.rewrites.norm import RmsNorm, norms
from pipeline.engine.rewrites.rewrite import Rewrite, agrees
from pipeline.engine.rewrites.weight import Weight
from pipeline.engine.threads import is_worth_splitting, workers

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj")
NORMS = ("q_norm", "k_norm")
ARGUMENTS = {"hidden_states", "position_embeddings", "attention_mask"}
"""All that such a layer may insist on."""
PROOF_TOKENS = 5
NO_WEIGHTS = {dtype: np.empty(0, dtype=held) for dtype, held in HELD.items()}


class Heads(NamedTuple):
    """How the numbers of a row, [query heads, key heads, value heads] x width, are turned.

    Attributes:
        queries: Query heads.
        keys: Key heads, and as many value heads.
        width: Numbers of a head.
        query_norm: Weights of the norm of a query head, [width]; None where there is none.
        key_norm: Likewise of a key head.
        epsilon: Of the norms.
    """

    queries: int
    keys: int
    width: int
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    epsilon: float = 0.0

    def rotate(self, kernel: Kernel | None, rows: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turns rows, [1, T, numbers], and may overwrite them; cosines and sines are [1, T, as many of a head's first numbers as turn].

        Returns:
            Queries, keys and values, [1, heads, T, width] each.
        """
        if kernel is not None:
            return self.by_kernel(kernel, rows, cosines, sines)
        return self.by_torch(rows, cosines, sines)

    def by_kernel(self, kernel: Kernel, rows: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In one pass, in place."""
        own = (NO_WEIGHTS[rows.dtype] if weights is None else array(weights) for weights in (self.query_norm, self.key_norm))
        kernel(
            array(rows)[0],
            array(cosines.contiguous())[0],
            array(sines.contiguous())[0],
            *own,
            np.float32(self.epsilon),
            self.queries,
            self.keys,
            self.width,
            workers(),
        )
        return self._split(rows)

    def by_torch(self, rows: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """With torch's operations, whatever the dtype."""
        queries, keys, values = self._split(rows)
        return self._turn(queries, self.query_norm, cosines, sines), self._turn(keys, self.key_norm, cosines, sines), values

    def is_right(self, kernel: Kernel, *, dtype: torch.dtype) -> bool:
        """Tells whether a kernel computes from random numbers what torch's operations do, with norms and without."""
        draw = torch.Generator().manual_seed(0)
        weights = (torch.rand(2, self.width, generator=draw) + 0.5).to(dtype)
        for heads, turning in ((Heads(3, 2, self.width), self.width // 2 & ~1), (Heads(3, 2, self.width, weights[0], weights[1], 1e-5), self.width)):
            rows = torch.randn(1, PROOF_TOKENS, 7 * self.width, generator=draw).to(dtype)
            cosines, sines = torch.randn(2, 1, PROOF_TOKENS, turning, generator=draw).to(dtype)
            expected = heads.by_torch(rows.clone(), cosines, sines)
            if not all(map(are_close, heads.by_kernel(kernel, rows, cosines, sines), expected)):
                return False
        return True

    def _split(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = rows.unflatten(-1, (-1, self.width)).transpose(1, 2).split((self.queries, self.keys, self.keys), 1)
        return queries, keys, values

    def _turn(self, heads: Tensor, norm: Tensor | None, cosines: Tensor, sines: Tensor) -> Tensor:
        if norm is not None:
            heads = F.rms_norm(heads, (self.width,), norm, self.epsilon)
        turning, still = heads.split((cosines.shape[-1], self.width - cosines.shape[-1]), -1)
        first, second = turning.chunk(2, -1)
        turned = turning * cosines[:, None] + torch.cat((-second, first), -1) * sines[:, None]
        return torch.cat((turned, still), -1)


class RotaryAttention(Rewrite):
    """In place of a layer that has nothing but four linear layers, norms of query and key heads at most, and attention through the hook."""

    def __init__(self, module: nn.Module, heads: Heads, form: Form):
        super().__init__()
        *inward, outward = (getattr(module, name) for name in LINEARS)
        self.width = inward[0].in_features
        self.head_dim = heads.width
        self._heads, self._form = heads, form
        self.dtype = inward[0].weight.dtype
        self._kernels = pair_for(self.dtype, rotation.form, heads.is_right)
        self._inward, self._outward = faster(Weight.of(*inward)), faster(Weight.of(outward))

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], onto: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """Rows in, rows out, added to `onto`, by transformers' names; the mask is the hook's affair."""
        rows = self._inward(hidden_states)
        kernel = None
        if rows.dtype is position_embeddings[0].dtype is self.dtype:
            kernel = self._kernels.find(is_parallel=is_worth_splitting(rows.numel()))
        queries, keys, values = self._heads.rotate(kernel, rows, *position_embeddings)
        return self._outward(attend(self, queries, keys, values, self._form).flatten(2), onto), None

    @staticmethod
    def ask(module: nn.Module, rows: Tensor) -> Tensor:
        """Rows at random positions, a tenth as large: where scores are far apart, how queries were rounded decides between them."""
        answer: Tensor = observe(module, rows / 10, module.head_dim)[0][0]
        return answer


def rotary(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for what looks like transformers' attention with rotary positions."""
    linears = [getattr(module, name, None) for name in LINEARS]
    if not all(type(linear) is nn.Linear for linear in linears) or not _has_known_form(module):
        return
    try:
        rows = torch.zeros(1, 1, linears[0].in_features, dtype=linears[0].weight.dtype)  # type: ignore[union-attr]
        _, forms = observe(module, rows, module.head_dim)
    except (RuntimeError, UnsupportedAttention):  # its heads are turned in a way of its own
        return
    if len(forms) == 1 and (heads := _heads(module)) is not None:
        yield RotaryAttention(module, heads, forms[0])


def _has_known_form(module: nn.Module) -> bool:
    """Tells whether a layer takes what is asked here, has no weights but the linear layers' and the norms', and heads of one width."""
    asked = {name for name, parameter in inspect.signature(module.forward).parameters.items() if parameter.default is parameter.empty}
    others = [child for name, child in module.named_children() if name not in LINEARS + NORMS]
    has_more = any(True for child in others for _ in child.parameters()) or any(True for _ in module.parameters(recurse=False))
    inward, width = [getattr(module, name) for name in LINEARS[:3]], getattr(module, "head_dim", None)
    return (
        asked <= ARGUMENTS | {"kwargs"}
        and not has_more
        and isinstance(width, int)
        and width % 2 == 0
        and inward[1].out_features == inward[2].out_features
        and len({linear.bias is None for linear in inward}) == 1
    )


def _heads(module: nn.Module) -> Heads | None:
    """How a layer's heads are normed; None where that is not known here."""
    queries, keys = (getattr(module, name).out_features // module.head_dim for name in LINEARS[:2])
    own = [getattr(module, name, None) for name in NORMS]
    if own == [None, None]:
        return Heads(queries, keys, module.head_dim)
    known = [next((kind for kind in norms(norm) if agrees(norm, kind, kind.weight.dtype)), None) for norm in own if norm is not None]
    query_norm, key_norm = known if len(known) == len(NORMS) else (None, None)
    if not isinstance(query_norm, RmsNorm) or not isinstance(key_norm, RmsNorm):
        return None
    if query_norm.width != module.head_dim or key_norm.width != module.head_dim or query_norm.variance_epsilon != key_norm.variance_epsilon:
        return None
    return Heads(queries, keys, module.head_dim, query_norm.weight.detach(), key_norm.weight.detach(), query_norm.variance_epsilon)


class _Observer:
    """Attends by torch, and notes in which form."""

    def __init__(self) -> None:
        self.forms: list[Form] = []

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:  # noqa: ARG002 -- see `hook.Attention`
        self.forms.append(form)
        is_grouped = query.shape[1] != key.shape[1]
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=form.scaling, enable_gqa=is_grouped)
        return attended.transpose(1, 2)


def observe(module: nn.Module, rows: Tensor, head_width: int) -> tuple[Any, list[Form]]:
    """What a layer, or its attention, makes of rows, [1, T, width], at random positions, and the forms in which it attends."""
    shape = (2, 1, rows.shape[1], head_width)
    cosines, sines = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(rows.dtype)
    observer = _Observer()
    with answering(observer):
        answer = module(hidden_states=rows, position_embeddings=(cosines, sines), attention_mask=None)
    return answer, observer.forms
