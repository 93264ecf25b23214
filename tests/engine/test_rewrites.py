"""What is put in place of a model's modules, and what is left as it is."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from pipeline.engine.arrays import HELD, array
from pipeline.engine.kernels import KERNELS
from pipeline.engine.rewrites import linear, norm, rms_norm
from pipeline.engine.rewrites.gated import GatedMlp
from pipeline.engine.rewrites.linear import PackedLinear, TiledLinear, can_pack
from pipeline.engine.rewrites.norm import RmsNorm
from pipeline.engine.rewrites.rewriting import rewrite
from tests.engine.rewriting import CPU, ROWS, packs_here, rewritten

__all__ = ["packs_here"]


class Mlp(nn.Module):
    """A gated multilayer perceptron in the form that transformers' models have."""

    def __init__(self, activation, scale=1.0, hidden=24):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(16, hidden), nn.Linear(16, hidden, bias=False), nn.Linear(hidden, 16)
        self.act_fn = activation
        self.scale = scale

    def forward(self, rows):
        return self.down_proj(self.act_fn(self.gate_proj(rows)) * self.up_proj(rows)) * self.scale


class Norm(nn.Module):
    """A root-mean-square norm, written out."""

    def __init__(self, offset=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 16))
        self.eps, self.offset = 1e-6, offset

    def forward(self, rows):
        return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + self.eps) * (self.weight + self.offset)


class CentredNorm(Norm):
    """The same form, and something else is computed."""

    def forward(self, rows):
        return super().forward(rows - rows.mean(-1, keepdim=True))


class TwiceLinear(nn.Linear):
    """A linear layer that does more."""

    def forward(self, rows):
        return 2 * super().forward(rows)


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.Linear(16, 24), PackedLinear),
        (nn.Linear(16, 24, bias=False), PackedLinear),
        (Mlp(nn.SiLU()), GatedMlp),
        (Mlp(nn.GELU()), GatedMlp),
        (Mlp(nn.GELU(approximate="tanh")), GatedMlp),
        (Norm(), RmsNorm),
        (Norm(offset=1.0), RmsNorm),
    ],
    ids=["linear", "no bias", "silu", "gelu", "tanh gelu", "norm", "norm less one"],
)
def test_a_module_of_known_form_is_replaced_by_what_computes_the_same(module, kind):
    """Whatever class it is of; the new one agrees on rows that it was not chosen by."""
    with torch.inference_mode():
        expected = module(ROWS)
        substitute, counts = rewritten(module)
        assert type(substitute) is kind
        assert counts == {kind.__name__: 1}
        torch.testing.assert_close(substitute(ROWS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_narrow", [True, False])
def test_a_linear_layer_is_by_our_own_kernel_where_there_is_one(packs_here, is_narrow):
    """Whether bfloat16 can hold its numbers or not."""
    module = nn.Linear(16, 48)
    with torch.inference_mode():
        if is_narrow:
            module.weight.copy_(module.weight.bfloat16())
        expected = module(ROWS)
        substitute, counts = rewritten(module)
        assert type(substitute) is (TiledLinear if packs_here == "AVX2" else PackedLinear)
        assert counts == {type(substitute).__name__: 1}
        torch.testing.assert_close(substitute(ROWS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh")], ids=["silu", "gelu", "tanh gelu"])
def test_a_perceptron_whose_columns_fill_tiles_is_replaced_too(activation):
    """Its activation is then not oneDNN's."""
    module = Mlp(activation, hidden=32)
    with torch.inference_mode():
        expected = module(ROWS)
        substitute, counts = rewritten(module)
        assert counts == {"GatedMlp": 1}
        torch.testing.assert_close(substitute(ROWS), expected, rtol=1e-5, atol=1e-5)


def test_a_norm_whose_rows_do_not_lie_side_by_side_computes_the_same():
    """Torch's operations take those."""
    with torch.inference_mode():
        module = Norm(offset=1.0)
        substitute, _ = rewritten(module)
        rows = torch.randn(1, 16, 5, generator=torch.Generator().manual_seed(4)).mT
        torch.testing.assert_close(substitute(rows), module(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", HELD, ids=str)
def test_a_wrong_norm_kernel_does_not_pass(dtype):
    """The real one does; neither one that forgets the weight, nor one that writes nothing."""
    kernel = KERNELS.find(rms_norm.form(is_half=dtype is torch.bfloat16, is_parallel=False), lambda _: True)
    ones = array(torch.ones(norm.PROOF_WIDTH, dtype=dtype))
    assert norm.is_right(kernel, dtype=dtype)
    assert not norm.is_right(lambda rows, _, *rest: kernel(rows, ones, *rest), dtype=dtype)
    assert not norm.is_right(lambda *_: None, dtype=dtype)


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        (Mlp(nn.SiLU(), scale=1.001), {"PackedLinear": 3}),
        (Mlp(nn.Tanh()), {"PackedLinear": 3}),
        (CentredNorm(), {}),
        (TwiceLinear(16, 16), {}),
        (nn.LayerNorm(16), {}),
    ],
    ids=["scaled", "other activation", "centred norm", "subclass", "layer norm"],
)
def test_what_looks_alike_and_computes_something_else_stays(packs_here, module, counts):
    """A rewrite off by a thousandth is refused; the parts of what stays are looked at. Of three linear layers the columns of one fill tiles."""
    if counts and packs_here == "AVX2":
        counts = {"PackedLinear": 2, "TiledLinear": 1}
    module = deepcopy(module)
    with torch.inference_mode():
        expected = module(ROWS)
        substitute, found = rewritten(module)
        assert substitute is module
        assert found == counts
        torch.testing.assert_close(substitute(ROWS), expected, rtol=1e-5, atol=1e-5)


def test_a_module_that_somebody_changed_stays():
    """A patched forward and a hook would be lost."""
    patched, hooked = nn.Linear(16, 16), nn.Linear(16, 16)
    patched.forward = lambda rows: rows
    hooked.register_forward_hook(lambda _module, _rows, output: output + 1)
    assert rewritten(patched) == (patched, {})
    assert rewritten(hooked) == (hooked, {})


def test_a_rewrite_that_fails_here_is_refused(monkeypatch):
    """As where oneDNN lacks the dtype: the model keeps its own."""

    def fail(_self, _rows):
        raise RuntimeError("not on this processor")

    for kind in (PackedLinear, TiledLinear):
        monkeypatch.setattr(kind, "forward", fail)
    module = nn.Linear(16, 16)
    assert rewritten(module) == (module, {})


def test_other_dtypes_and_devices_are_left_alone(monkeypatch):
    """Packed weights are offered on an x86 processor, for float32 and for the bfloat16 that it multiplies itself."""
    monkeypatch.setattr(linear.platform, "machine", lambda: "x86_64")
    assert can_pack(torch.float32, CPU) is torch.backends.mkldnn.is_available()
    assert not can_pack(torch.float16, CPU)
    assert not can_pack(torch.float32, torch.device("cuda"))
    assert can_pack(torch.bfloat16, CPU) is bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    monkeypatch.setattr(linear.platform, "machine", lambda: "aarch64")
    assert not can_pack(torch.float32, CPU)
    module = nn.Sequential(nn.Linear(16, 16, dtype=torch.float16))
    assert not rewrite(module, torch.float16, CPU)
    assert type(module[0]) is nn.Linear
