"""Controllers of whole batches: who is in a batch stays until all of it has ended, and nobody joins."""

from benchmarks.batching.policies.base import go_on, let_in
from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.step import Step


class StaticBatch(FirstCome):
    """A batch of at most `size` of those who wait, live ones first; the next one when it has ended. As `generate` of transformers is driven."""

    def __init__(self, size: int):
        self._size = size
        self._open = 0
        """How many may still join the batch that is being formed: a step takes only so many tokens."""

    def fill(self, step: Step) -> Closed:
        """Forms a batch where none is under way, and goes on with it."""
        if not step.running:
            self._open = self._size if self.is_due(step) else 0
        go_on(step)
        self._open -= let_in(step, self._open)
        if step.tokens_left:
            self._open = 0
        return step.why()

    def is_due(self, step: Step) -> bool:
        """Starts with whoever is there."""
        return len(step.waiting) > 0


class SizeOrTimeout(StaticBatch):
    """Waits until a batch is full, or its first request has waited long enough.

    Dynamic batching as in Triton (`preferred_batch_size`, `max_queue_delay_microseconds`), Ray Serve (`max_batch_size`,
    `batch_wait_timeout_s`) and LitServe (`max_batch_size`, `batch_timeout`).
    """

    def __init__(self, size: int, timeout_s: float):
        super().__init__(size)
        self._timeout_s = timeout_s

    def is_due(self, step: Step) -> bool:
        """Tells whether the batch is full or the time is up."""
        waiting = step.waiting
        oldest = [first.arrived_s for lane in Lane if (first := waiting.oldest(lane)) is not None]
        return len(waiting) >= self._size or (bool(oldest) and step.now_s - min(oldest) >= self._timeout_s)
