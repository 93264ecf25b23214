"""What this process may use: device, cores, memory."""

import os
from pathlib import Path

import torch

from pipeline.settings import DeviceChoice, DtypeChoice

CGROUP = Path("/sys/fs/cgroup")
PROC = Path("/proc")
PARAMETERS_PER_THREAD = 8_000_000
"""Measured on two cores: below twice as many one thread is faster, by half and more; from 50 million on it no longer is."""


def pick_device(choice: DeviceChoice) -> torch.device:
    """Resolves `auto`: the first that exists of cuda, mps, cpu."""
    if choice is DeviceChoice.AUTO:
        choice = DeviceChoice.CUDA if torch.cuda.is_available() else DeviceChoice.MPS if torch.backends.mps.is_available() else DeviceChoice.CPU
    return torch.device(choice.value)


def is_available(device: torch.device) -> bool:
    """Tells whether the device exists here."""
    match device.type:
        case "cuda":
            return bool(torch.cuda.is_available())
        case "mps":
            return bool(torch.backends.mps.is_available())
    return True


def pick_dtype(choice: DtypeChoice, checkpoint: torch.dtype | None, device: torch.device) -> torch.dtype:
    """Resolves `auto`: the checkpoint's dtype where the device computes it natively, else float32."""
    if choice is not DtypeChoice.AUTO:
        return getattr(torch, choice.value)
    if checkpoint is None:
        return torch.float32
    native = device.type == "cuda" or (checkpoint is torch.bfloat16 and device.type == "cpu" and has_native_bfloat16())
    return checkpoint if native else torch.float32


def has_native_bfloat16(cpuinfo: Path = PROC / "cpuinfo") -> bool:
    """Tells whether the processor multiplies bfloat16 itself (AVX-512 BF16 or AMX; the bf16 extension on Arm)."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    flags = {flag for line in text.splitlines() if line.lower().startswith(("flags", "features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def cores(cgroup: Path = CGROUP) -> int:
    """Counts the cores that the process may use: its affinity, cut by the control group's quota (version 2, then 1)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _cpu_quota(cgroup)
    return max(1, min(allowed, quota // period)) if quota > 0 else allowed


def threads(parameters: int, available: int) -> int:
    """How many compute threads a model of so many parameters is worth, of those that there are.

    Threads meet after every operation, and in a small model a meeting takes longer than the operation.
    """
    return max(1, min(available, parameters // PARAMETERS_PER_THREAD))


def free_memory_bytes(device: torch.device, cgroup: Path = CGROUP, meminfo: Path = PROC / "meminfo") -> int:
    """Memory that is free for a KV cache: the device's, or the machine's within the control group's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _available_bytes(meminfo)
    for limit_file, used_file in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        limit, used = _number(cgroup / limit_file), _number(cgroup / used_file)
        if limit is not None and used is not None:
            free = min(free, max(limit - used + _cached_bytes(cgroup / used_file), 0))
    return free


def _cached_bytes(used_file: Path) -> int:
    """Cached files count as used by a control group, and are given up as soon as memory is wanted."""
    try:
        lines = (used_file.parent / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _cpu_quota(cgroup: Path) -> tuple[int, int]:
    """Quota and period in microseconds; a quota of 0 is none."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return (0, 1) if quota == "max" else (int(quota), int(period))
    except (OSError, ValueError):
        quota_us, period_us = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
        return (quota_us, period_us) if quota_us and period_us and quota_us > 0 else (0, 1)


def _available_bytes(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
