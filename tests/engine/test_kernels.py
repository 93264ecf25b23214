"""How kernels are found: where they are on disk, where they are compiled first, and where they are compiled aside."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from pipeline.engine.arrays import HELD
from pipeline.engine.attention import decoding, keeping
from pipeline.engine.attention.decode import form as decode_form
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.plain import decode_plainly
from pipeline.engine.forms import CannotKeep
from pipeline.engine.kernels import KERNELS, Kernels, Pair
from pipeline.engine.rewrites import encoder, gelu, layer_norm
from pipeline.engine.rewrites.activation import SIGMOIDS
from pipeline.engine.rewrites.gating import form as gating_form
from pipeline.engine.rewrites.rotary import Heads
from pipeline.engine.rewrites.rotation import form as rotation_form
from pipeline.settings import KernelCompiling
from tests.engine.named_kernels import NOWHERE, form
from tests.waiting import wait_for

WAIT_S = 30.0


def command(code):
    """A process that takes a compiler's place."""
    return (sys.executable, "-I", "-S", "-c", code)


@contextmanager
def aside(code="pass"):
    """Kernels that are compiled aside, by such a process, and what is logged."""
    kernels = Kernels(command(code))
    with capture_logs() as logs, kernels.compiling(KernelCompiling.BACKGROUND):
        yield kernels, logs


def passes(_kernel):
    """A proof that finds nothing wrong."""
    return True


def test_without_a_choice_kernels_are_compiled_where_they_are_first_used():
    """Nobody waits for a proof: what is verified at load is verified with the kernel in place."""
    kernel = Kernels(command("raise SystemExit(1)")).find(form(1), passes)
    assert kernel is not None
    assert kernel() == 1


def test_what_is_on_disk_is_used_at_once():
    """Also where kernels are compiled aside, and nothing is compiled then."""
    with aside("raise SystemExit(1)") as (kernels, logs):
        assert kernels.find(form(100), passes)() == 100
    assert logs == []


def test_a_kernel_compiled_aside_is_proven_before_it_is_used():
    """Until then there is none; the proof is asked once, with the kernel itself, and one line says that it is in use."""
    asked = []
    with aside() as (kernels, logs):
        assert kernels.find(form(1), lambda kernel: asked.append(kernel()) or True) is None
        wait_for(lambda: kernels.find(form(1), passes) is not None)
        assert kernels.find(form(1), passes)() == 1
        wait_for(lambda: logs)
    assert asked == [1]
    assert [(line["event"], line["log_level"], line["kernel"]) for line in logs] == [("kernel_in_use", "info", "named_kernels 1")]


def test_kernels_are_compiled_one_after_the_other():
    """Two are wanted at once, and the second one's process begins when the first one's has ended."""
    with aside("import os, sys; os.mkdir(sys.argv[1] + '.lock'); os.rmdir(sys.argv[1] + '.lock')") as (kernels, logs):
        assert [kernels.find(form(number), passes) for number in (1, 2)] == [None, None]
        wait_for(lambda: len(logs) == 2)
    assert [(line["event"], line["kernel"]) for line in logs] == [("kernel_in_use", "named_kernels 1"), ("kernel_in_use", "named_kernels 2")]


def refuses(_kernel):
    """A proof that finds the kernel wrong."""
    return False


def breaks(_kernel):
    """A proof that does not come to an end."""
    raise ValueError("too wide")


@pytest.mark.parametrize(
    ("code", "proof", "words"),
    [
        ("pass", refuses, "does not compute what torch computes"),
        ("pass", breaks, "ValueError: too wide"),
        ("import sys; sys.exit('no memory')", passes, "ended with 1: no memory"),
        ("import os; os.kill(os.getpid(), 9)", passes, "ended with -9: without a word"),
    ],
    ids=["wrong", "not-provable", "fails", "killed"],
)
def test_a_kernel_that_is_not_to_be_trusted_is_warned_of_once_and_never_used(code, proof, words):
    """Be it wrong, or never compiled: torch's operations stay, and it is not tried again."""
    with aside(code) as (kernels, logs):
        kernels.find(form(1), proof)
        wait_for(lambda: logs)
        assert [kernels.find(form(1), passes) for _ in range(3)] == [None] * 3
        kernels.find(form(100), passes)
    assert [(line["event"], line["log_level"]) for line in logs] == [("kernel_not_used", "warning")]
    assert words in logs[0]["detail"]


def test_a_failure_does_not_end_the_compiling_of_others():
    """The next kernel in the queue is compiled all the same."""
    with aside("import sys; sys.exit(sys.argv[2] == '[1]')") as (kernels, logs):
        kernels.find(form(1), passes)
        kernels.find(form(2), passes)
        wait_for(lambda: len(logs) == 2)
        assert kernels.find(form(1), passes) is None
        assert kernels.find(form(2), passes) is not None


def test_where_nothing_can_be_kept_a_worker_serves_without_and_says_so_once():
    """A process aside could not hand its kernel over, so none is started."""
    with aside("raise SystemExit(1)") as (kernels, logs):
        assert kernels.find(form(NOWHERE), passes) is None
        assert kernels.find(form(NOWHERE), passes) is None
    assert [(line["event"], line["log_level"]) for line in logs] == [("kernels_not_kept", "warning")]
    assert "/nowhere: read-only" in logs[0]["detail"]


def test_a_kernel_is_expected_where_there_is_one_or_one_will_come():
    """Not where nothing can be kept: torch's operations serve there for good, and nobody need get ready for anything else."""
    with aside() as (kernels, _):
        assert kernels.expects(form(100), passes)
        assert kernels.expects(form(1), passes)
        assert not kernels.expects(form(NOWHERE), passes)


def test_a_kernel_whose_compiling_failed_is_not_expected_any_more():
    """Whoever got ready for it can go back."""
    with aside("raise SystemExit(1)") as (kernels, logs):
        assert kernels.expects(form(1), passes)
        wait_for(lambda: logs)
        assert not kernels.expects(form(1), passes)
        assert kernels.find(form(1), passes) is None


def test_a_pair_looks_for_a_kernel_until_it_is_there(monkeypatch):
    """Each way by itself, and then no more."""
    found = {False: None, True: "parallel"}
    asked = []

    def find(of, _):
        asked.append(is_parallel := bool(of.arguments[-1]))
        return found[is_parallel]

    monkeypatch.setattr(KERNELS, "find", find)
    pair = Pair(gating_form, passes)
    assert [pair.find(is_parallel=True), pair.find(is_parallel=True), pair.find(is_parallel=False)] == ["parallel", "parallel", None]
    found[False] = "serial"
    assert [pair.find(is_parallel=False), pair.find(is_parallel=False)] == ["serial", "serial"]
    assert asked == [True, False, False]


def test_where_nothing_can_be_kept_others_compile_in_the_process():
    """A warning says that each start pays for it."""
    kernels = Kernels(command("raise SystemExit(1)"))
    with capture_logs() as logs, kernels.compiling(KernelCompiling.BEFORE):
        assert kernels.find(form(NOWHERE), passes)() == NOWHERE
    assert [line["event"] for line in logs] == ["kernels_not_kept"]


def test_closing_ends_the_process_that_compiles():
    """It is gone when the context is left, what waited behind it is not begun, and nobody is warned of what was meant."""
    with aside("import os, sys, time; sys.stderr.write(str(os.getpid())); sys.stderr.flush(); time.sleep(600)") as (kernels, logs):
        kernels.find(form(1), passes)
        kernels.find(form(2), passes)
        compiler = kernels._aside
        wait_for(lambda: compiler._child is not None)
        child = compiler._child
    assert child.returncode == -signal.SIGKILL
    assert compiler._child is None or compiler._child is child
    assert logs == []


@pytest.mark.integration
def test_the_compiling_process_ends_with_who_started_it():
    """A worker that is killed leaves none behind: its end of the pipe closes with it."""
    compiles = "time.define = lambda seconds: (print('begun', flush=True), time.sleep(seconds))"
    code = f"import sys, time; from pipeline.engine import compiling; {compiles}; sys.argv[1:] = ['time', '[600]']; compiling.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"begun\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(WAIT_S) == 1


@pytest.mark.integration
def test_a_kernel_lies_on_disk_apart_for_one_thread_and_for_several(tmp_path, monkeypatch):
    """Compiled for one, it is found for one only; and where the folder cannot be written, that is said."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kernels"))
    # Where the folder is, a process finds out once: another process has another.
    code = "import sys; from pipeline.engine.rewrites.gating import form; d = [form(is_parallel=p).define() for p in (False, True)]; "
    code += "before = [k.is_kept() for k in d]; d[0].compiled(); print(before, [k.is_kept() for k in d])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[False, False] [True, False]"
    (tmp_path / "file").write_bytes(b"")
    failing = subprocess.run(
        [sys.executable, "-c", "from pipeline.engine.rewrites.gating import form; form(is_parallel=False).define().is_kept()"],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "file")},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert CannotKeep.__name__ in failing.stderr
    assert "Not a directory" in failing.stderr


def test_a_worker_can_say_how_kernels_are_compiled_before_torch_is_there():
    """How threads wait is read as torch is loaded, so what a worker begins with must not load it."""
    said = "import sys, workers.stream; print('torch' in sys.modules, 'numba' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


def decode_wrongly(*arguments):
    """A decode kernel that forgets the last token of each sequence."""
    kernel = KERNELS.find(decode_form(2, 8, 6, is_half=False, is_parallel=False), passes)
    kernel(*arguments[:6], np.maximum(arguments[6] - 1, 1), *arguments[7:])


@pytest.mark.parametrize("dtype", HELD, ids=str)
def test_the_decode_kernel_passes_its_proof(dtype):
    """In the precision that the cache has."""
    cache = torch.empty(2, 1, 4, 8, dtype=dtype)
    kernel = decoding.kernels_for(cache, cache[..., :6], 4).find(is_parallel=False)
    assert decoding.is_right(kernel, sizes=(2, 8, 6), dtype=dtype)


def test_a_wrong_decode_kernel_does_not_pass():
    """Neither one that forgets a token, nor one that writes nothing, which leaves what is not a number."""
    asked = {"sizes": (2, 8, 6), "dtype": torch.float32}
    assert not decoding.is_right(decode_wrongly, **asked)
    assert not decoding.is_right(lambda *_: None, **asked)


@pytest.mark.parametrize("dtype", HELD, ids=str)
def test_a_wrong_keeping_kernel_does_not_pass(dtype):
    """One that writes nothing, or a token too few, or into other slots; the right one passes."""
    kernel = keeping.kernels_for(torch.empty(2, 1, 4, dtype=dtype)).find(is_parallel=False)
    assert keeping.is_right(kernel, dtype=dtype)
    assert not keeping.is_right(lambda *_: None, dtype=dtype)
    assert not keeping.is_right(lambda *arguments: kernel(*arguments[:2], arguments[2][1:], *arguments[3:]), dtype=dtype)
    assert not keeping.is_right(lambda *arguments: kernel(*arguments[:2], arguments[2][::-1].copy(), *arguments[3:]), dtype=dtype)


def test_a_wrong_gating_kernel_does_not_pass():
    """The real one does; one that leaves the gate as it is does not."""
    kernel = KERNELS.find(gating_form(is_parallel=False), passes)
    assert SIGMOIDS[0].is_right(kernel)
    assert not SIGMOIDS[0].is_right(lambda *_: None)


@pytest.mark.parametrize("dtype", HELD, ids=str)
def test_a_wrong_rotation_kernel_does_not_pass(dtype):
    """The real one does; neither one that forgets the norms, nor one that turns nothing."""
    heads = Heads(queries=2, keys=1, width=6)
    kernel = KERNELS.find(rotation_form(is_half=dtype is torch.bfloat16, is_parallel=False), passes)
    nothing = np.empty(0, dtype=HELD[dtype])
    assert heads.is_right(kernel, dtype=dtype)
    assert not heads.is_right(lambda *arguments: kernel(*arguments[:3], nothing, nothing, *arguments[5:]), dtype=dtype)
    assert not heads.is_right(lambda *_: None, dtype=dtype)


@pytest.mark.parametrize("dtype", HELD, ids=str)
@pytest.mark.parametrize(("form", "is_right"), [(gelu.form, encoder.gelu_is_right), (layer_norm.form, encoder.norm_is_right)], ids=["gelu", "norm"])
def test_a_wrong_kernel_of_an_encoder_does_not_pass(form, is_right, dtype):
    """The real one does; neither one that forgets the bias, nor one that leaves the rows as they are."""
    kernel = KERNELS.find(form(is_half=dtype is torch.bfloat16, is_parallel=False), passes)
    bias = 1 if form is gelu.form else 2
    assert is_right(kernel, dtype=dtype)
    assert not is_right(lambda *arguments: kernel(*arguments[:bias], np.zeros_like(arguments[bias]), *arguments[bias + 1 :]), dtype=dtype)
    assert not is_right(lambda *_: None, dtype=dtype)


@pytest.mark.parametrize("kind", SIGMOIDS, ids=["swish", "gelu"])
def test_gating_without_a_kernel_is_the_activation_that_it_stands_for(kind):
    """Torch's own functions, over small and large numbers."""
    gate, up = torch.linspace(-90, 90, 1001), torch.randn(1001, generator=torch.Generator().manual_seed(0))
    activation = torch.nn.functional.silu(gate) if kind is SIGMOIDS[0] else torch.nn.functional.gelu(gate, approximate="tanh")
    torch.testing.assert_close(kind.gate(None, gate.clone(), up), activation * up, rtol=1e-5, atol=1e-5)


def test_attention_takes_the_kernel_from_the_step_on_in_which_it_is_there(monkeypatch):
    """Before, plain operations compute the layer; after, the kernel does, and the numbers agree."""
    from pipeline.engine.attention import paged
    from pipeline.engine.attention.paged import LayerShape, PagedAttention
    from pipeline.engine.attention.step import AttentionStep, DecodeBucket

    module, draw = torch.nn.Identity(), torch.Generator().manual_seed(0)
    attention = PagedAttention({module: LayerShape(2, 8, 6)}, blocks=2, block_tokens=4, dtype=torch.float32, device=torch.device("cpu"))
    attention.step = AttentionStep(torch.tensor([0]), (DecodeBucket(0, 1, torch.tensor([0]), torch.tensor([1]), 4),), ())
    query, key, value = (torch.randn(1, heads, 1, width, generator=draw) for heads, width in ((4, 8), (2, 8), (2, 6)))
    plain = []
    monkeypatch.setattr(paged, "decode_plainly", lambda *arguments: plain.append(1) or decode_plainly(*arguments))
    monkeypatch.setattr("pipeline.engine.kernels.KERNELS", kernels := Kernels(command("raise SystemExit(1)")))
    form = decode_form(2, 8, 6, is_half=False, is_parallel=False)
    kernels._known[form] = None
    before = attention.attend(module, query, key, value, Form(1.0, 0, 0.0, None))
    kernels._known[form] = KERNELS.find(form, passes)
    after = attention.attend(module, query, key, value, Form(1.0, 0, 0.0, None))
    assert plain == [1]
    torch.testing.assert_close(before, after)
