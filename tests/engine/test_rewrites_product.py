"""Products by our own kernel against torch's."""

import pytest
import torch
from torch.nn.functional import linear

from pipeline.engine.kernels import KERNELS, Pair
from pipeline.engine.rewrites import panels, product
from pipeline.engine.rewrites.panels import LANES, Panels
from pipeline.engine.rewrites.weight import Weight

SHAPES = [(depth, width) for depth in (3, 192, 389, 768, 1000) for width in (16, 96)]


@pytest.fixture(scope="module", params=[False, True], ids=["wide", "narrow"])
def is_narrow(request):
    """Whether bfloat16 can hold the matrix."""
    return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["one thread", "several"])
def kernel(request, is_narrow):
    """Compiled."""
    return product.form(LANES, is_narrow=is_narrow, is_parallel=request.param).define().compiled()


def numbers(*shape, seed=0):
    """Random ones."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weights(*shape, is_narrow):
    """Random ones that bfloat16 can hold, or not."""
    matrix = numbers(*shape, seed=1)
    return matrix.bfloat16().float() if is_narrow else matrix


@pytest.mark.parametrize(("depth", "width"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 5, 6, 7, 37, 72, 151])
def test_it_multiplies(kernel, is_narrow, rows, depth, width):
    """Rows that fill tiles and chunks, or do not, and weights as deep as one piece or as several; with a bias and without."""
    inputs, matrix = numbers(rows, depth), weights(width, depth, is_narrow=is_narrow)
    for bias in (None, numbers(width, seed=2)):
        torch.testing.assert_close(Panels.lay(matrix, bias).multiply(kernel, inputs), linear(inputs, matrix, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [192, 1000])
@pytest.mark.parametrize("rows", [0, 1, 5, 37, 151])
def test_it_adds_to_what_is_there(kernel, is_narrow, rows, depth):
    """Row by row, with a bias and without; what was there stays."""
    inputs, matrix, onto = numbers(rows, depth), weights(96, depth, is_narrow=is_narrow), numbers(rows, 96, seed=3)
    before = onto.clone()
    for bias in (None, numbers(96, seed=2)):
        got = Panels.lay(matrix, bias).multiply(kernel, inputs, onto)
        torch.testing.assert_close(got, linear(inputs, matrix, bias) + onto, rtol=1e-4, atol=1e-4)
    assert torch.equal(onto, before)


@pytest.mark.parametrize("count", [20, 100])
def test_a_row_is_the_same_bit_for_bit_whatever_lies_beside_it(kernel, is_narrow, count):
    """Wherever in a tile it comes, and however the work is split."""
    inputs, laid_out = numbers(count, 1000), Panels.lay(weights(32, 1000, is_narrow=is_narrow))
    together = laid_out.multiply(kernel, inputs)
    for row in range(count):
        assert torch.equal(laid_out.multiply(kernel, inputs[row : row + 1])[0], together[row])
    for first in range(0, count, 7):
        assert torch.equal(laid_out.multiply(kernel, inputs[first : first + 9]), together[first : first + 9])


def test_what_is_not_a_number_stays_in_its_row(kernel, is_narrow):
    """A request's numbers are nobody else's."""
    inputs = numbers(8, 64)
    inputs[7, 3] = torch.nan
    got = Panels.lay(weights(16, 64, is_narrow=is_narrow)).multiply(kernel, inputs)
    assert got[7].isnan().all()
    assert not got[:7].isnan().any()


@pytest.mark.parametrize("width", [16, 48, 16 * panels.AT_A_TIME + 32])
def test_a_matrix_is_narrow_where_nothing_is_lost_and_comes_back_as_it_was(width):
    """Bit for bit: signs of zeros, numbers too small to be normal ones, the largest and infinite ones. One number that does not fit makes it wide."""
    odd = torch.tensor([0.0, -0.0, 1e-40, -1e-40, 3e38, -torch.inf, torch.inf]).bfloat16().float()
    matrix = weights(width, 24, is_narrow=True)
    matrix[-1, : len(odd)] = odd
    narrow = Panels.lay(matrix)
    assert narrow.is_narrow
    assert narrow._numbers.nbytes * 2 == matrix.nbytes
    assert torch.equal(narrow.matrix().view(torch.int32), matrix.view(torch.int32))
    matrix[-1, -1] = 1 + 2**-9
    wide = Panels.lay(matrix)
    assert not wide.is_narrow
    assert wide._numbers.nbytes == matrix.nbytes
    assert torch.equal(wide.matrix().view(torch.int32), matrix.view(torch.int32))


def test_a_kernel_that_computes_something_else_is_found_out(is_narrow):
    """Before it serves."""
    assert not Panels.lay(weights(16, 8, is_narrow=is_narrow)).is_right(lambda *arguments: arguments[-2].fill(0.0))


@pytest.mark.parametrize(
    ("capability", "width", "is_laid_out"), [("AVX2", 48, True), ("AVX2", 40, False), ("AVX512", 48, False), ("DEFAULT", 48, False)]
)
@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_weight_multiplies_however_it_is_kept(monkeypatch, capability, width, is_laid_out, is_compiled, is_narrow):
    """Laid out where the kernel is for it, also while that is not there yet; else as it is."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    matrix, bias, rows = weights(width, 24, is_narrow=is_narrow), numbers(width, seed=1), numbers(2, 5, 24, seed=2)
    asked = []
    find = Pair.find
    monkeypatch.setattr(Pair, "find", lambda *of, **how: asked.append(of) or (find(*of, **how) if is_compiled else None))
    weight = Weight(matrix, bias)
    torch.testing.assert_close(weight(rows), linear(rows, matrix, bias), rtol=1e-5, atol=1e-5)
    assert weight.is_laid_out == bool(asked) == is_laid_out
    assert torch.equal(weight.matrix(), matrix)


def test_a_weight_stays_as_it_is_where_no_kernel_will_come(monkeypatch):
    """As where none can be kept: it would be laid back for every product."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(KERNELS, "expects", lambda *_: False)
    assert not Weight(numbers(48, 24)).is_laid_out


def test_a_weight_is_laid_back_once_where_its_kernel_fails_to_come(monkeypatch, is_narrow):
    """Not for every product."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    matrix, rows, is_compiling = weights(48, 24, is_narrow=is_narrow), numbers(5, 24), [True]
    monkeypatch.setattr(KERNELS, "find", lambda *_: None)
    monkeypatch.setattr(KERNELS, "expects", lambda *_: is_compiling[0])
    weight = Weight(matrix)
    torch.testing.assert_close(weight(rows), linear(rows, matrix))
    assert weight.is_laid_out
    is_compiling[0] = False
    torch.testing.assert_close(weight(rows), linear(rows, matrix))
    assert not weight.is_laid_out
    assert weight.matrix() is weight.matrix()
