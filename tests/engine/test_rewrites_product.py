"""The product of an encoder's layers against torch's."""

import pytest
import torch
from torch.nn.functional import linear

from pipeline.engine.rewrites import product, weight
from pipeline.engine.rewrites.weight import Weight, multiply, panels

SHAPES = [(depth, width) for depth in (3, 192, 389) for width in (16, 96)]


@pytest.fixture(scope="module", params=[False, True], ids=["one thread", "several"])
def kernel(request):
    """Compiled."""
    return product.form(weight.LANES, is_parallel=request.param).define().compiled()


def numbers(*shape, seed=0):
    """Random ones."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("depth", "width"), SHAPES)
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 72, 151])
def test_it_multiplies(kernel, rows, depth, width):
    """Rows that fill tiles and chunks, or do not, and weights as deep as one piece or as several; with a bias and without."""
    inputs, matrix = numbers(rows, depth), numbers(width, depth, seed=1)
    for bias in (None, numbers(width, seed=2)):
        torch.testing.assert_close(multiply(kernel, inputs, panels(matrix), bias), linear(inputs, matrix, bias), rtol=1e-4, atol=1e-4)


def test_a_row_is_the_same_bit_for_bit_whatever_lies_beside_it(kernel):
    """Wherever in a tile it comes."""
    inputs, laid_out = numbers(20, 389), panels(numbers(32, 389, seed=1))
    together = multiply(kernel, inputs, laid_out, None)
    for row in range(20):
        assert torch.equal(multiply(kernel, inputs[row : row + 1], laid_out, None)[0], together[row])


def test_what_is_not_a_number_stays_in_its_row(kernel):
    """Also where a tile reads the last row again."""
    inputs = numbers(8, 64)
    inputs[7, 3] = torch.nan
    got = multiply(kernel, inputs, panels(numbers(16, 64, seed=1)), None)
    assert got[7].isnan().all()
    assert not got[:7].isnan().any()


def test_a_kernel_that_computes_something_else_is_found_out():
    """Before it serves."""
    assert not weight.is_right(lambda *arguments: arguments[-2].fill(0.0))


@pytest.mark.parametrize(("capability", "width", "is_laid_out"), [("AVX2", 48, True), ("AVX2", 40, False), ("AVX512", 48, False)])
@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_weight_multiplies_however_it_is_kept(monkeypatch, capability, width, is_laid_out, is_compiled):
    """Laid out where the kernel is for it, also while that is not there yet; else as it is."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    asked = []
    find = weight.KERNELS.find
    monkeypatch.setattr(weight.KERNELS, "find", lambda *of: asked.append(of) or (find(*of) if is_compiled else None))
    matrix, bias, rows = numbers(width, 24), numbers(width, seed=1), numbers(2, 5, 24, seed=2)
    torch.testing.assert_close(Weight(matrix, bias).times(rows), linear(rows, matrix, bias), rtol=1e-5, atol=1e-5)
    assert bool(asked) == is_laid_out
