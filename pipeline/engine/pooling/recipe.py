"""What a checkpoint says about its use: which task it is for, and how its embeddings are made."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.engine.load_error import LoadError
from pipeline.engine.pooling.readers import Pooling

MODULES = "modules.json"
SERVED = "Transformer, Pooling, Dense, Normalize"
LEGACY_MODES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "mean_sqrt_len_tokens"} | {
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
"""`pooling_mode_...` flags that sentence-transformers wrote before version 5.5, and what they are called now."""


WRITERS = ("LMHeadModel", "DoubleHeadsModel")
"""Old names of architectures that generate."""


class PoolingTask(StrEnum):
    """What a model that writes no text is for."""

    EMBEDDINGS = "embeddings"
    CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an embedding is made.

    Attributes:
        pooling: Which tokens make it.
        dense: Folders of the linear layers that follow, in order.
        is_normalised: Whether it is brought to length 1 in the end.
        max_tokens: Texts that the model was trained on are at most so long; None: as long as its positions go.
        prompt: What the model's author puts before every text.
    """

    pooling: Pooling
    is_normalised: bool
    dense: tuple[Path, ...] = ()
    max_tokens: int | None = None
    prompt: str = ""


PLAIN = Recipe(pooling=Pooling.MEAN, is_normalised=True)
"""For an encoder whose checkpoint says nothing: the mean of all tokens, at length 1 as OpenAI's embeddings are."""


def find_task(folder: Path) -> PoolingTask | None:
    """Tells what a checkpoint is for; None: it generates, or its config does not say."""
    if (folder / MODULES).is_file():
        return PoolingTask.EMBEDDINGS
    config = _read(folder / "config.json", {})
    name = str((config.get("architectures") or [""])[0])
    if name.endswith("ForSequenceClassification"):
        return PoolingTask.CLASSIFICATION
    is_bare = name.endswith(("Model", "ForMaskedLM")) and not name.endswith(WRITERS)
    return PoolingTask.EMBEDDINGS if is_bare and not config.get("is_encoder_decoder") else None


def read_recipe(folder: Path, source: str) -> Recipe:
    """Reads the files of sentence-transformers, where there are some.

    Raises:
        LoadError: They ask for a step that is not served.
    """
    modules = _read(folder / MODULES, None)
    if modules is None:
        return PLAIN
    pooling, dense, is_normalised = Pooling.MEAN, list[Path](), False
    for kind, path in _steps(modules, source):
        match kind:
            case "Transformer" if not path:
                pass
            case "Pooling" if not dense:
                pooling = _pooling(_read(folder / path / "config.json", None), source)
            case "Dense" if not is_normalised:
                dense.append(folder / path)
            case "Normalize":
                is_normalised = True
            case _:
                raise LoadError(f"{source}: its {MODULES} asks for {kind} there, which is not served; {SERVED} in this order are")
    return Recipe(
        pooling=pooling,
        dense=tuple(dense),
        is_normalised=is_normalised,
        max_tokens=_read(folder / "sentence_bert_config.json", {}).get("max_seq_length"),
        prompt=_prompt(_read(folder / "config_sentence_transformers.json", {})),
    )


def _steps(modules: Any, source: str) -> list[tuple[str, str]]:
    """Class and folder of each step; the folder never leads out of the model's."""
    try:
        steps = [(str(module["type"]).rpartition(".")[-1], str(module["path"])) for module in modules]
    except (TypeError, KeyError):
        raise LoadError(f"{source}: its {MODULES} is not a list of modules; fetch the model again") from None
    if any(Path(path).is_absolute() or ".." in Path(path).parts for _, path in steps):
        raise LoadError(f"{source}: its {MODULES} names a folder outside the model's; pick another model")
    return steps


def _pooling(config: dict[str, Any] | None, source: str) -> Pooling:
    if config is None:
        raise LoadError(f"{source}: {MODULES} names a folder for Pooling that has no config.json; fetch the model again")
    asked = config.get("pooling_mode") or [new for old, new in LEGACY_MODES.items() if config.get(f"pooling_mode_{old}")] or "mean"
    modes = [asked] if isinstance(asked, str) else list(asked)
    if config.get("include_prompt") is False:
        raise LoadError(f"{source}: its pooling leaves the prompt out (include_prompt), which is not served")
    if len(modes) != 1 or modes[0] not in set(Pooling):
        raise LoadError(f"{source}: it pools by {' and '.join(modes)}, which is not served; {', '.join(Pooling)} are")
    return Pooling(modes[0])


def _prompt(config: dict[str, Any]) -> str:
    return str((config.get("prompts") or {}).get(config.get("default_prompt_name")) or "")


def _read(file: Path, absent: Any) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return absent
