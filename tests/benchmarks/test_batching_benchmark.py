"""The parts of `python -m benchmarks.batching` that need no engine: arrivals, policies, the simulator and what is made of their figures."""

import json
import math
from itertools import islice
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report
from benchmarks.batching import fleet
from benchmarks.batching.arrivals import Arrival, Ask, Bursts, Lengths, flex, live
from benchmarks.batching.frontier import Point, best_within, frontier
from benchmarks.batching.outcome import Goal, Outcome, Watched, quantile
from benchmarks.batching.parts import step_model
from benchmarks.batching.policies import Contender, Size, adaptive, fixed_settings, known
from benchmarks.batching.policies.batches import SizeOrTimeout, StaticBatch
from benchmarks.batching.policies.capped import Aimd, Regression
from benchmarks.batching.serving import Run, Span
from benchmarks.batching.simulator import Costs, SimulatedServer, shares
from benchmarks.batching.stage import Stage
from benchmarks.batching.svg import Axis, Series, chart
from pipeline.scheduling.batch import Batch
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.sequence import Lane, Sequence
from pipeline.scheduling.step_model import Load, StepModel, Terms

COSTS = Costs(Terms(step=0.006, prefill_tokens=1e-4, decodes=2e-4), scatter=0.0)
SPAN = Span(settle_s=0.5, measured_s=2.0, grace_s=1.0)


def first_come(**sizes: int) -> Contender:
    """The plain policy."""
    return Contender(name="first come", policy=FirstCome(), **sizes)


def batch(size: int) -> Batch:
    """A step of so many decodes."""
    return Batch([Sequence(key=n, prompt_ids=(1,)) for n in range(size)], [], [], [])


def ask(prompt_tokens: int = 10, output_tokens: int = 4) -> Ask:
    """A request of so many tokens."""
    return Ask(tuple(range(prompt_tokens)), output_tokens)


def test_arrivals_are_the_same_for_the_same_seed():
    """And others for another."""
    drawn = [[(a.at_s, a.ask.prompt_ids) for a in live(Lengths(), Bursts(per_s=20.0), 10.0, seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert [a.prompt_ids for a in islice(flex(Lengths(), 3), 5)] == [a.prompt_ids for a in islice(flex(Lengths(), 3), 5)]


def test_requests_come_ten_times_as_fast_in_a_burst_and_at_the_rate_on_average():
    """Over five minutes, within a tenth."""
    import random

    bursts, source = Bursts(per_s=20.0), random.Random(0)
    starts = bursts.starts(300.0, source)
    times = list(bursts.times(300.0, starts, source))
    inside = sum(any(start <= at_s < start + 0.5 for start in starts) for at_s in times)
    assert len(times) == pytest.approx(6_000, rel=0.1)
    assert (inside / 30.0) / ((len(times) - inside) / 270.0) == pytest.approx(10.0, rel=0.1)


def test_lengths_are_log_normal_within_their_bounds():
    """The median is as asked for."""
    drawn = sorted(a.output_tokens for a in islice(flex(Lengths(), 0), 2_000))
    assert drawn[1_000] == pytest.approx(32, abs=2)
    assert 4 <= drawn[0] <= drawn[-1] <= 256


def test_a_request_that_finds_the_engine_busy_has_waited_since_it_was_due():
    """A step of a second is under way when it comes: no coordinated omission."""
    server = SimulatedServer(Costs(Terms(step=1.0), scatter=0.0))
    arrivals = [Arrival(0.0, ask(output_tokens=1)), Arrival(0.25, ask(output_tokens=1))]
    outcome = Run(server, first_come(), Span(settle_s=0.0, measured_s=2.0, grace_s=5.0), arrivals, None).go()
    assert [w.ttft_s for w in outcome.live] == [1.0, 1.75]


def test_who_never_ends_counts_as_late():
    """A policy that serves nobody has an infinite p95 and no goodput."""

    class Idle(FirstCome):
        def fill(self, step):
            return step.why()

    outcome = Run(SimulatedServer(COSTS), Contender(name="idle", policy=Idle()), SPAN, [Arrival(1.0, ask())], None).go()
    assert math.isinf(outcome.ttft_s(0.95))
    assert outcome.goodput_per_s(Goal(ttft_s=1e9, tpot_s=1e9)) == 0.0


def test_the_simulator_takes_the_time_that_a_batch_costs():
    """One request: its prompt, then a token a step."""
    server = SimulatedServer(Costs(Terms(step=0.01, prefill_tokens=0.001, decodes=0.002), scatter=0.0, between=0.001))
    server.begin(first_come())
    server.add(1, ask(10, 3), Lane.DEFAULT, 0.0)
    ends = []
    while server.scheduler.has_work():
        assert server.step() is not None
        ends.append(server.now_s())
    assert ends == pytest.approx([0.021, 0.034, 0.047])
    assert server.step() is None


@pytest.mark.parametrize("contender", [*known(0.1), *fixed_settings(), adaptive("ours", StepModel(), Targets(ttft_s=0.1))], ids=lambda c: c.name)
def test_every_contender_serves_both_lanes_and_leaves_nothing_behind(contender: Contender):
    """Live requests and the backlog get tokens; afterwards all blocks are free."""
    server = SimulatedServer(COSTS, blocks=1_024)
    outcome = Run(server, contender, SPAN, live(Lengths(), Bursts(per_s=6.0), SPAN.end_s, 1), flex(Lengths(), 1)).go()
    assert outcome.flex_tokens > 0
    assert outcome.live_tokens > 0
    assert server.scheduler.pool.free == server.scheduler.pool.total


def test_no_run_finds_the_prompts_of_another_in_the_cache(monkeypatch):
    """The same arrivals and backlog, twice: as long, and different from the first token on."""
    heard: list[tuple[int, ...]] = []
    plain = SimulatedServer.add
    monkeypatch.setattr(SimulatedServer, "add", lambda self, key, ask, *rest: (heard.append(ask.prompt_ids), plain(self, key, ask, *rest))[1])
    prompts = []
    for _ in range(2):
        heard.clear()
        Run(SimulatedServer(COSTS), first_come(), SPAN, live(Lengths(), Bursts(per_s=6.0), SPAN.end_s, 1), None).go()
        prompts.append(list(heard))
    assert [len(prompt) for prompt in prompts[0]] == [len(prompt) for prompt in prompts[1]] != []
    assert not {prompt[0] for prompt in prompts[0]} & {prompt[0] for prompt in prompts[1]}


def test_nobody_joins_a_static_batch():
    """The third request waits for the end of the batch of two."""
    server = SimulatedServer(COSTS)
    server.begin(Contender(name="static", policy=StaticBatch(2)))
    for key in (1, 2, 3):
        server.add(key, ask(output_tokens=5), Lane.DEFAULT, 0.0)
    steps = []
    while server.scheduler.has_work():
        steps.append(sorted(key for key, _, _ in server.step() or ()))
    assert steps == [[1, 2]] * 5 + [[3]] * 5


def test_a_batch_starts_when_it_is_full_or_its_time_is_up():
    """Alone the first waits for the timeout; with enough company for nothing."""
    server = SimulatedServer(COSTS)
    server.begin(Contender(name="timeout", policy=SizeOrTimeout(2, timeout_s=0.05)))
    server.add(1, ask(), Lane.DEFAULT, 0.0)
    assert server.step() is None
    server.wait(0.05)
    assert server.step() is not None
    server.clear()
    server.begin(Contender(name="timeout", policy=SizeOrTimeout(2, timeout_s=0.05)))
    for key in (2, 3):
        server.add(key, ask(), Lane.DEFAULT, 0.0)
    assert server.step() is not None


def test_aimd_grows_by_one_and_shrinks_by_a_tenth():
    """Only a batch that was full says that there is room for more."""
    policy = Aimd(goal_s=0.1, most=64)
    for size in (1, 2, 1):
        policy.observe(batch(size), 0.0, 0.05, is_whole=True)
    assert policy.limit == 3.0
    policy.observe(batch(3), 0.0, 0.2, is_whole=True)
    assert policy.limit == pytest.approx(2.7)


def test_regression_finds_the_batch_that_ends_in_time():
    """Latency is 10 ms and 2 ms for each request: 45 of them take 100 ms."""
    policy = Regression(goal_s=0.1, most=64)
    for size in (4, 8, 16):
        policy.observe(batch(size), 0.0, 0.01 + 0.002 * size, is_whole=True)
    assert policy.limit == pytest.approx(45.0)


def test_under_overload_more_live_requests_are_on_time_than_under_any_known_controller():
    """Live traffic that takes seven tenths of the engine, with bursts: the policy that serves, beside all others."""
    stage = Stage(
        server=SimulatedServer(COSTS, seed=1),
        lengths=Lengths(),
        span=Span(settle_s=1.0, measured_s=8.0, grace_s=1.0),
        bursts=Bursts(per_s=0.0),
        baseline_rounds=1,
    )
    baseline = stage.baseline
    goal = baseline.goal(1.0)
    ours = adaptive("ours", baseline.model(), Targets(ttft_s=goal.ttft_s, tpot_s=goal.tpot_s))
    outcomes = stage.round([ours, *known(goal.ttft_s)[2:]], seed=1, per_s=stage.rate(0.7, baseline.flex))
    good = [outcome.goodput_per_s(goal) for outcome in outcomes]
    assert good[0] > max(good[1:])


def test_requests_are_dealt_to_the_workers_of_a_fleet_by_partition():
    """Each to one worker, about evenly, in order."""
    arrivals = live(Lengths(), Bursts(per_s=100.0), 10.0, 0)
    dealt = shares(arrivals, 4, partitions=16, seed=0)
    assert sorted(a.at_s for part in dealt for a in part) == [a.at_s for a in arrivals]
    assert min(map(len, dealt)) > len(arrivals) / 8
    assert all([a.at_s for a in part] == sorted(a.at_s for a in part) for part in dealt)


def test_the_frontier_is_what_nobody_beats_in_both():
    """Of two that are equally fast, the one with more throughput."""
    points = [Point(name=n, ttft_p95_ms=ms, share=s) for n, ms, s in (("a", 10, 0.3), ("b", 20, 0.2), ("c", 20, 0.6), ("d", 40, 0.9))]
    assert [p.name for p in frontier(points)] == ["a", "c", "d"]
    assert best_within(points, 30).name == "c"
    assert best_within(points, 5) is None


def test_a_good_request_meets_both_targets():
    """In time for its first token, and fast enough after it."""
    watched = Watched(due_s=1.0, prompt_tokens=4, first_s=1.1, last_s=1.5, tokens=5, has_ended=True)
    outcome = Outcome(seconds=2.0, live=[watched])
    assert outcome.goodput_per_s(Goal(ttft_s=0.11, tpot_s=0.11)) == 0.5
    assert outcome.goodput_per_s(Goal(ttft_s=0.09, tpot_s=0.11)) == 0.0
    assert outcome.goodput_per_s(Goal(ttft_s=0.11, tpot_s=0.09)) == 0.0
    assert math.isnan(quantile([], 0.5))


def test_a_chart_is_an_image_with_every_point():
    """Well-formed, its points within the picture, names escaped."""
    series = [Series(name="<a>", points=[(1.0, 0.0), (1e9, 2.0)]), Series(name="b", points=[(10.0, 0.5)], is_line=False)]
    image = ET.fromstring(chart("t & u", Axis(label="x", low=1.0, high=1_000.0, is_log=True), Axis(label="y", low=0.0, high=1.0), series))
    circles = image.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3 + 2  # with those of the legend
    assert all(0 <= float(c.get("cx")) <= 640 and 0 <= float(c.get("cy")) <= 400 for c in circles)


def test_the_step_model_is_judged_by_what_it_said_before_and_by_what_repeats():
    """On a machine without unrest nothing is left of the spread, and next to nothing of the error."""
    stage = Stage(server=SimulatedServer(COSTS), lengths=Lengths(), span=SPAN, bursts=Bursts(per_s=0.0))
    result = step_model.run(stage, "simulated", rounds=1, is_short=True)
    assert result["met"]
    assert result["rows"][0]["steps"] == step_model.JUDGED_STEPS
    assert result["rows"][0]["error_p95"] < 0.02
    assert result["repeated"][0]["spread_p95"] < 0.01
    assert result["repeated"][0]["missed"] < 0.02


def test_a_fleet_on_paper_begins_with_what_a_worker_learned(tmp_path, monkeypatch):
    """Every contender serves the same requests, dealt out to both workers, which work side by side."""
    model = StepModel()
    for size in range(1, 200):
        load = Load()
        load.decodes, load.kv_tokens = size % 32, 50 * (size % 32)
        load.add_chunk(0, 1 + size % 7)
        model.observe(load, COSTS.terms.step + COSTS.terms.decodes * load.decodes + COSTS.terms.prefill_tokens * load.prefill_tokens)
    kept = tmp_path / "learned.json"
    kept.write_text(json.dumps(model.to_json()))
    for name, value in {"SIZE": Size(32, 256), "LENGTHS": Lengths(), "LOADS": (0.4,), "SHORT_SPAN": SPAN}.items():
        monkeypatch.setattr(fleet, name, value)
    monkeypatch.setattr(report, "OUT", tmp_path)
    fleet.main(workers=2, learned=kept, is_short=True)
    told = json.loads((tmp_path / "batching-fleet.json").read_text())
    assert told["costs_s"]["step"] == pytest.approx(COSTS.terms.step, rel=0.1)
    assert len(told["rows"]) == 1 + len(known(0.1))
    assert len({row["live"] for row in told["rows"]}) == 1
    assert told["rows"][0]["what"] == "adaptive"
    assert 0.75 < told["rows"][0]["of_flex_alone"] < 1.5
