"""The predicted time of one step while it is put together."""

import math

from pipeline.scheduling.sequence import Sequence
from pipeline.scheduling.step_model import Load, StepModel, Terms


class Forecast:
    """Starts with the part that every step has, and grows with what is put in. While nothing is learned yet, all of it is 0."""

    def __init__(self, model: StepModel):
        seconds = model.seconds if model.known else Terms()
        self.seconds = self._fixed_s = seconds.step
        self.load = Load()
        self._prefill_s, self._decode_s, self._read_s = seconds.prefill_tokens, seconds.decodes, seconds.kv_tokens
        self._attend_s, self._mixed_s, self._chunk_s = seconds.prefill_context, seconds.mixed, seconds.chunks

    @property
    def mixing_s(self) -> float:
        """The part that is due to prompts and streams sharing the step."""
        return self._mixed_s * self.load.prefill_tokens * self.load.decodes

    def alone_s(self, sequence: Sequence) -> float:
        """Tells what a step of nothing but a sequence's pending tokens takes."""
        return self._fixed_s + self.chunk_s(sequence.computed_tokens, sequence.pending_tokens)

    def chunk_s(self, start: int, count: int) -> float:
        """Tells what a part of a prompt adds to a step without streams."""
        return self._chunk(start, count, self._prefill_s)

    def decodes_s(self, decodes: int, kv_tokens: int) -> float:
        """Tells what so many further decodes cost that read so many tokens together."""
        return decodes * (self._decode_s + self._mixed_s * self.load.prefill_tokens) + kv_tokens * self._read_s

    def add_decodes(self, decodes: int, kv_tokens: int) -> None:
        """Takes them in."""
        self.seconds += self.decodes_s(decodes, kv_tokens)
        self.load.decodes += decodes
        self.load.kv_tokens += kv_tokens

    def tokens_within(self, limit_s: float, sequence: Sequence) -> int:
        """Tells how many of a sequence's pending tokens keep the step within a limit: the root of what they cost, which is quadratic in them."""
        pending = sequence.pending_tokens
        if math.isinf(limit_s):
            return pending
        start = sequence.computed_tokens
        left_s = limit_s - self.seconds - self._chunk_s - start * self._read_s
        if left_s <= 0.0:
            return 0
        each_s = self._prefill_s + self._mixed_s * self.load.decodes + self._attend_s * start
        if self._attend_s > 0.0:
            count = (math.sqrt(each_s * each_s + 2 * self._attend_s * left_s) - each_s) / self._attend_s
        else:
            count = left_s / each_s if each_s else math.inf
        return int(min(count, pending))

    def add_chunk(self, start: int, count: int) -> None:
        """Takes in a part of a prompt."""
        self.seconds += self._chunk(start, count, self._prefill_s + self._mixed_s * self.load.decodes)
        self.load.add_chunk(start, count)

    def _chunk(self, start: int, count: int, each_s: float) -> float:
        return self._chunk_s + count * each_s + start * self._read_s + count * (start + count / 2) * self._attend_s
