"""A lane and, later in the file, what the scheduler keeps of one choice of one request."""

from enum import IntEnum


class Lane(IntEnum):
    """Order of service, by `service_tier`: a lower number goes first."""

    PRIORITY = 0
    DEFAULT = 1
    FLEX = 2
