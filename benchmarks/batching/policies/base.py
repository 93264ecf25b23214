"""What takes part: a policy, and the size of the engine that it is given."""

from dataclasses import dataclass

from pipeline.scheduling.blocks import BlockPool
from pipeline.scheduling.policy import Policy
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane
from pipeline.scheduling.step import Step


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Contender:
    """A policy by its name. What it learned stays with it from run to run.

    One with `has_one_lane` knows no service tiers: it is given live and flex work in one queue.
    """

    name: str
    policy: Policy
    most_sequences: int = 64
    token_budget: int = 1_024
    has_one_lane: bool = False

    def scheduler(self, pool: BlockPool) -> Scheduler:
        """Gives it a scheduler over a cache in which nothing is held."""
        return Scheduler(pool, max_sequences=self.most_sequences, token_budget=self.token_budget, policy=self.policy)


def go_on(step: Step) -> None:
    """Computes all that runs: a token of each stream, and what is left of prompts that were let in."""
    for sequence in step.decoding():
        step.decode(sequence)
    for sequence in [s for s in step.running if s.pending_tokens > 1]:
        step.prefill(sequence, step.tokens_left)


def let_in(step: Step, most: int) -> int:
    """Lets in at most so many that wait, live ones first, whole prompts as long as there are tokens; returns how many."""
    count = 0
    for lane in Lane:
        while count < most and (head := step.waiting.first(lane)) is not None and step.admits(head) and step.prefill(head, step.tokens_left):
            count += 1
    return count
