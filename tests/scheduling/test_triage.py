"""Live requests of which not all can be on time."""

from random import Random

from pipeline.scheduling.pace import Targets
from pipeline.scheduling.sequence import Group, Lane, Sequence
from tests.scheduling.machine import Machine, adaptive

TARGET = Targets(ttft_s=0.15)


def crowd(machine: Machine, draw: Random, per_s: float, until_s: float) -> dict[int, float]:
    """Sends more prompts, long and short ones, than can be computed in time; tells when each came."""
    arrived, next_s = {}, [machine.now_s]

    def arrive() -> None:
        while next_s[0] <= machine.now_s:
            arrived[machine.send(draw.choice((20, 20, 200)), 4, arrived_s=next_s[0]).key] = next_s[0]
            next_s[0] += draw.expovariate(per_s)

    machine.run(until_s, arrive)
    return arrived


def on_time(machine: Machine, arrived: dict[int, float]) -> int:
    """How many had their first token within the target."""
    return sum(machine.first_s.get(key, 1e9) - arrived_s <= TARGET.ttft_s for key, arrived_s in arrived.items())


def test_of_too_many_as_many_as_possible_are_on_time():
    """Twice as many at least as by due time alone, where everybody is late because of everybody before."""
    ours, first_come = Machine(adaptive(TARGET)), Machine(adaptive(TARGET))
    first_come.scheduler.policy._triage.defer_late = lambda _: None
    arrived = crowd(ours, Random(1), 60.0, 8.0)
    others = crowd(first_come, Random(1), 60.0, 8.0)
    assert on_time(ours, arrived) > 2 * on_time(first_come, others)


def test_where_there_is_time_for_all_nobody_is_deferred():
    """They begin in the order in which they came, the long ones too."""
    machine = Machine(adaptive(TARGET))
    keys = [machine.send(tokens, 4).key for tokens in (100, 20, 60, 20)]
    machine.run(0.3)
    assert all(machine.first_s[key] <= TARGET.ttft_s for key in keys)
    assert sorted(keys, key=lambda key: machine.first_s[key]) == keys
    assert machine.scheduler.waiting.deferrals_total == 0


def test_a_long_prompt_gives_way_to_the_short_ones_behind_it():
    """And is served as soon as they are, though it is late then."""
    machine = Machine(adaptive(TARGET, token_budget=1_024))
    long = machine.send(700, 4)
    short = [machine.send(40, 4, arrived_s=-0.08) for _ in range(3)]
    machine.run(1.0)
    assert all(machine.first_s[one.key] - one.arrived_s <= TARGET.ttft_s for one in short)
    assert machine.first_s[long.key] < 0.5
    assert machine.scheduler.waiting.deferrals_total == 1


def test_what_is_found_in_the_cache_is_not_taken_for_work():
    """A long prompt whose beginning is known is as short as its rest."""
    machine = Machine(adaptive(TARGET, token_budget=1_024))
    first = machine.send(480, 2)
    first.salt = "mine"
    machine.run(1.0)
    again = machine.send(480, 2, arrived_s=machine.now_s)
    again.prompt_ids, again.salt = first.prompt_ids, "mine"
    others = [machine.send(100, 2, arrived_s=machine.now_s) for _ in range(5)]
    machine.step()
    assert again.urgency[0] == again.arrived_s + TARGET.ttft_s
    assert any(other.urgency[0] > other.arrived_s + TARGET.ttft_s for other in others)


def test_choices_of_one_request_count_their_prompt_once():
    """Four of them are let in beside a neighbour, as one would be."""
    machine = Machine(adaptive(TARGET, token_budget=1_024))
    choices = [Sequence(key=1, index=index, prompt_ids=(7,) * 200, max_output_tokens=4) for index in range(4)]
    group = Group(choices)
    machine.wanted[1] = 4
    for choice in choices:
        choice.group = group
        machine.scheduler.add(choice)
    neighbour = machine.send(100, 4)
    machine.step()
    assert all(one.urgency[0] == TARGET.ttft_s for one in (*choices, neighbour))


def test_tenants_are_judged_by_their_share():
    """Who sends little is on time beside a crowd, whatever the crowd gives up."""
    machine, waits_s = Machine(adaptive(TARGET)), []
    draw, next_s = Random(3), [0.0, 0.0]

    def arrive() -> None:
        while next_s[0] <= machine.now_s:
            machine.send(60, 4, tenant="crowd", arrived_s=next_s[0])
            next_s[0] += draw.expovariate(80.0)
        if next_s[1] <= machine.now_s:
            waits_s.append((machine.send(60, 4, tenant="quiet", arrived_s=next_s[1]).key, next_s[1]))
            next_s[1] += 0.5

    machine.run(6.0, arrive)
    ended = [machine.first_s[key] - arrived_s for key, arrived_s in waits_s if key in machine.first_s]
    assert len(ended) >= 10
    assert sum(wait_s <= TARGET.ttft_s for wait_s in ended) >= 0.9 * len(ended)


def test_without_a_target_nobody_is_deferred():
    """First come, first served, in both lanes of live work."""
    ours = Machine(adaptive())
    keys = [ours.send(200, 4, lane).key for lane in (Lane.DEFAULT, Lane.DEFAULT, Lane.PRIORITY)]
    ours.run(1.0)
    assert sorted(keys, key=lambda key: ours.first_s[key]) == [keys[2], keys[0], keys[1]]
    assert ours.scheduler.waiting.deferrals_total == 0
