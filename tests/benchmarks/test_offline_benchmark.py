"""The parts of `python -m benchmarks.offline` that need no model, and one command's process."""

import sys
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.child import Failed
from benchmarks.offline import comparing, inputs
from benchmarks.offline.ran import Ran
from benchmarks.offline.score import run
from benchmarks.offline.table import Turns, Work, table
from benchmarks.offline.trial import OURS, Family, Trial


def ran(scoring_s: float, *results: Path) -> Ran:
    """A turn that used both of two cores."""
    return Ran(scoring_s=scoring_s, scoring_cpu_s=2 * scoring_s, process_s=scoring_s + 1, process_cpu_s=2 * scoring_s + 2, results=results)


@dataclass
class Scripted:
    """Takes as long as it is told, and writes the same for every row."""

    seconds: list[float]
    output: str = "so"
    turns: int = 0

    def run(self, source: Path, out: Path) -> Ran:
        out.mkdir()
        rows = parquet.read_table(source)
        parquet.write_table(rows.append_column("output", pa.array([self.output] * len(rows))), out / "data.parquet")
        self.turns += 1
        return replace(ran(self.seconds[self.turns - 1], out / "data.parquet"), tokens=2 * len(rows))


class Absent:
    """Cannot run here."""

    def run(self, source: Path, out: Path) -> Ran:
        raise Failed("not for this machine")


def trial(folder: Path, ours: Scripted) -> Trial:
    """A trial over words."""
    return Trial(inputs.texts, comparing.check_texts, ours, folder)


def answers(*outputs: str, first: int = 0) -> pa.Table:
    """Results."""
    return pa.table({"id": range(first, first + len(outputs)), "output": outputs})


def test_rows_are_seeded_and_distinct_and_of_mixed_lengths(tmp_path: Path):
    """The same seed makes the same file; another one shares no row with it."""
    first, again, other = (inputs.write(inputs.texts(seed), 50, tmp_path / f"{n}.parquet") for n, seed in enumerate((1, 1, 2)))
    rows = [parquet.read_table(path).column("text").to_pylist() for path in (first, again, other)]
    assert rows[0] == rows[1]
    assert not set(rows[0]) & set(rows[2])
    assert len(set(rows[0])) == 50
    assert max(map(len, rows[0])) > 5 * min(map(len, rows[0]))


def test_prompts_end_where_the_assistant_is_to_speak():
    """They are chats as the shipped model has learned them."""
    for prompt in islice(inputs.prompts(0), 20):
        assert prompt.startswith("<|im_start|>")
        assert prompt.endswith("<|im_start|>assistant\n")


def test_too_few_distinct_texts_are_refused(tmp_path: Path):
    """Equal prompts would be computed once by ours, and again and again by the others."""
    with pytest.raises(ValueError, match="1 distinct texts"):
        inputs.write(iter(["the same"] * 10), 2, tmp_path / "rows.parquet")


def test_results_that_differ_fail_the_benchmark():
    """Another text, another order, a missing row."""
    comparing.check_texts(answers("a", "b"), answers("a", "b"))
    with pytest.raises(Failed, match=r"1 of 2 outputs differ.*row 1: 'b' and 'c'"):
        comparing.check_texts(answers("a", "b"), answers("a", "c"))
    with pytest.raises(Failed, match="another order"):
        comparing.check_texts(answers("a", "b"), answers("a", "b", first=1))
    with pytest.raises(Failed, match="1 rows came back of 2"):
        comparing.check_texts(answers("a", "b"), answers("a"))


def test_embeddings_may_differ_by_rounding_and_no_more():
    """The order of sums is each contender's own."""
    ours, rounded, other = (pa.table({"id": [0], "embedding": [vector]}) for vector in ([1.0, 0.0], [1.0, 0.001], [0.9, 0.1]))
    comparing.check_embeddings(ours, rounded)
    with pytest.raises(Failed, match="1 of 1 embeddings differ"):
        comparing.check_embeddings(ours, other)
    narrow = pa.table({"id": [0], "embedding": [[1.0, 0.03]]})
    comparing.check_embeddings(ours, narrow, dtype="bfloat16")
    with pytest.raises(Failed, match="1 of 1 embeddings differ"):
        comparing.check_embeddings(ours, narrow)


def test_ratios_are_of_the_same_rounds():
    """A peer that took part in one round is held against ours in that round, not against our median."""
    turns = {OURS: Turns({0: ran(1.0), 1: ran(4.0)}), "peer": Turns({0: ran(2.0)}), "away": Turns(reason="not here")}
    ours, peer, away = table([Work(10, 100), Work(10, 200)], turns, OURS)
    assert (ours["rows/s"], ours["tokens/s"], ours["ours"]) == (pytest.approx(6.25), 75.0, 1.0)
    assert (peer["tokens/s"], peer["ours"], peer["by process"], peer["rounds"]) == (50.0, 2.0, 1.5, 1)
    assert (away["rows/s"], away["reason"]) == (None, "not here")


def test_the_first_round_tries_all_sizes_and_later_ones_the_default_and_the_best(tmp_path: Path):
    """Sizes that were neither are not tried again; a warm-up counts for nobody."""
    ours = Scripted([9.0, 1.0, 1.0, 1.0])
    sizes = {"small": Scripted([9.0, 3.0]), "default": Scripted([5.0] * 3), "best": Scripted([2.0] * 3)}
    tried = trial(tmp_path, ours)
    tried.run([Family(sizes, "default")], rows=4, rounds=3)
    assert {name: list(turns.by_round) for name, turns in tried.turns.items()} == {
        OURS: [0, 1, 2],
        "small": [0],
        "default": [0, 1, 2],
        "best": [0, 1, 2],
    }
    assert [work.tokens for work in tried.works] == [8, 8, 8]
    assert table(tried.works, tried.turns, OURS)[-1]["ours"] == 2.0


def test_a_peer_that_fails_is_listed_with_its_reason(tmp_path: Path):
    """The others go on."""
    tried = trial(tmp_path, Scripted([1.0] * 3))
    tried.run([Family({"away": Absent()}), Family({})], rows=4, rounds=2)
    ours, away = table(tried.works, tried.turns, OURS)
    assert (ours["rounds"], away["rounds"], away["reason"]) == (2, 0, "not for this machine")


def test_a_contender_with_other_results_has_no_times(tmp_path: Path):
    """They would say nothing; what differs is told."""
    tried = trial(tmp_path, Scripted([1.0] * 3))
    tried.run([Family({"peer": Scripted([1.0] * 3, output="other")})], rows=4, rounds=2)
    assert len(tried.turns[OURS].by_round) == 2
    assert not tried.turns["peer"].by_round
    assert [difference.partition(";")[0] for difference in tried.differences] == ["peer: 4 of 4 outputs differ"]


def test_a_command_is_timed_between_its_marks(tmp_path: Path):
    """What it computes before the first one is not in between, and is in the whole."""
    mark, seen = tmp_path / "mark", tmp_path / "seen"
    burn = "end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    wait = f"open({str(mark)!r}, 'w').close()\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)"
    code = f"import os, time\n{burn}\n{wait}"
    spent = run([sys.executable, "-c", code], {}, tmp_path / "log", [mark.exists, lambda: seen.touch() is None])
    assert spent.cpu_s >= spent.between_cpu_s + 0.19


def test_a_command_that_fails_says_why(tmp_path: Path):
    """The end of what it said is in the message."""
    with pytest.raises(Failed, match=r"(?s)ended with 3: .*no such thing"):
        run([sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], {}, tmp_path / "log")
