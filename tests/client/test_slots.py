"""The bound on open requests."""

from concurrent.futures import Future

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client.slots import Slots


def held(futures: list[Future[None]]) -> int:
    """How many of them have a slot."""
    return sum(future.done() and not future.cancelled() for future in futures)


def test_waiters_are_served_in_order():
    """A slot that is given back goes to whoever has waited longest and still does."""
    slots = Slots(1)
    first, second, third = slots.take(), slots.take(), slots.take()
    assert [f.done() for f in (first, second, third)] == [True, False, False]
    slots.withdraw(second)
    slots.give()
    assert third.done()


@settings(deadline=None)
@given(limit=st.integers(1, 3), steps=st.lists(st.sampled_from(["take", "give", "withdraw first", "withdraw last"]), max_size=40))
def test_slots_are_never_lost_and_never_exceeded(limit: int, steps: list[str]):
    """However callers take, give back and give up, at most `limit` hold a slot, and nobody waits while one is free."""
    slots, futures = Slots(limit), []
    for step in steps:
        if step == "take":
            futures.append(slots.take())
        elif step == "give" and held(futures):
            futures.remove(next(f for f in futures if f.done()))
            slots.give()
        elif step.startswith("withdraw") and futures:
            slots.withdraw(futures.pop(0 if step.endswith("first") else -1))
        assert held(futures) == min(limit, len(futures))
