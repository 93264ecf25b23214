"""The scheduler's account of each step."""

from pipeline.scheduling.explanation import Closed
from pipeline.scheduling.scheduler import Scheduler
from pipeline.scheduling.sequence import Lane, Sequence
from tests.scheduling.running import run, scheduler


def stepped(s: Scheduler, now_s: float = 0.0, measured_s: float = 0.01) -> Closed:
    """Runs one step and tells why its batch closed."""
    batch = s.plan(now_s)
    run(s, batch)
    s.close(batch, measured_s)
    return s.history.last().reason


def test_a_closed_batch_tells_what_was_in_it_and_why_no_more():
    """Lanes, tenants, blocks and times are those of the step; who is left waiting is counted by lane."""
    s = scheduler(max_sequences=2, token_budget=16)
    s.add(Sequence(key=1, prompt_ids=(1,) * 4, tenant="a"))
    stepped(s, 1.0)
    s.add(Sequence(key=2, prompt_ids=(2,) * 6, tenant="b", lane=Lane.FLEX))
    s.add(Sequence(key=3, prompt_ids=(3,) * 6, tenant="b", lane=Lane.FLEX))
    assert stepped(s, 2.0, 0.25) is Closed.MAX_SEQUENCES
    first, second = s.history.read()
    assert (first.number, first.reason, first.tenants) == (1, Closed.QUEUE_EMPTY, {"a": 4})
    assert (second.number, second.started_s, second.measured_s, second.token_budget) == (2, 2.0, 0.25, 16)
    assert second.tenants == {"a": 1, "b": 6}
    assert (second.sequences, second.tokens) == (2, 7)
    share = second.lanes[Lane.FLEX]
    assert (share.decodes, share.prefill_chunks, share.prefill_tokens, share.waiting) == (0, 1, 6, 1)
    assert second.lanes[Lane.DEFAULT].decodes == 1
    assert second.lanes[Lane.PRIORITY].waiting == 0
    assert (second.kv_blocks_used, second.kv_blocks_total) == (s.pool.used, 64)


def test_each_shortage_has_its_own_name():
    """Tokens, blocks, rows, or nothing left to run."""
    s = scheduler(blocks=4, token_budget=8, max_sequences=2)
    s.add(Sequence(key=1, prompt_ids=(1,) * 12))
    assert stepped(s) is Closed.BUDGET
    s.add(Sequence(key=2, prompt_ids=(2,) * 12))
    assert stepped(s) is Closed.KV_BLOCKS
    s.finish(next(iter(s.waiting)))
    assert stepped(s) is Closed.QUEUE_EMPTY


def test_the_history_is_bounded_and_a_step_without_work_is_not_in_it():
    """The oldest go; what computed nothing explains nothing."""
    s = scheduler(blocks=1_000)
    stepped_before = s.plan(0.0)
    s.close(stepped_before, 0.1)
    assert s.history.last() is None
    s.add(Sequence(key=1, prompt_ids=(1,)))
    for _ in range(600):
        stepped(s)
    assert [batch.number for batch in s.history.read()] == list(range(90, 602))
