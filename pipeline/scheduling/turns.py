"""Prompts and streams in one step, or in a step each: whatever takes less time together.

One step for both saves the fixed part of a second one, and costs what they hinder each other. Where that is more, by more than
predictions are wrong, prompts have a step of their own, and the streams that were in it the next one: both together end before the
step of both would have. So what a target allowed for that step it allows for the two.
"""

from pipeline.scheduling.forecast import Forecast
from pipeline.scheduling.step_model import StepModel

TRIAL = 64
"""Every so many times both share a step all the same: what that costs would be learned from nothing else."""


class Turns:
    """Knows whether it is the turn of streams, whose place in the last step prompts had."""

    def __init__(self, model: StepModel):
        self._model = model
        self._partings = 0
        self.is_streams = False

    def parts(self, forecast: Forecast) -> bool:
        """Tells whether prompts go without the streams this time, which then have the next step; not twice in a row."""
        was_streams, self.is_streams = self.is_streams, False
        if was_streams or not self._model.known:
            return False
        saved_s = forecast.mixing_s - self._model.fixed_s
        if saved_s <= self._model.margin * forecast.seconds:
            return False
        self._partings += 1
        self.is_streams = self._partings % TRIAL != 0
        return self.is_streams
