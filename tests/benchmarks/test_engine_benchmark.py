"""The parts of `python -m benchmarks.engine` that need no engine, and one contender's process."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.child import Failed
from benchmarks.engine.contenders.base import Setup, drive
from benchmarks.engine.limits import Machine, Size, decode_cost, least, prefill_flops, size_of
from benchmarks.engine.loads import Ask, Load, asks, loads
from benchmarks.engine.measured import Clock, Measured
from benchmarks.engine.models import SHAPES
from benchmarks.engine.peers import needed
from benchmarks.engine.process import Process, Ran
from benchmarks.engine.table import Results, columns, quantile, ratios, row
from pipeline.models import TINY

SIZE = Size(body=1_000, head=100, layers=2, query_width=8, kv_width=4, number_bytes=4)
MEMORY_BOUND = Machine(bytes_per_s=1.0, flops=1e12)
COMPUTE_BOUND = Machine(bytes_per_s=1e12, flops=1.0)
SETUP = Setup(folder=str(TINY), dtype="float32", threads=1, max_sequences=4, max_tokens_each=64, max_tokens_all=256)


def ask(prompt_tokens: int, max_tokens: int) -> Ask:
    """A request of so many tokens."""
    return Ask(prompt_ids=(11,) * prompt_tokens, max_tokens=max_tokens)


@pytest.mark.parametrize(("name", "millions"), [("smollm2-135m", 134.5), ("qwen3-0.6b", 596.0)])
def test_the_shapes_have_the_parameters_that_their_names_promise(name: str, millions: float):
    """The formula's count is the published one, but for norms and biases."""
    size = size_of(SHAPES[name].config, 2)
    assert (size.body + size.head) / 1e6 == pytest.approx(millions, rel=0.002)


def test_a_decode_step_reads_all_weights_once_and_every_sequences_cache():
    """Weights as they are stored; a token's cache is keys and values of each layer."""
    read, multiplied = decode_cost(SIZE, [10, 30])
    assert read == 1_100 * 2 + 40 * (2 * 2 * 4 * 4)
    assert multiplied == 2 * 1_100 * 2


def test_the_least_time_of_one_request_is_its_prefill_and_its_steps():
    """The prompt's own token comes with the prefill; two more need a step each, over a growing context."""
    floor = least(SIZE, MEMORY_BOUND, [ask(10, 3)], 1)
    assert floor.bytes == 2 * 2_200 + (11 + 12) * 64
    assert floor.wall_s == pytest.approx(floor.bytes, rel=1e-6)


def test_where_compute_is_the_limit_batching_saves_nothing():
    """Operations do not get fewer by sharing a step; reads do."""
    requests = [ask(8, 5)] * 4
    alone, together = (least(SIZE, COMPUTE_BOUND, requests, n) for n in (1, 4))
    assert alone.flops == together.flops == pytest.approx(together.wall_s)
    assert together.bytes < alone.bytes


def test_a_request_of_one_token_needs_no_step():
    """It ends with its prefill, and makes room at once."""
    floor = least(SIZE, COMPUTE_BOUND, [ask(6, 1)] * 3, 1)
    assert floor.bytes == 0
    assert floor.flops == 3 * prefill_flops(SIZE, 6)


def test_loads_shrink_with_what_is_under_way_and_never_exceed_the_count():
    """All at once, then two waves, then a handful."""
    assert loads([64, 8, 1], 64) == [Load(concurrent=64, count=64), Load(concurrent=8, count=16), Load(concurrent=1, count=4)]
    assert loads([64, 1], 2) == [Load(concurrent=2, count=2), Load(concurrent=1, count=2)]


def test_a_smaller_load_is_the_beginning_of_a_larger_one():
    """Every load asks for the same work, as far as it goes."""
    large, small = asks(Load(concurrent=8, count=16)), asks(Load(concurrent=1, count=4))
    assert small == large[:4]
    assert all(16 <= len(one.prompt_ids) <= 256 and 16 <= one.max_tokens <= 256 for one in large)


class Counting:
    """An engine that gives every request a token per step, and remembers how many it held."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.most = 0

    def add(self, index: int, request: Ask) -> None:
        self.left[index] = request.max_tokens

    def step(self) -> list[tuple[int, int, bool]]:
        self.most = max(self.most, len(self.left))
        self.left = {index: left - 1 for index, left in self.left.items()}
        outputs = [(index, 1, left == 0) for index, left in self.left.items()]
        self.left = {index: left for index, left in self.left.items() if left}
        return outputs


@pytest.mark.parametrize("concurrent", [1, 3, 9])
def test_the_loop_keeps_as_many_under_way_as_the_load_says(concurrent: int):
    """Where a request ends, the next is sent; all are served to their last token."""
    engine = Counting()
    measured = drive(engine, [ask(4, n) for n in (3, 1, 5, 2)], concurrent)
    assert engine.most == min(concurrent, 4)
    assert measured.tokens == 11
    assert len(measured.ttft_s) == 4
    assert len(measured.tpot_s) == 3, "a request of one token has no time between tokens"


def test_times_run_from_sending_to_tokens():
    """A run ends with its last token."""
    clock = Clock(started_s=10.0, sent_s={0: 11.0})
    for at_s in (12.0, 13.0, 15.0):
        clock.gets(0, 1, at_s)
    assert clock.measured() == Measured(tokens=3, wall_s=5.0, ttft_s=(1.0,), tpot_s=(1.5,))


def test_what_is_measured_crosses_the_pipe_unchanged():
    """To JSON and back."""
    measured = Measured(tokens=3, wall_s=5.0, ttft_s=(1.0,), tpot_s=(1.5,), step_s=(0.1, 0.2))
    assert Measured.from_json(measured.to_json()) == measured


def ran(tokens: int, wall_s: float) -> Ran:
    """A run of so many tokens in so much time."""
    return Ran(measured=Measured(tokens=tokens, wall_s=wall_s, ttft_s=(0.5, 1.5), tpot_s=(0.02,)), peak_rss_bytes=2**30)


def test_a_row_holds_medians_and_the_share_of_the_limit():
    """Half the least time possible is a share of one half."""
    results = Results(rounds={"load": [ran(100, 1.0), ran(100, 2.0), ran(100, 4.0)]}, start_s=[3.0, 5.0])
    floor = least(SIZE, MEMORY_BOUND, [ask(10, 3)], 1)
    cells = row("us", results, "load", replace(floor, wall_s=1.0, bytes=1.0), MEMORY_BOUND)
    assert (cells["tokens_per_s"], cells["limit"], cells["mbu"], cells["start_s"], cells["peak_rss_mib"]) == (50.0, 0.5, 0.5, 4.0, 1024.0)


def test_a_contender_that_failed_is_listed_with_its_reason():
    """Beside those that ran, with every column of theirs."""
    floor = least(SIZE, MEMORY_BOUND, [ask(10, 3)], 1)
    good = row("us", Results(rounds={"load": [ran(100, 1.0)]}, start_s=[1.0]), "load", floor, MEMORY_BOUND)
    bad = row("them", Results(reason="no such instruction"), "load", floor, MEMORY_BOUND)
    table = columns([good, bad])
    assert table[1]["reason"] == "no such instruction"
    assert table[0].keys() == table[1].keys()


def test_ratios_are_taken_round_by_round():
    """A machine that slows down slows both."""
    assert ratios([ran(100, 1.0), ran(100, 10.0)], [ran(50, 1.0), ran(50, 10.0), ran(50, 1.0)]) == [2.0, 2.0]


def test_a_quantile_is_one_of_the_values():
    """The middle of three, and never past the last."""
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]


def test_what_a_package_declares_is_cut_to_what_a_text_model_needs():
    """Extras and other platforms do not apply; torch is there already; several versions of a specifier stay."""
    declared = ["torch==2.13.0+cpu", "TorchVision", "numpy>=2,<3", 'pandas; extra == "bench"', 'x; sys_platform == "win32"', "fastapi[standard]>=0.1"]
    assert needed(declared) == ["numpy<3,>=2", "fastapi[standard]>=0.1"]


@pytest.mark.integration
def test_a_contenders_process_serves_loads_one_after_the_other(tmp_path: Path):
    """Ours, with the model that ships: every token that was asked for, and the memory that it took."""
    with Process("penstock", SETUP, tmp_path / "log") as process:
        first, second = (process.run([ask(8, n) for n in (5, 3)], 2) for _ in range(2))
    assert first.measured.tokens == second.measured.tokens == 8
    assert 0 < first.peak_rss_bytes <= second.peak_rss_bytes
    assert len(first.measured.step_s) >= 5


@pytest.mark.integration
def test_a_contender_that_cannot_start_says_why(tmp_path: Path):
    """In one line, which the table shows."""
    with pytest.raises(Failed, match="LoadError"), Process("penstock", replace(SETUP, folder=str(tmp_path)), tmp_path / "log"):
        pass


@pytest.mark.integration
def test_a_benchmark_that_is_broken_off_leaves_no_process_behind(tmp_path: Path):
    """Not even one that is at work."""
    held: list[Process] = []

    def break_off() -> None:
        with Process("penstock", SETUP, tmp_path / "log") as process:
            held.append(process)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert held[0]._process.returncode is not None
