"""Bounds on a request record, checked before it is parsed."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a request record may be.

    `headers` counts them, `header_bytes` adds up their names and values, `rows` counts the requests of one Arrow record.
    """

    record_bytes: int = MIB
    headers: int = 64
    header_bytes: int = 16 * KIB
    rows: int = 4_096
