"""Known controllers as policies of the same scheduler. All but one are given live work first, which most of them leave to the operator."""

from benchmarks.batching.policies.base import Contender
from benchmarks.batching.policies.batches import SizeOrTimeout, StaticBatch
from benchmarks.batching.policies.capped import Aimd, Regression
from benchmarks.batching.policies.fixed import Chunked
from pipeline.scheduling.adaptive import Adaptive
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.step_model import StepModel

__all__ = ["Contender", "adaptive", "fixed_settings", "known"]

ROWS = 64
BUDGET_TOKENS = 1_024
BATCH = 32
TIMEOUT_S = 0.01
UNCUT = 1_024


def adaptive(name: str, model: StepModel, targets: Targets) -> Contender:
    """The policy that serves, told nothing but targets."""
    return Contender(name=name, policy=Adaptive(model, targets), most_sequences=ROWS, token_budget=BUDGET_TOKENS)


def known(ttft_s: float) -> list[Contender]:
    """The known controllers. Those that want a latency goal get half the target: a request waits for the rest of one step and is in the next."""
    goal_s = ttft_s / 2
    return [
        Contender(name=f"static batch of {BATCH}", policy=StaticBatch(BATCH)),
        Contender(name=f"size {BATCH} or {1_000 * TIMEOUT_S:.0f} ms (Triton)", policy=SizeOrTimeout(BATCH, TIMEOUT_S)),
        Contender(name="regression (BentoML)", policy=Regression(goal_s, ROWS)),
        Contender(name="AIMD (Clipper)", policy=Aimd(goal_s, ROWS)),
        Contender(name="token budget, FCFS (vLLM)", policy=FirstCome(), has_one_lane=True),
        Contender(name="token budget, priorities (vLLM)", policy=FirstCome()),
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
