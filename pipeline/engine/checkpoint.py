"""A model's files: where they are, and that nothing in them can run code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from pipeline.engine.load_error import LoadError

WANTED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What a served model is made of; pickled weights and Python files are not even fetched."""

UNWANTED_FILES = ["*/*", "consolidated*"]
"""The same weights again, for other programs."""

STEP_FILES = ["[0-9]*_*/config.json", "[0-9]*_Dense/model.safetensors"]
"""What sentence-transformers says about the steps behind the model, and the weights of those that have some."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def find(source: str, revision: str | None) -> Path:
    """Gives the folder of a model: `source` itself, or the hub's snapshot in the local cache (under `HF_HOME`), fetched where it is missing.

    Raises:
        LoadError: There is no such folder or repository, or it is not to be trusted.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if folder.exists() or source.startswith(("/", ".", "~")):
            raise LoadError(f"{source}: no such folder; name a folder with config.json and *.safetensors, or a hub id")
        folder = _fetch(source, revision)
    elif revision is not None:
        raise LoadError(f"{source}: is a folder, and a revision can only be picked on the hub: leave the revision out")
    _check(folder, source)
    return folder


def has_tokenizer(folder: Path) -> bool:
    """Tells whether the model comes with a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _fetch(source: str, revision: str | None) -> Path:
    wanted = source if revision is None else f"{source}@{revision}"
    try:
        return _download(source, revision)
    except RevisionNotFoundError:
        raise LoadError(f"{wanted}: the hub has no such revision") from None
    except RepositoryNotFoundError:
        raise LoadError(f"{wanted}: neither a folder here nor a repository on the hub that this token may read") from None
    except LocalEntryNotFoundError:
        raise LoadError(f"{wanted}: not in the local cache, and the hub cannot be reached: download it first, or name a folder") from None
    except HFValidationError:
        raise LoadError(f"{wanted}: neither a folder here nor a hub id (owner/name)") from None
    except (HfHubHTTPError, OSError) as error:
        raise LoadError(f"{wanted}: cannot be fetched from the hub: {type(error).__name__}") from None


def _download(source: str, revision: str | None) -> Path:
    folder = Path(snapshot_download(source, revision=revision, allow_patterns=WANTED_FILES, ignore_patterns=UNWANTED_FILES))
    if (folder / "modules.json").is_file():
        snapshot_download(source, revision=revision, allow_patterns=STEP_FILES)
    return folder


def _check(folder: Path, source: str) -> None:
    if not (folder / "config.json").is_file():
        raise LoadError(f"{source}: has no config.json; name the folder that holds a model in transformers' format")
    for file in sorted(folder.glob("*.json")):
        if file.name.endswith(".index.json") or file.name in ("tokenizer.json", "vocab.json"):
            continue  # weights and vocabulary by name; nothing in them is looked up as code
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise LoadError(f"{source}: {file.name} is not JSON; fetch the model again") from None
        if key := next(_code_keys(content), None):
            raise LoadError(
                f"{source}: {file.name} asks to run the model's own code ({key}), which is never done; pick a model that transformers knows"
            )
    if not any(folder.glob("*.safetensors")):
        if any(file for pattern in PICKLES for file in folder.glob(pattern)):
            raise LoadError(f"{source}: its weights are pickled, which can run code when loaded; convert them to safetensors")
        raise LoadError(f"{source}: has no *.safetensors; name a folder with weights")


def _code_keys(content: Any) -> Iterator[str]:
    """Names of entries, at any depth, that ask for code to be run."""
    if isinstance(content, dict):
        yield from (key for key in CODE_KEYS if content.get(key))
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _code_keys(value)
