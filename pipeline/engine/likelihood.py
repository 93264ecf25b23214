"""How likely a model finds a text that is given to it: it is read in chunks, like any prompt, and nothing is sampled after it."""

import math
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from pipeline.engine.base import Likelihood
from pipeline.engine.sampler import TokenLogprobs
from pipeline.scheduling.sequence import Group, Lane, Sequence


@dataclass(frozen=True, slots=True, eq=False)
class GivenText:
    """A text that is validated and tokenised: two tokens at least, and at most as many as the context holds."""

    token_ids: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Reading:
    """A text on its way through the steps, and what is known of it so far."""

    sequence: Sequence
    group: Group
    logprob_sum: float = 0.0

    @classmethod
    def of(cls, text: GivenText, key: int, lane: Lane, now_s: float) -> "Reading":
        """Begins with a text. It has no salt: who scores a text computes all of it, and prompts have a better use for the room of its pages."""
        sequence = Sequence(key=key, lane=lane, prompt_ids=text.token_ids, arrived_s=now_s, is_continued=False)
        sequence.group = group = Group([sequence], scores_prompt=True)
        return cls(sequence, group)

    @property
    def alternatives(self) -> int:
        """Likeliest tokens that are wanted beside each of its own."""
        return 0

    def take(self, scores: Seq[TokenLogprobs]) -> Likelihood | None:
        """Takes the log-probabilities of its next tokens, and tells what is known once these are all."""
        self.logprob_sum += math.fsum(score.chosen for score in scores)
        self.group.scored_tokens += len(scores)
        return None if self.sequence.unscored_tokens else Likelihood(self.logprob_sum, self.group.scored_tokens)
