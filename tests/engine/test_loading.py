"""From a name to an engine: what loads, and what is refused with one line that says why."""

import json
import re
import shutil
from unittest.mock import Mock

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from pipeline.engine import checkpoint, loading
from pipeline.engine.load_error import LoadError
from pipeline.settings import DeviceChoice, DtypeChoice, EngineSettings, ModelSettings
from tests.engine.serving import SMALL, chat, completion, ids_of, serve
from tests.engine.tiny_models import continued_by_transformers, tiny_model
from tests.engine.tiny_tokenizers import byte_level


@pytest.fixture(scope="module")
def saved(speaker, tmp_path_factory):
    """A model on disk, with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    speaker.save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved, tmp_path / "tiny")


def load(source, revision=None, settings=SMALL, **options):
    """Loads a model in float32, on the processor, unless told otherwise."""
    options = {"device": DeviceChoice.CPU, "dtype": DtypeChoice.FLOAT32} | options
    return loading.load(ModelSettings(name="tiny", source=str(source), revision=revision), settings, **options)


def edit(file, **entries):
    """Adds entries to a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def refusal_of(source, **options) -> str:
    """The one line of a refusal, which names the source."""
    with pytest.raises(LoadError) as refusal:
        load(source, **options)
    message = str(refusal.value)
    assert message.startswith(str(source))
    assert "\n" not in message
    return message


def test_a_model_from_disk_speaks_as_in_memory(saved, speaker):
    """Weights, tokenizer and template come back whole."""
    engine = load(saved)
    prompt = byte_level().encode("The water turns")
    assert ids_of(engine, [completion("The water turns", max_tokens=8)]) == [continued_by_transformers(speaker, prompt, 8)]
    (answer,) = serve(engine, [chat("hello", max_tokens=4)]).values()
    assert len(answer.token_ids) == 4
    assert (engine.info.source, engine.info.dtype, engine.info.device) == (str(saved), "float32", "cpu")


def test_a_model_without_a_tokenizer_serves_token_ids(folder, speaker):
    """Only weights and config: ids in, ids out."""
    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "chat_template.jinja").unlink()
    answers = serve(load(folder), [completion([1, 2, 3], max_tokens=4)])
    assert answers[0, 0].token_ids == continued_by_transformers(speaker, [1, 2, 3], 4)
    assert answers[0, 0].text == ""


def test_precision_can_be_chosen(saved):
    """The model and its cache compute in it."""
    engine = load(saved, dtype=DtypeChoice.BFLOAT16)
    assert engine.info.dtype == "bfloat16"
    assert len(ids_of(engine, [completion("water", max_tokens=4)])[0]) == 4


def test_threads_are_as_many_as_asked_or_as_the_model_is_worth(tmp_path, monkeypatch):
    """The process takes no more than it may use, and a model of this size no more than one. This one has few kernels to compile for several."""
    monkeypatch.setattr("pipeline.engine.resources.cores", lambda: 2)
    tiny_model("gpt2").save_pretrained(tmp_path)
    engines = [load(tmp_path, settings=EngineSettings(threads=threads, kv_cache_mib=1)) for threads in (3, None)]
    for engine, threads in zip(engines, (3, 1), strict=True):
        ids_of(engine, [completion([1, 2, 3], max_tokens=2)])
        assert torch.get_num_threads() == threads
    ids_of(engines[0], [completion([1, 2, 3], max_tokens=2)])
    assert torch.get_num_threads() == 3


def test_the_log_names_sizes_and_no_prompt(saved, capfd):
    """One line per model, with weights and cache in MiB."""
    load(saved)
    out = capfd.readouterr().out
    assert out.count("model loaded") == 1
    assert "weights_mib=" in out
    assert "kv_cache_mib=" in out


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda f: (f / "config.json").unlink(), r"no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda f: (f / "model.safetensors").unlink(), r"has no \*\.safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 64), "transformers cannot load it"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "tokenizer cannot be read"),
        (lambda f: edit(f / "config.json", model_type="new_kind"), r"config\.json cannot be read: .*new_kind"),
        (lambda f: edit(f / "config.json", auto_map={"AutoModel": "code.Model"}), r"config\.json asks to run the model's own code \(auto_map\)"),
        (lambda f: edit(f / "config.json", sub={"deep": [{"trust_remote_code": True}]}), r"own code \(trust_remote_code\)"),
        (lambda f: edit(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]}), r"tokenizer_config\.json asks to run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_broken_or_dangerous_is_refused(folder, break_it, reason, monkeypatch):
    """Each with its own reason, and never by running anything."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("something was unpickled"))
    break_it(folder)
    assert re.search(reason, refusal_of(folder))


def test_a_checkpoint_that_lacks_weights_is_refused(folder):
    """Rather than served with random numbers in their place."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of the weights of LlamaForCausalLM (model.layers.1.mlp.up_proj.weight ...)" in refusal_of(folder)


def test_pickles_beside_safetensors_are_left_alone(folder):
    """The safe form is read, the other one is not."""
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert load(folder).info.parameters > 0


def test_a_device_that_is_not_there_is_refused(saved, monkeypatch):
    """It says which, and what to do."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no cuda device here; use --device auto" in refusal_of(saved, device=DeviceChoice.CUDA)


def test_a_folder_has_no_revision(saved):
    """A revision picks a state of a hub repository; asking for one of a folder is a mistake."""
    assert "leave the revision out" in refusal_of(saved, revision="main")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_hub_model_is_taken_from_the_local_cache(hub, saved):
    """By its id and revision, without the hub where everything is there."""
    commit = "0" * 40
    shutil.copytree(saved, hub / "models--owner--tiny" / "snapshots" / commit)
    (hub / "models--owner--tiny" / "refs").mkdir()
    (hub / "models--owner--tiny" / "refs" / "v1").write_text(commit)
    engine = load("owner/tiny", revision="v1")
    assert (engine.info.source, engine.info.revision) == ("owner/tiny", "v1")
    assert "not in the local cache" in refusal_of("owner/tiny", revision="v2")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("owner/other", "not in the local cache"),
        ("not an id!", "neither a folder here nor a hub id"),
        ("/nowhere/tiny", "no such folder"),
        ("./tiny", "no such folder"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_name_that_leads_nowhere_is_refused(source, reason):
    """Paths are not taken for hub ids, nor the other way round."""
    assert reason in refusal_of(source)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RepositoryNotFoundError("404", response=Mock()), "nor a repository on the hub that this token may read"),
        (RevisionNotFoundError("404", response=Mock()), "owner/tiny@v1: the hub has no such revision"),
        (OSError("disk full"), "cannot be fetched from the hub: OSError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_hub_answers_is_put_into_words(monkeypatch, error, reason):
    """Which of id, revision and network is at fault."""

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(checkpoint, "snapshot_download", fails)
    with pytest.raises(LoadError, match=reason):
        load("owner/tiny", revision="v1")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("config.json", True),
        ("model-00001-of-00002.safetensors", True),
        ("tokenizer.model", True),
        ("chat_template.jinja", True),
        ("pytorch_model.bin", False),
        ("modeling_new.py", False),
        ("original/params.json", False),
        ("onnx/model.safetensors", False),
        ("consolidated.safetensors", False),
    ],
)
def test_only_data_is_fetched_and_only_once(name, wanted):
    """The hub is asked for configs, tokenizers and safetensors; not for pickles or code, nor for the same weights in another form."""
    asked = filter_repo_objects([name], allow_patterns=checkpoint.WANTED_FILES, ignore_patterns=checkpoint.UNWANTED_FILES)
    assert bool(list(asked)) is wanted
