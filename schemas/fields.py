"""Field types that bodies are made of. Where one field takes several forms, its validator brings them to one.

The forms are checked by hand rather than by unions: a union reports a fault once per branch, under made-up names, and
tries every branch on every element of a long list.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from schemas.faults import fault

MAX_INPUTS = 2_048
"""Texts of one pooled request: OpenAI's bound for embeddings."""

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 1_024
MAX_STOP_TOKEN_IDS = 1_024
MAX_LOGIT_BIASES = 1_024
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY_CHARACTERS = 64
MAX_METADATA_VALUE_CHARACTERS = 512

_TOKEN_ID = re.compile(r"-?[0-9]{1,18}", re.ASCII)


class ServiceTier(StrEnum):
    """The lane of a request: priority before default before flex."""

    PRIORITY = "priority"
    DEFAULT = "default"
    FLEX = "flex"


def _tier(value: Any) -> ServiceTier:
    if value == "auto":
        return ServiceTier.DEFAULT
    if isinstance(value, str) and value in set(ServiceTier):
        return ServiceTier(value)
    raise fault("invalid_request", "must be one of priority, default, flex, auto")


def token_ids(value: list[Any]) -> tuple[int, ...]:
    """Checks a list of token ids; the engine checks them against its vocabulary.

    Raises:
        PydanticCustomError: One is no integer, or negative.
    """
    if not all(type(token) is int for token in value):
        raise fault("invalid_request", "must hold token ids, which are integers")
    if value and min(value) < 0:
        raise fault("invalid_token", "holds a negative token id: ids start at 0")
    return tuple(value)


def _prompt(value: Any) -> str | tuple[int, ...]:
    if not isinstance(value, str | list):
        raise fault("invalid_request", "must be a string or a list of token ids")
    if not value:
        raise fault("invalid_request", "is empty: send at least one token")
    if isinstance(value, str):
        return value
    if all(isinstance(entry, str | list) for entry in value):
        raise fault("invalid_request", "must be one string or one list of token ids: send one request per prompt")
    return token_ids(value)


def _inputs(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Takes a string, token ids, or a list of either; gives the list."""
    if isinstance(value, list) and value and all(isinstance(entry, str | list) for entry in value):
        _count(value)
        return tuple(_prompt(entry) for entry in value)
    return (_prompt(value),)


def _count(texts: list[Any]) -> None:
    if len(texts) > MAX_INPUTS:
        raise fault("invalid_request", f"must hold at most {MAX_INPUTS} texts: send several requests")


def _texts(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise fault("invalid_request", "must be a string or a list of strings")
    if not texts or not all(texts):
        raise fault("invalid_request", "is empty, or holds an empty text")
    _count(texts)
    return tuple(texts)


def _stop(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value
    if not (isinstance(strings, list) and all(isinstance(string, str) for string in strings)):
        raise fault("invalid_request", "must be a string or a list of strings")
    if len(strings) > MAX_STOP_STRINGS:
        raise fault("invalid_request", f"must hold at most {MAX_STOP_STRINGS} strings")
    if not all(strings):
        raise fault("invalid_request", "holds an empty string, which would match everywhere: leave it out")
    if max(map(len, strings), default=0) > MAX_STOP_CHARACTERS:
        raise fault("invalid_request", f"holds a string of more than {MAX_STOP_CHARACTERS} characters")
    return tuple(strings)


def _stop_token_ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_STOP_TOKEN_IDS:
        raise fault("invalid_request", f"must be a list of at most {MAX_STOP_TOKEN_IDS} token ids")
    return token_ids(value)


def _logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, dict) or len(value) > MAX_LOGIT_BIASES:
        raise fault("invalid_request", f"must be an object of at most {MAX_LOGIT_BIASES} token ids and their biases")
    if not all(isinstance(key, str) and _TOKEN_ID.fullmatch(key) for key in value):
        raise fault("invalid_request", "has a key that is no token id: keys are decimal integers")
    if not all(type(bias) in {int, float} and -100 <= bias <= 100 for bias in value.values()):
        raise fault("invalid_request", "has a bias that is not a number from -100 to 100")
    ids = token_ids([int(key) for key in value])
    if len(set(ids)) < len(ids):
        raise fault("invalid_request", "names a token id twice, in two spellings")
    return tuple(zip(ids, map(float, value.values()), strict=True))


def _metadata(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or len(value) > MAX_METADATA_PAIRS:
        raise fault("invalid_request", f"must be an object of at most {MAX_METADATA_PAIRS} strings")
    if not all(isinstance(text, str) and len(text) <= MAX_METADATA_VALUE_CHARACTERS for text in value.values()):
        raise fault("invalid_request", f"must hold strings of at most {MAX_METADATA_VALUE_CHARACTERS} characters")
    if not all(len(key) <= MAX_METADATA_KEY_CHARACTERS for key in value):
        raise fault("invalid_request", f"has a key of more than {MAX_METADATA_KEY_CHARACTERS} characters")
    return tuple(value.items())


def _text_format(value: Any) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise fault("invalid_request", 'must be an object with a type, such as {"type": "text"}')
    if value != {"type": "text"}:
        raise fault("unsupported_field", 'other than {"type": "text"} is not supported: leave it out')


_Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
_Text = Annotated[str, Field(min_length=1)]
_StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_MetadataKey = Annotated[str, Field(max_length=MAX_METADATA_KEY_CHARACTERS)]
_MetadataValue = Annotated[str, Field(max_length=MAX_METADATA_VALUE_CHARACTERS)]

Tier = Annotated[ServiceTier, PlainValidator(_tier, json_schema_input_type=Literal["priority", "default", "flex", "auto"])]
Prompt = Annotated[str | tuple[int, ...], PlainValidator(_prompt, json_schema_input_type=_Text | _Ids)]
Inputs = Annotated[
    tuple[str | tuple[int, ...], ...],
    PlainValidator(_inputs, json_schema_input_type=_Text | _Ids | Annotated[list[_Text | _Ids], Field(min_length=1, max_length=MAX_INPUTS)]),
]
Texts = Annotated[
    tuple[str, ...], PlainValidator(_texts, json_schema_input_type=_Text | Annotated[list[_Text], Field(min_length=1, max_length=MAX_INPUTS)])
]
Stop = Annotated[
    tuple[str, ...], PlainValidator(_stop, json_schema_input_type=_StopString | Annotated[list[_StopString], Field(max_length=MAX_STOP_STRINGS)])
]
StopTokenIds = Annotated[
    tuple[int, ...],
    PlainValidator(_stop_token_ids, json_schema_input_type=Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_STOP_TOKEN_IDS)]),
]
LogitBias = Annotated[
    tuple[tuple[int, float], ...],
    PlainValidator(_logit_bias, json_schema_input_type=Annotated[dict[str, _Bias], Field(max_length=MAX_LOGIT_BIASES)]),
]
Metadata = Annotated[
    tuple[tuple[str, str], ...],
    PlainValidator(_metadata, json_schema_input_type=Annotated[dict[_MetadataKey, _MetadataValue], Field(max_length=MAX_METADATA_PAIRS)]),
]
TextFormat = Annotated[None, PlainValidator(_text_format, json_schema_input_type=dict[Literal["type"], Literal["text"]] | None)]

ModelName = Annotated[str, Field(min_length=1, max_length=256)]
User = Annotated[str, Field(max_length=256)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
