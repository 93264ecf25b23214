"""What the process may use."""

import os

import pytest
import torch

from pipeline.engine import resources
from pipeline.settings import DeviceChoice, DtypeChoice

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 1 << 30


def files(root, **contents):
    """Writes files; two underscores stand for a folder's slash and one more for a dot."""
    for name, content in contents.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("contents", "cores"),
    [
        ({}, 8),
        ({"cpu_dot_max": "max 100000"}, 8),
        ({"cpu_dot_max": "250000 100000"}, 2),
        ({"cpu_dot_max": "50000 100000"}, 1),
        ({"cpu_dot_max": "9900000 100000"}, 8),
        ({"cpu__cpu_dot_cfs_quota_us": "300000", "cpu__cpu_dot_cfs_period_us": "100000"}, 3),
        ({"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}, 8),
    ],
    ids=str,
)
def test_cores_are_those_that_the_process_really_has(tmp_path, monkeypatch, contents, cores):
    """Affinity, cut by the control group's quota of either version; never none."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert resources.cores(files(tmp_path, **contents)) == cores


@pytest.mark.parametrize(
    ("contents", "free"),
    [
        ({}, 4 * GIB),
        ({"memory_dot_max": "max", "memory_dot_current": "1"}, 4 * GIB),
        ({"memory_dot_max": str(3 * GIB), "memory_dot_current": str(2 * GIB)}, GIB),
        ({"memory_dot_max": str(GIB), "memory_dot_current": str(2 * GIB)}, 0),
        ({"memory_dot_max": str(3 * GIB), "memory_dot_current": str(2 * GIB), "memory_dot_stat": f"anon 5\ninactive_file {GIB}\n"}, 2 * GIB),
        ({"memory__memory_dot_limit_in_bytes": str(3 * GIB), "memory__memory_dot_usage_in_bytes": str(GIB)}, 2 * GIB),
    ],
    ids=str,
)
def test_free_memory_is_within_the_control_groups_limit(tmp_path, contents, free):
    """What the machine has left, cut by what the group may still take; cached files count as free."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemAvailable:   {4 * GIB // 1024} kB\n")
    assert resources.free_memory_bytes(CPU, files(tmp_path, **contents), meminfo) == free


def test_without_proc_memory_is_what_the_system_says(tmp_path):
    """Elsewhere than on Linux."""
    assert resources.free_memory_bytes(CPU, tmp_path, tmp_path / "none") > 0


@pytest.mark.parametrize(
    ("choice", "checkpoint", "device", "native", "dtype"),
    [
        (DtypeChoice.FLOAT32, torch.bfloat16, CUDA, True, torch.float32),
        (DtypeChoice.BFLOAT16, torch.float32, CPU, False, torch.bfloat16),
        (DtypeChoice.AUTO, torch.bfloat16, CUDA, False, torch.bfloat16),
        (DtypeChoice.AUTO, torch.float16, CUDA, False, torch.float16),
        (DtypeChoice.AUTO, torch.bfloat16, CPU, True, torch.bfloat16),
        (DtypeChoice.AUTO, torch.bfloat16, CPU, False, torch.float32),
        (DtypeChoice.AUTO, torch.float16, CPU, True, torch.float32),
        (DtypeChoice.AUTO, None, CUDA, True, torch.float32),
    ],
)
def test_auto_keeps_the_checkpoints_precision_where_it_is_native(monkeypatch, choice, checkpoint, device, native, dtype):
    """On CUDA always, on a processor only bfloat16 that it multiplies itself; else float32."""
    monkeypatch.setattr(resources, "has_native_bfloat16", lambda: native)
    assert resources.pick_dtype(choice, checkpoint, device) is dtype


@pytest.mark.parametrize(
    ("line", "native"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", True),
        ("flags : amx_bf16", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx2", False),
        ("bogus : amx_bf16", False),
    ],
)
def test_bfloat16_is_native_where_the_processor_says_so(tmp_path, line, native):
    """Read from its flags."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\n{line}\n")
    assert resources.has_native_bfloat16(cpuinfo) is native
    assert not resources.has_native_bfloat16(tmp_path / "none")


@pytest.mark.parametrize(("cuda", "mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_takes_the_first_device_that_exists(monkeypatch, cuda, mps, device):
    """CUDA, then MPS, then the processor; a choice is kept, and said to be there or not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resources.pick_device(DeviceChoice.AUTO) == torch.device(device)
    assert resources.pick_device(DeviceChoice.CUDA) == CUDA
    assert resources.is_available(CUDA) is cuda
    assert resources.is_available(torch.device("mps")) is mps
    assert resources.is_available(CPU)


@pytest.mark.parametrize(("parameters", "available", "threads"), [(2_400_000, 8, 1), (47_000_000, 2, 2), (47_000_000, 16, 5), (8 * 10**9, 16, 16)])
def test_a_model_gets_the_threads_that_it_is_worth(parameters, available, threads):
    """Small models run on one, large ones on all that there are."""
    assert resources.threads(parameters, available) == threads
