"""Messages of the control topic: cancels from clients, and the workers' own `assigned` records."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from schemas.json_value import dump
from schemas.record import Encoded
from schemas.request import MAX_CUSTOM_ID_CHARACTERS
from schemas.stream_values import WireValue


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ends a request, queued or running."""

    custom_id: str


@dataclass(frozen=True, slots=True)
class Assigned:
    """A worker was assigned partitions (`topic/number`): the record's offset becomes their epoch. Clients ignore it."""

    member: str
    partitions: tuple[str, ...]


class CancelValue(WireValue):
    """Value of a cancel."""

    type: Literal["cancel"]
    custom_id: Annotated[str, Field(min_length=1, max_length=MAX_CUSTOM_ID_CHARACTERS)]


class AssignedValue(WireValue):
    """Value of a worker's own record."""

    type: Literal["assigned"]
    member: str
    partitions: list[str]


_CONTROL: TypeAdapter[CancelValue | AssignedValue] = TypeAdapter(Annotated[CancelValue | AssignedValue, Field(discriminator="type")])


def encode_control(message: Cancel | Assigned) -> Encoded:
    """Makes the record of one message; a cancel's key is its `custom_id`, a worker's own record has none."""
    if isinstance(message, Cancel):
        return Encoded(key=message.custom_id.encode("utf-8"), value=dump({"type": "cancel", "custom_id": message.custom_id}))
    return Encoded(key=None, value=dump({"type": "assigned", "member": message.member, "partitions": message.partitions}))


def decode_control(value: bytes | None) -> Cancel | Assigned | None:
    """Reads the value of one record.

    Anything else than a message that this version knows is None: nobody waits for an answer on this topic, and every
    worker reads it, so one bad record must not reach any of them.
    """
    try:
        read = _CONTROL.validate_json(value or b"")
    except ValidationError:
        return None
    if isinstance(read, CancelValue):
        return Cancel(read.custom_id)
    return Assigned(read.member, tuple(read.partitions))
