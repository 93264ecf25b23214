"""What lies in a model's folder, read by the same rules for every engine: safetensors only, none of the model's own code, one line where it fails."""

from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import AutoConfig, AutoTokenizer

from pipeline.engine import checkpoint
from pipeline.engine.base import ModelInfo
from pipeline.engine.load_error import LoadError
from pipeline.settings import ModelSettings

log = structlog.get_logger(__name__)

UNLIMITED_TOKENS = 1 << 62


def read_config(folder: Path, source: str) -> Any:
    """Reads a model's configuration.

    Raises:
        LoadError: It cannot be read, or its architecture is not known.
    """
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise LoadError(f"{source}: its config.json cannot be read: {first_line(error)}") from error


def read_network(
    factory: Any, folder: Path, config: Any, source: str, *, dtype: torch.dtype, device: torch.device, unread: tuple[str, ...] = (), **options: Any
) -> Any:
    """Reads a model's weights onto a device, for evaluation.

    Args:
        factory: One of transformers' auto classes.
        folder: Where the model lies.
        config: Its configuration.
        source: Its name in messages.
        dtype: What it computes in.
        device: Where it computes.
        unread: Beginnings of the names of weights that may be missing, for nothing reads what they make.
        options: More for `from_pretrained`.

    Raises:
        LoadError: It cannot be loaded (the cause is transformers' own error), or weights are missing.
    """
    try:
        network, report = factory.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        raise LoadError(f"{source}: transformers cannot load it: {first_line(error)}") from error
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(unread)):
        raise LoadError(
            f"{source}: its checkpoint lacks {len(missing)} of the weights of {type(network).__name__} ({missing[0]} ...); fetch it again"
        )
    return network.to(device).eval().requires_grad_(requires_grad=False)


def read_tokenizer(folder: Path, source: str) -> Any:
    """Reads a model's tokenizer; None where it has none.

    Raises:
        LoadError: It cannot be read.
    """
    if not checkpoint.has_tokenizer(folder):
        log.warning("no tokenizer: only token ids are served", model=source)
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise LoadError(f"{source}: its tokenizer cannot be read: {first_line(error)}") from error
    tokenizer.model_max_length = UNLIMITED_TOKENS  # the engine has its own limit, and says so to the requester
    return tokenizer


def describe(network: Any, model: ModelSettings, *, vocabulary: int, context_tokens: int) -> ModelInfo:
    """Tells what a loaded model is."""
    return ModelInfo(
        name=model.name,
        source=model.source,
        revision=model.revision,
        architecture=type(network).__name__,
        parameters=int(network.num_parameters()),
        dtype=str(network.dtype).removeprefix("torch."),
        device=network.device.type,
        context_tokens=context_tokens,
        vocabulary=vocabulary,
    )


def log_loaded(info: ModelInfo, **more: Any) -> None:
    """Logs what a loaded model is, and what else its engine has to say of it."""
    log.info(
        "model loaded",
        model=info.name,
        source=info.source,
        architecture=info.architecture,
        device=info.device,
        dtype=info.dtype,
        context_tokens=info.context_tokens,
        **more,
    )


def first_line(error: Exception) -> str:
    """The first line of what an error says, of bounded length; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
