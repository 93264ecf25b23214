"""Whether an architecture can be batched here: by what its configuration says, by what its layers ask for, and by trying.

A packed row serves any decoder whose layers mix tokens through attention alone, and through the hook. Recurrent and linear
attention, ALiBi and attention with masks of its own do not, and run one sequence at a time (`serial`).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from pipeline.engine.attention.hook import NAME, Form, UnsupportedAttention, answering
from pipeline.engine.attention.paged import LayerShape
from pipeline.engine.load_error import LoadError

ROPE_BY_LENGTH = ("dynamic", "longrope")
"""Rotary variants whose frequencies follow the longest sequence of the batch, once it is past the original context."""


class CannotBatch(LoadError):
    """A model has to run one sequence at a time."""


def context_limit(config: Any) -> int | None:
    """Longest context in which every position means the same whatever else is in the batch; None where the config names none."""
    limits = [getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)]
    limits += [
        rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        for rope in _rope_parameters(config)
        if any(kind in str(rope.get("rope_type", rope.get("type"))) for kind in ROPE_BY_LENGTH)
    ]
    return min((int(limit) for limit in limits if limit), default=None)


def check_config(config: Any, source: str) -> None:
    """Refuses what the configuration rules out.

    Raises:
        CannotBatch: The architecture cannot be batched.
        LoadError: It cannot be served at all.
    """
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise LoadError(f"{source}: model type {kind!r} is an encoder-decoder, which is not served: serve a decoder (Llama, Qwen, GPT-2 and so on)")
    text = config.get_text_config(decoder=True)
    if "chunked_attention" in (getattr(text, "layer_types", None) or ()):
        raise refusal(source, kind, "its layers attend in chunks")
    if getattr(text, "alibi", False) or getattr(text, "position_embedding_type", None) == "alibi":
        raise refusal(source, kind, "its positions are ALiBi")


def seems_batched(config: Any) -> bool:
    """Tells by the configuration alone whether an architecture will be batched: good enough to plan memory with, before it is tried."""
    try:
        check_config(config, "")
    except CannotBatch:
        return False
    except LoadError:  # said when it is loaded
        return True
    family = AutoModelForCausalLM._model_mapping.get(type(config), None)  # noqa: SLF001 -- there is no public way to ask
    takes_attention = family is None or any(getattr(family, flag, False) for flag in ("_supports_attention_backend", "_supports_sdpa"))
    return takes_attention and attention_layers(config) == config.num_hidden_layers


def attention_layers(config: Any) -> int:
    """How many layers keep keys and values; the others are recurrent."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return int(config.num_hidden_layers) if hasattr(config, "num_attention_heads") else 0
    return sum("attention" in kind and "linear" not in kind for kind in kinds)


class _Survey:
    """Answers attention with zeros and notes what each layer asks for."""

    def __init__(self) -> None:
        self.shapes: dict[nn.Module, LayerShape] = {}
        self.forms: list[Form] = []
        self.repeated = False

    def attend(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, form: Form) -> Tensor:
        """See `hook.Attention`."""
        self.repeated |= module in self.shapes
        self.shapes[module] = LayerShape(key.shape[1], key.shape[-1], value.shape[-1])
        self.forms.append(form)
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[-1])


def survey(model: Any, source: str) -> dict[nn.Module, LayerShape]:
    """Runs two tokens through the model and learns what its attention layers keep, in order.

    Raises:
        CannotBatch: A layer does not go through the hook, or asks it for what is not served.
    """
    config = model.config
    text = config.get_text_config(decoder=True)
    answers = _Survey()
    try:
        with torch.inference_mode(), answering(answers):
            row = torch.tensor([[0, 0]], device=model.device)
            model(input_ids=row, position_ids=torch.tensor([[0, 1]], device=model.device), use_cache=False, logits_to_keep=1)
    except UnsupportedAttention as error:
        raise refusal(source, config.model_type, str(error)) from None
    except Exception as error:
        raise refusal(source, config.model_type, f"it does not take a packed row ({type(error).__name__})") from error
    layers = text.num_hidden_layers
    if answers.repeated:
        raise refusal(source, config.model_type, "a layer attends more than once per token")
    if len(answers.shapes) != layers:
        raise refusal(source, config.model_type, f"{len(answers.shapes)} of its {layers} layers attend through the hook")
    for i, (form, window) in enumerate(zip(answers.forms, _windows(text, layers), strict=True)):
        if window and form.window != window:
            raise refusal(source, config.model_type, f"layer {i} has a sliding window of {window} that it does not tell")
    return answers.shapes


def reference_logits(model: Any, token_ids: list[int]) -> Tensor:
    """Logits at every place of one sequence, by the model's own eager attention, [tokens, vocabulary]."""
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=torch.tensor([token_ids], device=model.device), use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(NAME)
    return logits


def _windows(text: Any, layers: int) -> list[int]:
    """The sliding window of each layer that the configuration speaks of, 0 where there is none."""
    window = getattr(text, "sliding_window", None) or 0
    types = getattr(text, "layer_types", None)
    if types is None:
        return [window] * layers
    return [window if kind == "sliding_attention" else 0 for kind in types]


def _rope_parameters(config: Any) -> Iterator[dict[str, Any]]:
    """The rotary settings of a model; some have one per kind of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if "rope_type" in rope or "type" in rope:
        yield rope
    else:
        yield from (value for value in rope.values() if isinstance(value, dict))


def refusal(source: str, kind: str, reason: str) -> CannotBatch:
    """The one error that says why an architecture is not batched."""
    return CannotBatch(f"{source}: model type {kind!r} cannot be batched: {reason}")
