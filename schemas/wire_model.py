"""What all bodies share: frozen, strict, closed to unknown names, and a null means that the field is absent."""

from functools import cache
from typing import Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator

from schemas.faults import fault


class WireModel(BaseModel):
    """Base of everything that a requester writes.

    `unsupported` lists fields that OpenAI or vLLM define at this place and Penstock does not serve: they are refused as
    such, so that the requester does not look for a typing error. A null in an optional field, or in one of those, is what
    OpenAI's clients send for "not set". Fields that hold text of the requester stay out of `repr`, and so out of logs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    unsupported: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _keep_known_names(cls, data: Any) -> Any:
        """Refuses names before values are looked at, and drops nulls."""
        if not isinstance(data, dict):
            return data
        known = names_of(cls)
        for name, value in data.items():
            if name in known or (name in cls.unsupported and value is None):
                continue
            if name in cls.unsupported:
                raise fault("unsupported_field", "is a field of the API that Penstock does not support: leave it out", at=name)
            raise fault("unsupported_field", "is not a field of this endpoint: check its spelling or leave it out", at=name)
        return {name: value for name, value in data.items() if value is not None}


@cache
def names_of(model: type[BaseModel]) -> frozenset[str]:
    """Every name that a field of the model goes by."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        names.update(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else names.add(name)
    return frozenset(names)
