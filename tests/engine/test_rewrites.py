"""What is put in place of a model's modules, and what is left as it is."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from pipeline.engine.attention.hook import answering
from pipeline.engine.kernels import KERNELS
from pipeline.engine.rewrites import linear, norm, rewriting, rms_norm
from pipeline.engine.rewrites.encoder import GeluLinear, NormedLinear
from pipeline.engine.rewrites.gated import GatedMlp
from pipeline.engine.rewrites.linear import PackedLinear, can_pack
from pipeline.engine.rewrites.norm import RmsNorm
from pipeline.engine.rewrites.rewriting import rewrite, rewrite_encoder
from tests.engine.tiny_models import tiny_model

CPU = torch.device("cpu")
ROWS = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def packs_here(monkeypatch):
    """On whatever processor the tests run, packed weights count as faster for float32."""
    monkeypatch.setattr(rewriting, "can_pack", lambda dtype, device: dtype is torch.float32 and device == CPU)


def rewritten(module):
    """A container's only child, rewritten, and the counts."""
    parent = nn.Sequential(module)
    counts = rewrite(parent, torch.float32, CPU)
    return parent[0], dict(counts)


class Mlp(nn.Module):
    """A gated multilayer perceptron in the form that transformers' models have."""

    def __init__(self, activation, scale=1.0):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(16, 24), nn.Linear(16, 24, bias=False), nn.Linear(24, 16)
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


def test_a_norm_whose_rows_do_not_lie_side_by_side_computes_the_same():
    """Torch's operations take those."""
    with torch.inference_mode():
        module = Norm(offset=1.0)
        substitute, _ = rewritten(module)
        rows = torch.randn(1, 16, 5, generator=torch.Generator().manual_seed(4)).mT
        torch.testing.assert_close(substitute(rows), module(rows), rtol=1e-5, atol=1e-5)


def test_a_wrong_norm_kernel_does_not_pass():
    """The real one does; neither one that forgets the weight, nor one that writes nothing."""
    kernel = KERNELS.find(rms_norm.form(is_parallel=False), lambda _: True)
    assert norm.is_right(kernel)
    assert not norm.is_right(lambda rows, weight, *rest: kernel(rows, weight * 0 + 1, *rest))
    assert not norm.is_right(lambda *_: None)


class Bent(nn.Module):
    """What widens rows in BERT."""

    def __init__(self, activation):
        super().__init__()
        self.dense, self.act = nn.Linear(16, 24), activation

    def forward(self, hidden_states):
        return self.act(self.dense(hidden_states))


class Normed(nn.Module):
    """What closes each half of a layer in BERT."""

    def __init__(self, share=1.0):
        super().__init__()
        self.dense, self.LayerNorm, self.share = nn.Linear(16, 24), nn.LayerNorm(24, eps=1e-3), share
        with torch.no_grad():
            self.LayerNorm.weight.uniform_(0.5, 1.5)
            self.LayerNorm.bias.normal_()

    def forward(self, hidden_states, input_tensor):
        return self.LayerNorm(self.dense(hidden_states) + self.share * input_tensor)


def rewritten_encoder(module):
    """An encoder's only layer, rewritten, and the counts."""
    parent = nn.Sequential(module.requires_grad_(requires_grad=False))
    counts = rewrite_encoder(parent, torch.float32, CPU)
    return parent[0], dict(counts)


@pytest.mark.parametrize(("module", "more", "kind"), [(Bent(nn.GELU()), 0, GeluLinear), (Normed(), 1, NormedLinear)], ids=["gelu", "norm"])
def test_a_layer_of_an_encoder_is_replaced_by_what_computes_the_same(module, more, kind):
    """On rows that it was not chosen by, of texts side by side or one below the other."""
    for shape in ((1, 5), (3, 2)):
        rows, residual = (torch.randn(*shape, width, generator=torch.Generator().manual_seed(width)) for width in (16, 24))
        asked = [rows, residual][: 1 + more]
        with torch.inference_mode():
            expected = module(*asked)
            substitute, counts = rewritten_encoder(module)
            assert type(substitute) is kind
            assert counts == {kind.__name__: 1}
            torch.testing.assert_close(substitute(*asked), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [Bent(nn.ReLU()), Bent(nn.GELU(approximate="tanh")), Normed(share=0.999), nn.Linear(16, 16)], ids=str)
def test_a_layer_that_looks_like_an_encoders_and_computes_something_else_stays(module):
    """Another activation, and a residual less a thousandth. Linear layers are not packed: encoders have many rows."""
    assert rewritten_encoder(module) == (module, {})


class Attending(nn.Module):
    """What reads rows three times in BERT."""

    def __init__(self, key_width=16):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 24), nn.Linear(key_width, 24), nn.Linear(key_width, 8)

    def forward(self, rows, others=None):
        return self.query(rows), self.key(rows if others is None else others), self.value(rows)


def test_queries_keys_and_values_share_a_product():
    """Of the same rows; asked with others, or again after a failure, each layer answers for what it was asked with."""
    module = Attending().requires_grad_(requires_grad=False)
    others = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        asked = [(ROWS,), (ROWS, others), (others, ROWS)]
        expected = [module(*rows) for rows in asked]
        substitute, counts = rewritten_encoder(module)
        assert counts == {"SharedLinear": 1}
        substitute.query(others)  # and then something fails
        for rows, answers in zip(asked, expected, strict=True):
            for got, answer in zip(substitute(*rows), answers, strict=True):
                torch.testing.assert_close(got, answer, rtol=1e-5, atol=1e-5)


def test_layers_that_read_rows_of_different_widths_share_nothing():
    """As where queries read a text and keys another model's."""
    module = Attending(key_width=12)
    assert rewritten_encoder(module) == (module, {})


def test_an_encoder_of_another_dtype_stays():
    """The passes know float32."""
    parent = nn.Sequential(Bent(nn.GELU()).to(torch.bfloat16))
    assert not rewrite_encoder(parent, torch.bfloat16, CPU)


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
def test_what_looks_alike_and_computes_something_else_stays(module, counts):
    """A rewrite off by a thousandth is refused; the parts of what stays are looked at."""
    with torch.inference_mode():
        expected = module(ROWS)
        substitute, found = rewritten(module)
        assert substitute is module
        assert found == counts
        torch.testing.assert_close(substitute(ROWS), expected, rtol=1e-5, atol=1e-5)


class Plainly:
    """Attends by torch, and notes in which form."""

    def __init__(self):
        self.forms = []

    def attend(self, module, query, key, value, form):
        self.forms.append(form)
        attended = scaled_dot_product_attention(query, key, value, is_causal=True, scale=form.scaling, enable_gqa=True)
        return attended.transpose(1, 2)


def attended(layer, rows, positions):
    """What a layer makes of rows, and the form in which it attends."""
    plainly = Plainly()
    with answering(plainly):
        return layer(hidden_states=rows, position_embeddings=positions, attention_mask=None)[0], plainly.forms


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("llama", {"attention_bias": True}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 3}),
        ("gemma3_text", {"query_pre_attn_scalar": 5}),
        ("nemotron", {}),
    ],
    ids=["llama", "biases", "qwen2", "norms of heads", "window", "scaling", "in part"],
)
def test_attention_with_rotary_positions_is_replaced_by_what_computes_the_same(kind, options):
    """At positions that it was not chosen by; the hook is asked for the same form of attention."""
    layer = tiny_model(kind, **options).model.layers[0].self_attn
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    rows = torch.randn(1, 9, 32, generator=torch.Generator().manual_seed(5))
    positions = torch.randn(2, 1, 9, 4 if kind == "nemotron" else 8, generator=torch.Generator().manual_seed(6)).unbind()
    with torch.inference_mode():
        expected, forms = attended(layer, rows, positions)
        substitute, counts = rewritten(layer)
        assert counts == {"RotaryAttention": 1}
        got, found = attended(substitute, rows, positions)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert found == forms
    assert not list(substitute.parameters()), "the original's weights are let go"


def test_attention_that_turns_its_heads_in_another_way_stays():
    """In part by its own account, in pairs, or with a factor on the outcome: its linear layers alone are packed."""
    scaled = tiny_model("llama").model.layers[0].self_attn
    forward = type(scaled).forward
    scaled.__class__ = type("Scaled", (type(scaled),), {"forward": lambda self, *args, **more: (1.001 * forward(self, *args, **more)[0], None)})
    partial, paired = (tiny_model(kind).model.layers[0].self_attn for kind in ("stablelm", "cohere"))
    for layer in (scaled, partial, paired):
        substitute, counts = rewritten(layer)
        assert substitute is layer
        assert counts == {"PackedLinear": 4}


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

    monkeypatch.setattr(PackedLinear, "forward", fail)
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


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_holds_its_weights_once(tied):
    """The originals of what is packed are let go, except for an embedding that shares its numbers with the head."""
    model = tiny_model("llama", tie_word_embeddings=tied)
    assert isinstance(model, nn.Module)
    embedding = model.get_input_embeddings().weight
    counts = rewrite(model, torch.float32, CPU)
    assert counts == {"RotaryAttention": 2, "GatedMlp": 2, "PackedLinear": 1, "RmsNorm": 2 * 2 + 1}
    left = list(model.parameters())
    assert {parameter.dim() for parameter in left if parameter is not embedding} == {1}
    assert model.get_output_embeddings().weight.shape == embedding.shape
    assert model.get_output_embeddings().weight.isnan().all(), "whoever computes with it is found out"


def test_a_rewritten_model_computes_what_it_did():
    """All kinds together, through transformers' own code."""
    model = tiny_model("qwen3")
    model.set_attn_implementation("eager")
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        rewrite(model, torch.float32, CPU)
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(model, AutoModelForCausalLM._model_mapping[type(model.config)])
