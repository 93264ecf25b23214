"""From a folder to the right engine: what a checkpoint is for, how its embeddings are made, and what is refused."""

import json

import pytest
from safetensors.torch import load_file, save_file

from pipeline.engine.engine import TransformersEngine
from pipeline.engine.load_error import LoadError
from pipeline.engine.loading import load
from pipeline.engine.pooling.activation import activation_of
from pipeline.engine.pooling.answers import Activation
from pipeline.engine.pooling.engine import PoolingEngine
from pipeline.engine.pooling.readers import Pooling
from pipeline.engine.pooling.recipe import PLAIN, PoolingTask, Recipe, find_task, read_recipe
from pipeline.settings import DeviceChoice, DtypeChoice, ModelSettings
from schemas.request import Endpoint
from tests.engine.pooling.tiny_encoders import SMALL, ask, tiny_encoder, word_pieces
from tests.engine.serving import request
from tests.engine.tiny_models import tiny_model

STEPS = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def write(folder, name, content):
    """Puts a JSON file into a folder."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


@pytest.fixture
def steps(tmp_path):
    """A folder that says how embeddings are made: mean and length 1."""
    write(tmp_path, "modules.json", STEPS)
    write(tmp_path, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    return tmp_path


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertModel", PoolingTask.EMBEDDINGS),
        ("XLMRobertaModel", PoolingTask.EMBEDDINGS),
        ("ModernBertForMaskedLM", PoolingTask.EMBEDDINGS),
        ("BertForSequenceClassification", PoolingTask.CLASSIFICATION),
        ("LlamaForCausalLM", None),
        ("GPT2LMHeadModel", None),
        (None, None),
    ],
)
def test_the_architecture_tells_the_task(tmp_path, architecture, task):
    """Causal models generate, heads classify, bare encoders embed."""
    write(tmp_path, "config.json", {"architectures": architecture and [architecture]})
    assert find_task(tmp_path) is task


def test_an_encoder_with_a_decoder_is_not_for_embeddings(tmp_path):
    """T5 and BART are models too."""
    write(tmp_path, "config.json", {"architectures": ["BartModel"], "is_encoder_decoder": True})
    assert find_task(tmp_path) is None


def test_steps_make_an_embedding_model_of_any_architecture(steps):
    """A decoder with sentence-transformers' files is one."""
    write(steps, "config.json", {"architectures": ["Qwen3ForCausalLM"]})
    assert find_task(steps) is PoolingTask.EMBEDDINGS


def test_without_steps_an_encoder_is_averaged(tmp_path):
    """And brought to length 1, as OpenAI's embeddings are."""
    assert read_recipe(tmp_path, "m") == PLAIN == Recipe(pooling=Pooling.MEAN, is_normalised=True)


def test_steps_are_followed(steps):
    """Pooling, normalisation, the longest text and the author's prompt, in the old spelling."""
    write(steps, "sentence_bert_config.json", {"max_seq_length": 48})
    write(steps, "config_sentence_transformers.json", {"prompts": {"query": "find: ", "passage": ""}, "default_prompt_name": "query"})
    assert read_recipe(steps, "m") == Recipe(pooling=Pooling.MEAN, is_normalised=True, max_tokens=48, prompt="find: ")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode": "cls"}, Pooling.CLS),
        ({"pooling_mode": ["lasttoken"]}, Pooling.LAST),
        ({"pooling_mode_lasttoken": True}, Pooling.LAST),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({}, Pooling.MEAN),
    ],
)
def test_pooling_is_read_in_both_spellings(steps, config, pooling):
    """One flag per mode, or one name; and without the last step lengths stay as they are."""
    write(steps, "1_Pooling/config.json", config)
    write(steps, "modules.json", STEPS[:2])
    assert read_recipe(steps, "m") == Recipe(pooling=pooling, is_normalised=False)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by max, which is not served"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "pools by cls and mean"),
        ("1_Pooling/config.json", {"include_prompt": False}, "leaves the prompt out"),
        ("modules.json", [*STEPS, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"}], "asks for Dense there, which is not served"),
        ("modules.json", [{"path": "1_LayerNorm", "type": "sentence_transformers.models.LayerNorm"}], "asks for LayerNorm there"),
        ("modules.json", [{"path": "0_Transformer", "type": "a.Transformer"}], "asks for Transformer"),
        ("modules.json", [{"path": "2_Pooling", "type": "a.Pooling"}], "has no config.json"),
        ("modules.json", [{"path": "../other", "type": "a.Pooling"}], "outside the model's"),
        ("modules.json", {"a": 1}, "not a list of modules"),
        ("modules.json", [1], "not a list of modules"),
    ],
)
def test_steps_that_are_not_served_are_refused(steps, name, content, reason):
    """In one line that names them."""
    write(steps, name, content)
    with pytest.raises(LoadError, match=reason) as refusal:
        read_recipe(steps, "m")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "activation"),
    [
        ({"labels": 3}, Activation.SOFTMAX),
        ({"labels": 1}, Activation.SIGMOID),
        ({"labels": 3, "problem_type": "multi_label_classification"}, Activation.SIGMOID),
        ({"labels": 1, "problem_type": "regression"}, Activation.NONE),
        ({"labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, Activation.NONE),
        ({"labels": 1, "sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, Activation.SIGMOID),
    ],
)
def test_a_heads_activation_is_what_its_config_says(overrides, activation):
    """sentence-transformers' entries, then transformers', then what the number of labels suggests."""
    assert activation_of(tiny_encoder("bert", **overrides).config, "m") is activation


def test_an_unknown_activation_is_refused():
    """Rather than scores of some other kind."""
    config = tiny_encoder("bert", labels=1, sentence_transformers={"activation_fn": "torch.nn.Mish"}).config
    with pytest.raises(LoadError, match=r"the activation torch.nn.Mish, which is not served; Identity, Sigmoid, Softmax are"):
        activation_of(config, "m")


@pytest.fixture
def saved(tmp_path):
    """Saves a model with its tokenizer."""

    def save(network):
        network.save_pretrained(tmp_path / "m")
        word_pieces().save_pretrained(tmp_path / "m")
        return tmp_path / "m"

    return save


def load_from(folder):
    """Loads in float32 on the processor."""
    return load(ModelSettings(name="tiny", source=str(folder)), SMALL, device=DeviceChoice.CPU, dtype=DtypeChoice.FLOAT32)


def test_each_folder_gets_its_engine(saved):
    """By the architecture in its config; what is loaded answers."""
    for network, engine_class, asked in (
        (tiny_encoder("bert"), PoolingEngine, request(Endpoint.EMBEDDINGS, input=["water", "wheel"])),
        (tiny_encoder("bert", labels=3), PoolingEngine, request(Endpoint.CLASSIFY, input=["water", "wheel"])),
        (tiny_encoder("bert", labels=1), PoolingEngine, request(Endpoint.RERANK, query="water", documents=["wheel", "corn"])),
    ):
        engine = load_from(saved(network))
        assert type(engine) is engine_class
        assert engine.info.architecture == type(network).__name__
        assert len(ask(engine, asked)[0].rows) == 2
    assert type(load_from(saved(tiny_model("llama", vocab_size=200)))) is TransformersEngine


def test_a_head_that_is_not_in_the_checkpoint_is_refused(saved):
    """It would be random numbers; what embeddings do not read may be missing."""
    folder = saved(tiny_encoder("bert", labels=3))
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match="lacks 1 of the weights of BertForSequenceClassification"):
        load_from(folder)
    folder = saved(tiny_encoder("bert"))
    weights = load_file(folder / "model.safetensors")
    del weights["pooler.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert ask(load_from(folder), request(Endpoint.EMBEDDINGS, input="water"))
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match="lacks 1 of the weights of BertModel"):
        load_from(folder)


def test_a_broken_tokenizer_is_refused(saved):
    """With one line."""
    folder = saved(tiny_encoder("bert"))
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Nothing"}}')
    with pytest.raises(LoadError, match="its tokenizer cannot be read") as refusal:
        load_from(folder)
    assert "\n" not in str(refusal.value)
