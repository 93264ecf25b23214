"""The linear layers behind the pooling: computed by hand, or refused in one line."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.engine.load_error import LoadError
from pipeline.engine.loading import load
from pipeline.engine.pooling.dense import read_layers
from pipeline.settings import DeviceChoice, DtypeChoice, ModelSettings
from schemas.errors import InvalidRequest
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import SMALL, ask, tiny_encoder, word_pieces
from tests.engine.serving import request

CPU = torch.device("cpu")
TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"


def write_layer(folder, weight, bias=None, **config):
    """Saves a layer as sentence-transformers does."""
    folder.mkdir()
    weights = {"linear.weight": torch.tensor(weight)} | ({} if bias is None else {"linear.bias": torch.tensor(bias)})
    save_file(weights, folder / "model.safetensors")
    said = {"in_features": len(weight[0]), "out_features": len(weight), "bias": bias is not None, "activation_function": TANH} | config
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("torch.nn.modules.linear.Identity", [4.5, -1.0]),
        ("torch.nn.modules.activation.Tanh", [math.tanh(4.5), math.tanh(-1.0)]),
        ("torch.nn.modules.activation.ReLU", [4.5, 0.0]),
        ("torch.nn.modules.activation.Sigmoid", [1 / (1 + math.exp(-4.5)), 1 / (1 + math.e)]),
        ("torch.nn.modules.activation.GELU", [4.5 * (1 + math.erf(4.5 / math.sqrt(2))) / 2, -(1 + math.erf(-1 / math.sqrt(2))) / 2]),
    ],
)
def test_a_layer_is_a_product_a_bias_and_an_activation(tmp_path, activation, expected):
    """Two numbers worked out on paper: 1·1 + 2·2 - 0.5 and -1·1 + 0·2."""
    folder = write_layer(tmp_path / "2_Dense", [[1.0, 2.0], [-1.0, 0.0]], [-0.5, 0.0], activation_function=activation)
    (layer,) = read_layers((folder,), 2, CPU, "m")
    assert layer(torch.tensor([[1.0, 2.0]]))[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_embeddings_go_through_the_layers_before_they_get_length_one(tmp_path):
    """Two layers of a whole model on disk, against numpy over what transformers computes; `dimensions` counts what comes out."""
    network, draw = tiny_encoder("bert"), np.random.default_rng(0)
    network.save_pretrained(tmp_path / "m")
    word_pieces().save_pretrained(tmp_path / "m")
    first, bias, second = (draw.normal(size=size).astype(np.float32) for size in ((12, 32), (12,), (5, 12)))
    write_layer(tmp_path / "m" / "2_Dense", first.tolist(), bias.tolist())
    write_layer(tmp_path / "m" / "3_Dense", second.tolist(), activation_function=IDENTITY)
    (tmp_path / "m" / "1_Pooling").mkdir()
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    steps = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense"), ("Normalize", "4_Normalize")
    (tmp_path / "m" / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in steps]))
    engine = load(ModelSettings(name="tiny", source=str(tmp_path / "m")), SMALL, device=DeviceChoice.CPU, dtype=DtypeChoice.FLOAT32)
    texts = ["The water turns the wheel.", "corn"]
    expected = []
    for text in texts:
        with torch.inference_mode():
            hidden = network(**word_pieces()(text, return_tensors="pt")).last_hidden_state[0].numpy()
        vector = second @ np.tanh(first @ hidden.mean(0) + bias)
        expected.append(vector / np.linalg.norm(vector))
    (pooled,) = ask(engine, request(Endpoint.EMBEDDINGS, input=texts))
    np.testing.assert_allclose(pooled.rows, np.stack(expected), atol=1e-5)
    with pytest.raises(InvalidRequest, match="have 5 dimensions"):
        engine.prepare(request(Endpoint.EMBEDDINGS, input="corn", dimensions=6))


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickles can run code"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 64), "cannot be read"),
        (lambda f: save_file({"linear.weight": torch.ones(2)}, f / "model.safetensors"), "not what its config"),
        (lambda f: save_file({"linear.weight": torch.ones(2, 3)}, f / "model.safetensors"), "takes 3 numbers, and gets 2"),
        (lambda f: save_file({"linear.weight": torch.ones(2, 2), "linear.bias": torch.ones(2)}, f / "model.safetensors"), "not what its config"),
        (lambda f: (f / "config.json").unlink(), "no readable config"),
        (lambda f: (f / "config.json").write_text("{"), "no readable config"),
        (lambda f: (f / "config.json").write_text('{"activation_function": "os.Tanh"}'), r"activation os\.Tanh, which is not served"),
        (lambda f: (f / "config.json").write_text('{"activation_function": "torch.nn.modules.activation.Mish"}'), "not served; Identity, Tanh"),
        (lambda f: (f / "config.json").write_text("{}"), "activation None"),
        (lambda f: (f / "config.json").write_text('{"module_input_name": "token_embeddings"}'), "works on token_embeddings"),
    ],
)
def test_a_layer_that_is_broken_or_not_served_is_refused(tmp_path, break_it, reason):
    """Each with its own reason, and nothing is unpickled or looked up outside the list."""
    folder = write_layer(tmp_path / "2_Dense", [[1.0, 0.0], [0.0, 1.0]])
    break_it(folder)
    with pytest.raises(LoadError, match=reason) as refusal:
        read_layers((folder,), 2, CPU, "m")
    assert str(refusal.value).startswith("m: its 2_Dense")
    assert "\n" not in str(refusal.value)
