"""What can be told of a model without loading it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.settings import SHIPPED, ModelSettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model as its files describe it. `problem` says what is wrong with them; a model that is not here has none yet."""

    name: str
    source: str
    revision: str | None
    served: bool
    is_here: bool = True
    architecture: str | None = None
    dtype: str | None = None
    context_tokens: int | None = None
    weights_bytes: int | None = None
    problem: str | None = None


def cards(settings: Settings) -> list[ModelCard]:
    """The models that a worker with these settings serves, and the one that ships."""
    served = settings.served_models
    shown = served if any(model.source == SHIPPED.source for model in served) else (*served, SHIPPED)
    return [card(model, served=model in served) for model in shown]


def card(model: ModelSettings, *, served: bool) -> ModelCard:
    """Reads a model's files; a hub model's from the local cache."""
    bare = ModelCard(name=model.name, source=model.source, revision=model.revision, served=served)
    folder = _folder(model)
    if folder is None:
        return replace(bare, is_here=False)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return replace(bare, problem=f"config.json can't be read: {getattr(error, 'strerror', None) or error}")
    weights = list(folder.glob("*.safetensors"))
    text_config = config.get("text_config", config)
    return replace(
        bare,
        architecture=next(iter(config.get("architectures") or ()), None),
        dtype=_first(config, text_config, "dtype", "torch_dtype"),
        context_tokens=text_config.get("max_position_embeddings"),
        weights_bytes=sum(file.stat().st_size for file in weights),
        problem=None if weights else "there is no *.safetensors",
    )


def _folder(model: ModelSettings) -> Path | None:
    folder = Path(model.source).expanduser()
    if folder.exists() or model.source.startswith(("/", ".", "~")):
        return folder
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 -- slow to import, and needed for hub models only

    config = try_to_load_from_cache(model.source, "config.json", revision=model.revision)
    return Path(config).parent if isinstance(config, str) else None


def _first(config: dict[str, Any], text_config: dict[str, Any], *names: str) -> str | None:
    return next((str(found) for name in names for source in (config, text_config) if (found := source.get(name))), None)
