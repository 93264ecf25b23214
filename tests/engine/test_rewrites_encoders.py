"""What is put in place of an encoder's modules: it computes the same, and what it cannot compute stays."""

import pytest
import torch
from torch import nn

from pipeline.engine.rewrites import encoders
from pipeline.engine.rewrites.encoders import Dense, rewrite_encoder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiles_here(monkeypatch):
    """On whatever processor the tests run, the project's product counts as faster for float32."""
    monkeypatch.setattr(encoders, "can_tile", lambda dtype, device: dtype is torch.float32 and device == CPU)


def rewritten(module):
    """A container's only child after rewriting, and how it is undone."""
    parent = nn.Sequential(module.eval())
    return parent, rewrite_encoder(parent, torch.float32, CPU)


def rows(count, width):
    """Random rows."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


class Activated(nn.Module):
    """A linear layer and what comes behind it."""

    def __init__(self, activation):
        super().__init__()
        self.dense, self.activation = nn.Linear(33, 50), activation

    def forward(self, hidden):
        return self.activation(self.dense(hidden))


class Output(nn.Module):
    """A linear layer, the residual, and a norm of both."""

    def __init__(self, *, scale=1.0):
        super().__init__()
        self.dense, self.norm, self.dropout, self.scale = nn.Linear(40, 33), nn.LayerNorm(33), nn.Dropout(0.5), scale
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, hidden, residual):
        return self.norm(self.dropout(self.dense(hidden)) + residual * self.scale)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 50])
@pytest.mark.parametrize(("width", "columns"), [(33, 50), (8, 16), (64, 3)])
def test_a_linear_layer_computes_the_same_for_any_number_of_rows_and_columns(count, width, columns):
    """With a bias and without; sizes that fill the tiles and sizes that do not."""
    for bias in (True, False):
        linear = nn.Linear(width, columns, bias=bias)
        parent, done = rewritten(linear)
        assert done.counts == {"linear": 1}
        torch.testing.assert_close(parent[0](rows(count, width)), linear(rows(count, width)), atol=1e-5, rtol=1e-5)


def test_a_row_is_the_same_bit_for_bit_in_every_batch():
    """Whatever lies beside it, and wherever it lies."""
    parent, _ = rewritten(Activated(nn.GELU()))
    many = rows(50, 33)
    together = parent[0](many)
    for number in range(50):
        assert torch.equal(parent[0](many[number : number + 1])[0], together[number])


def test_nan_stays_in_its_row():
    """One text that overflows spoils no other."""
    parent, _ = rewritten(Activated(nn.GELU()))
    many = rows(13, 33)
    many[4, 7] = torch.nan
    assert parent[0](many).isnan().any(1).tolist() == [number == 4 for number in range(13)]


def test_gelu_happens_inside_the_product():
    """From far below zero to far above it."""
    module = Activated(nn.GELU())
    parent, done = rewritten(module)
    assert done.counts == {"linear and GELU": 1}
    for size in (0.01, 1, 30):
        torch.testing.assert_close(parent[0](rows(9, 33) * size), module(rows(9, 33) * size), atol=1e-5, rtol=1e-5)


def test_residual_and_norm_happen_inside_the_product():
    """Dropout of a model in service does nothing."""
    module = Output()
    parent, done = rewritten(module)
    assert done.counts == {"linear, residual and norm": 1}
    torch.testing.assert_close(parent[0](rows(9, 40), rows(9, 33)), module(rows(9, 40), rows(9, 33)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("module", [Activated(nn.ReLU()), Activated(nn.GELU("tanh")), Output(scale=0.5)])
def test_what_only_looks_like_it_keeps_its_form(module):
    """Its linear layer alone is rewritten."""
    parent, done = rewritten(module)
    assert parent[0] is module
    assert done.counts == {"linear": 1}


def test_a_model_can_be_put_back_as_it_was():
    """Every original is where it was."""
    module = Activated(nn.ReLU())
    linear = module.dense
    _, done = rewritten(module)
    assert isinstance(module.dense, Dense)
    done.undo()
    assert module.dense is linear


def test_another_dtype_is_left_alone():
    """The product computes in float32."""
    parent = nn.Sequential(nn.Linear(8, 8, dtype=torch.float64))
    assert not rewrite_encoder(parent, torch.float64, CPU).counts
