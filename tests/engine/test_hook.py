"""What arrives from a model's layers, and what is turned away."""

import threading

import pytest
import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.engine.attention.hook import NAME, UnsupportedAttention, answering

HOOK = ALL_ATTENTION_FUNCTIONS[NAME]
ROWS = [torch.zeros(1, heads, 3, 16) for heads in (4, 2, 2)]


class Recorder:
    """Answers with what it was asked."""

    def attend(self, module, query, key, value, form):
        """Keeps the form."""
        self.asked = module, form
        return query.transpose(1, 2)


def test_a_layers_settings_arrive_in_one_form():
    """Scaling, window, softcap and sinks, with what models leave out filled in."""
    recorder, module, sinks = Recorder(), nn.Identity(), torch.zeros(4)
    with answering(recorder):
        output, weights = HOOK(module, *ROWS, None, dropout=0.0, scaling=0.5, sliding_window=7, softcap=30.0, s_aux=sinks, position_ids=object())
        assert recorder.asked == (module, (0.5, 7, 30.0, sinks))
        assert not recorder.asked[1].is_plain
        HOOK(module, *ROWS, None, sliding_window=None, softcap=None, s_aux=None, position_bias=None, is_causal=True)
    assert recorder.asked == (module, (0.25, 0, 0.0, None))
    assert recorder.asked[1].is_plain
    assert output.shape == (1, 3, 4, 16)
    assert weights is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"attention_mask": torch.zeros(1)}, "mask of its own"),
        ({"dropout": 0.1}, "drops out"),
        ({"is_causal": False}, "not causal"),
        ({"position_bias": torch.zeros(1)}, "'position_bias'"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(given, reason):
    """An argument that changes the arithmetic is never ignored."""
    with answering(Recorder()), pytest.raises(UnsupportedAttention, match=reason):
        HOOK(nn.Identity(), *ROWS, **given)


def test_who_answers_is_set_per_thread():
    """Models of two engines may run side by side; outside a forward pass nobody answers."""
    seen = []

    def other():
        with answering(second):
            HOOK(nn.Identity(), *ROWS, scaling=2.0)
        seen.append(second.asked[1].scaling)

    first, second = Recorder(), Recorder()
    with answering(first):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        HOOK(nn.Identity(), *ROWS, scaling=1.0)
    assert (first.asked[1].scaling, seen) == (1.0, [2.0])
    with pytest.raises(AttributeError):
        HOOK(nn.Identity(), *ROWS)
