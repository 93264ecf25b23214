"""Known controllers as policies of the same scheduler. All but one are given live work first, which most of them leave to the operator."""

from typing import NamedTuple

from benchmarks.batching.policies.base import Contender
from benchmarks.batching.policies.batches import SizeOrTimeout, StaticBatch
from benchmarks.batching.policies.capped import Aimd, Regression
from benchmarks.batching.policies.fixed import Chunked
from pipeline.scheduling.adaptive import Adaptive
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.policy import FirstCome, Policy
from pipeline.scheduling.step_model import StepModel

__all__ = ["SIZE", "Contender", "Size", "adaptive", "fixed_settings", "known"]

FIRST_COME = "token budget, FCFS (vLLM)"
TIMEOUT_S = 0.01
UNCUT = 1_024


class Size(NamedTuple):
    """How large an engine is: rows, and tokens of a step."""

    sequences: int = 64
    tokens: int = 1_024


SIZE = Size()


def adaptive(name: str, model: StepModel, targets: Targets, size: Size = SIZE) -> Contender:
    """The policy that serves, told nothing but targets."""
    return Contender(name=name, policy=Adaptive(model, targets), most_sequences=size.sequences, token_budget=size.tokens)


def known(ttft_s: float, size: Size = SIZE) -> list[Contender]:
    """The known controllers; batches of fixed size have half the rows.

    Those that want a latency goal get half the target: a request waits for the rest of one step and is in the next.
    """
    goal_s, batch = ttft_s / 2, size.sequences // 2
    policies: list[tuple[str, Policy]] = [
        (f"static batch of {batch}", StaticBatch(batch)),
        (f"size {batch} or {1_000 * TIMEOUT_S:.0f} ms (Triton)", SizeOrTimeout(batch, TIMEOUT_S)),
        ("regression (BentoML)", Regression(goal_s, size.sequences)),
        ("AIMD (Clipper)", Aimd(goal_s, size.sequences)),
        (FIRST_COME, FirstCome()),
        ("token budget, priorities (vLLM)", FirstCome()),
    ]
    return [
        Contender(name=name, policy=policy, most_sequences=size.sequences, token_budget=size.tokens, has_one_lane=name == FIRST_COME)
        for name, policy in policies
    ]


def fixed_settings(*, is_short: bool = False) -> list[Contender]:
    """A sweep over rows, token budget and chunk."""
    rows = (64, 16) if is_short else (64, 32, 16, 8)
    budgets = ((1_024, UNCUT), (96, 32))
    return [
        Contender(
            name=f"{sequences} x {budget} x {'-' if chunk == UNCUT else chunk}",
            policy=Chunked(chunk),
            most_sequences=sequences,
            token_budget=budget,
        )
        for sequences in rows
        for budget, chunk in budgets
    ]
