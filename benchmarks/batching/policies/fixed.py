"""Fixed settings: what an operator would have to tune by hand. The number of rows and the token budget are the engine's, see `Contender`."""

from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.step import Step


class Chunked(FirstCome):
    """First come, first served, lane by lane; no more of a prompt in one step than a chunk."""

    def __init__(self, chunk_tokens: int):
        self._chunk_tokens = chunk_tokens

    def fill(self, step: Step) -> Closed:
        """Takes all that runs, then all that waits."""
        step.displace()
        for sequence in step.decoding():
            step.decode(sequence)
        for sequence in step.prefills():
            step.prefill(sequence, self._chunk_tokens)
        return step.why()
