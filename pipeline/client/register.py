"""The open requests of one client, by name."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from pipeline.client.slots import Slots
from pipeline.client.submission import Submission
from pipeline.client.transcript import Transcript
from schemas.errors import DuplicateRequest

REMEMBERED_NAMES = 10_000
"""Names that the caller chose; each is at most 256 characters, so they stay below 8 MiB."""


class Register:
    """Knows which transcript a reply belongs to, and which names are used up.

    A worker answers a `custom_id` once: sent again by the same client it joins the first request, and nothing more is
    written. So a name is refused here rather than left waiting.
    """

    def __init__(self, slots: Slots):
        self._slots = slots
        self._open: dict[str, Transcript] = {}
        self._used: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, submission: Submission, transcript: Transcript) -> None:
        """Opens a request, which holds a slot until it is settled or withdrawn.

        Raises:
            DuplicateRequest: The name was used before; the slot is free again.
        """
        custom_id = submission.custom_id
        with self._lock:
            is_known = custom_id in self._open or custom_id in self._used
            if not is_known:
                self._open[custom_id] = transcript
                self._remember(submission)
        if is_known:
            self._slots.give()
            raise DuplicateRequest(f"custom_id {custom_id!r} was submitted before: it names one request, pick another", param="custom_id")

    def find(self, custom_id: str) -> Transcript | None:
        """The transcript of an open request."""
        return self._open.get(custom_id)

    def is_empty(self) -> bool:
        """Tells whether nothing is open."""
        return not self._open

    def settle(self, custom_id: str) -> None:
        """Closes a request that has its answer."""
        with self._lock:
            transcript = self._open.pop(custom_id, None)
        if transcript is not None:
            self._slots.give()

    def withdraw(self, custom_id: str) -> None:
        """Closes a request that did not go out, so that its name may be used again."""
        with self._lock:
            self._used.pop(custom_id, None)
        self.settle(custom_id)

    def fail_all(self, fault: Callable[[], Exception]) -> None:
        """Closes every open request without an answer."""
        with self._lock:
            transcripts = tuple(self._open.values())
        for transcript in transcripts:
            transcript.fail(fault)
            self.settle(transcript.custom_id)

    def _remember(self, submission: Submission) -> None:
        if submission.is_named:
            self._used[submission.custom_id] = None
            if len(self._used) > REMEMBERED_NAMES:
                self._used.popitem(last=False)
