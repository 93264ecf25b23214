"""Products in bfloat16 by the processor's matrix unit against torch's in float32; how weights lie for it is the same on any processor."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear, silu

from pipeline.engine.kernels import Pair
from pipeline.engine.rewrites import gated, panels_amx, product_amx
from pipeline.engine.rewrites.activation import Tiled
from pipeline.engine.rewrites.panels_amx import TilePanels, gates_right, is_right
from pipeline.engine.rewrites.rewrite import agrees
from pipeline.engine.rewrites.weight import Weight
from pipeline.engine.vectors import has_tiles

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="this processor has no matrix unit for bfloat16")
SHAPES = [(depth, width) for depth in (32, 576) for width in (16, 32, 50, 96)]
SWISH = (1.0, 0.0)


@pytest.fixture(scope="module", params=[False, True], ids=["one thread", "several"])
def is_parallel(request):
    """How the kernels are compiled."""
    return request.param


@pytest.fixture(scope="module")
def kernel(is_parallel):
    """That multiplies."""
    return product_amx.form(is_gated=False, is_parallel=is_parallel).define().compiled()


@pytest.fixture(scope="module")
def gating(is_parallel):
    """That gates as well."""
    return product_amx.form(is_gated=True, is_parallel=is_parallel).define().compiled()


def numbers(*shape, seed=0):
    """Random ones."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def assert_close(got, expected):
    """Within what rounding to bfloat16 leaves."""
    torch.testing.assert_close(got.float(), expected, rtol=8e-3, atol=2e-2)


@pytest.mark.parametrize(("depth", "width"), [*SHAPES, (64, 9_000)])
def test_a_matrix_is_laid_out_and_comes_back(depth, width):
    """Whole panels or not, in one go or in several."""
    matrix = numbers(width, depth)
    assert torch.equal(TilePanels.lay(matrix).matrix(), matrix)


def test_two_matrices_lie_by_turns():
    """Sixteen columns of each; what torch makes of them is what it makes of each."""
    gate, up, rows, bias = numbers(48, 64), numbers(48, 64, seed=1), numbers(5, 64, seed=2), numbers(48, seed=3)
    panels = TilePanels.lay_gate(gate, up, (bias, bias), SWISH)
    assert torch.equal(panels.matrix().unflatten(0, (3, 2, 16))[:, 0].flatten(0, 1), gate)
    for got, matrix in zip(panels.by_torch(rows), (gate, up), strict=True):
        assert_close(got, linear(rows.float(), matrix.float(), bias.float()))


@needs_tiles
@pytest.mark.parametrize(("depth", "width"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 31, 32, 33, 100, 700])
def test_it_multiplies(kernel, rows, depth, width):
    """Rows that fill tiles and chunks, or do not, and panels likewise; with a bias and without."""
    inputs, matrix = numbers(rows, depth), numbers(width, depth, seed=1)
    for bias in (None, numbers(width, seed=2)):
        expected = linear(inputs.float(), matrix.float(), None if bias is None else bias.float())
        assert_close(TilePanels.lay(matrix, bias).multiply(kernel, inputs), expected)


@needs_tiles
@pytest.mark.parametrize("width", [32, 50])
@pytest.mark.parametrize("rows", [0, 1, 17, 40, 700])
def test_it_adds_to_what_is_there(kernel, rows, width):
    """Row by row, with a bias and without, rounded once; what was there stays."""
    inputs, matrix, onto = numbers(rows, 96), numbers(width, 96, seed=1), numbers(rows, width, seed=3)
    before = onto.clone()
    for bias in (None, numbers(width, seed=2)):
        expected = linear(inputs.float(), matrix.float(), None if bias is None else bias.float()) + onto.float()
        torch.testing.assert_close(TilePanels.lay(matrix, bias).multiply(kernel, inputs, onto), expected.bfloat16(), rtol=8e-3, atol=1e-3)
    assert torch.equal(onto, before)


@needs_tiles
@pytest.mark.parametrize("rows", [0, 1, 17, 40, 700])
def test_it_gates(gating, rows):
    """By swish, with biases and without."""
    inputs, gate, up, bias = numbers(rows, 96), numbers(80, 96, seed=1), numbers(80, 96, seed=2), numbers(80, seed=3)
    for biases in (None, (bias, bias)):
        own = None if biases is None else bias.float()
        expected = silu(linear(inputs.float(), gate.float(), own)) * linear(inputs.float(), up.float(), own)
        assert_close(TilePanels.lay_gate(gate, up, biases, SWISH).multiply(gating, inputs), expected)


@needs_tiles
@pytest.mark.parametrize("count", [20, 100])
def test_a_row_is_the_same_bit_for_bit_whatever_lies_beside_it(kernel, count):
    """Wherever in a tile it comes, and however the work is split."""
    inputs, laid_out = numbers(count, 256), TilePanels.lay(numbers(64, 256, seed=1))
    together = laid_out.multiply(kernel, inputs)
    for row in range(count):
        assert torch.equal(laid_out.multiply(kernel, inputs[row : row + 1])[0], together[row])
    for first in range(0, count, 7):
        assert torch.equal(laid_out.multiply(kernel, inputs[first : first + 19]), together[first : first + 19])


@needs_tiles
def test_what_is_not_a_number_stays_in_its_row(kernel):
    """A request's numbers are nobody else's."""
    inputs, laid_out = numbers(40, 64), TilePanels.lay(numbers(32, 64, seed=1))
    expected = laid_out.multiply(kernel, inputs)
    inputs[7, 3] = torch.nan
    got = laid_out.multiply(kernel, inputs)
    assert got[7].isnan().all()
    others = torch.arange(40) != 7
    assert torch.equal(got[others], expected[others])


@needs_tiles
def test_kernels_pass_their_proofs_and_wrong_ones_do_not(kernel, gating):
    """One that writes nothing, or gates by another slope."""
    assert is_right(kernel)
    assert gates_right(gating)
    assert not is_right(lambda *arguments: arguments[5].fill(0))
    assert not gates_right(lambda *arguments: gating(*arguments[:3], arguments[3] * 2, *arguments[4:]))


@needs_tiles
def test_weights_and_gates_of_a_model_lie_so():
    """In bfloat16, of whole steps; others, and other activations, are served as before."""
    assert isinstance(Weight(numbers(48, 64))._held, TilePanels)
    assert not Weight(numbers(48, 60)).is_laid_out
    for activation, is_tiled in ((nn.SiLU(), True), (nn.ReLU(), False)):
        mlp = mlp_of(activation)
        found = [candidate for candidate in gated.gated(mlp) if agrees(mlp, candidate, torch.bfloat16)]
        assert bool(found) == is_tiled
        assert all(isinstance(candidate._gated, Tiled) for candidate in found[:1])


@needs_tiles
@pytest.mark.parametrize("named", ["gate_proj", "up_proj"])
def test_one_bias_of_two_is_not_for_tiles(named):
    """The two lie side by side, or neither is there: such layers are served one by one."""
    mlp = mlp_of(nn.SiLU())
    setattr(mlp, named, nn.Linear(64, 96).bfloat16())
    assert not [candidate for candidate in gated.gated(mlp) if agrees(mlp, candidate, torch.bfloat16)]


@needs_tiles
def test_torch_serves_until_there_is_a_kernel(monkeypatch):
    """The numbers are the same but for rounding."""
    mlp = mlp_of(nn.SiLU())
    mine = next(candidate for candidate in gated.gated(mlp) if agrees(mlp, candidate, torch.bfloat16))
    rows = numbers(1, 9, 64, seed=4)
    with torch.inference_mode():
        expected = mine(rows)
        monkeypatch.setattr(Pair, "find", lambda *_, **__: None)
        assert_close(mine(rows), expected.float())


def test_elsewhere_nothing_lies_so(monkeypatch):
    """Without a matrix unit for it, bfloat16 is left to oneDNN."""
    monkeypatch.setattr(panels_amx, "has_tiles", lambda: False)
    assert TilePanels.of(numbers(48, 64), None) is None


class Mlp(nn.Module):
    """As transformers' Llama has it."""

    def __init__(self, activation):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(64, 96, bias=False), nn.Linear(64, 96, bias=False), nn.Linear(96, 64, bias=False)
        self.act_fn = activation

    def forward(self, rows):
        """Rows in, rows out."""
        return self.down_proj(self.act_fn(self.gate_proj(rows)) * self.up_proj(rows))


def mlp_of(activation):
    """In bfloat16, its weights drawn from a seed."""
    torch.manual_seed(0)
    return Mlp(activation).bfloat16().eval()
