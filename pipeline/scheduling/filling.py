"""A step that is filled by the clock: what goes in is added up in predicted time."""

import math

from pipeline.scheduling.forecast import Forecast
from pipeline.scheduling.sequence import Sequence
from pipeline.scheduling.step import Step

LEAST_CHUNK_TOKENS = 16
"""A shorter piece of a prompt is not worth its own place in a step."""


class Filling:
    """A step and its forecast, which only ever grow together. `is_cut` is set once something was left out for its time, `is_parted` for its kind."""

    def __init__(self, step: Step, forecast: Forecast):
        self.step = step
        self.forecast = forecast
        self.is_cut = self.is_parted = False

    def decode(self, sequences: list[Sequence], limit_s: float = math.inf) -> None:
        """Puts in the decodes that keep the step within a limit; where not all do, those that were left out longest."""
        forecast = self.forecast
        kv_tokens = sum([s.computed_tokens for s in sequences])
        if forecast.seconds + forecast.decodes_s(len(sequences), kv_tokens) <= limit_s:
            if self.step.decode_all(sequences):
                forecast.add_decodes(len(sequences), kv_tokens)
                return
            put = [s for s in sequences if self.step.decode(s)]
            forecast.add_decodes(len(put), sum([s.computed_tokens for s in put]))
            return
        for sequence in sorted(sequences, key=_turn):
            if forecast.seconds + forecast.decodes_s(1, sequence.computed_tokens) > limit_s:
                self.is_cut = True
                return
            if self.step.decode(sequence):
                forecast.add_decodes(1, sequence.computed_tokens)

    def prefill(self, sequence: Sequence, limit_s: float = math.inf) -> int:
        """Puts in as much of a prompt as keeps the step within a limit, if that is a piece worth its place; returns the tokens."""
        pending = sequence.pending_tokens
        tokens = self.forecast.tokens_within(limit_s, sequence)
        self.is_cut |= tokens < pending
        return self.put(sequence, tokens) if tokens >= min(pending, LEAST_CHUNK_TOKENS) else 0

    def put(self, sequence: Sequence, most_tokens: int) -> int:
        """Puts in at most so many tokens of a prompt, whatever time they take."""
        batch = self.step.batch
        chunks = len(batch.prefills)
        tokens = self.step.prefill(sequence, most_tokens)
        if len(batch.prefills) > chunks:
            self.forecast.add_chunk(batch.prefills[-1].start, tokens)
        elif tokens:
            self.forecast.add_decodes(1, sequence.computed_tokens)
        return tokens


def _turn(sequence: Sequence) -> tuple[int, int]:
    """Orders by who was served longest ago, then by who has had less: by rank alone the first would have two turns to the others' one."""
    return sequence.served_step, len(sequence.output_ids)
