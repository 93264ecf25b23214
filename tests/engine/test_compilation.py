"""Kernels on disk."""

import fcntl

import pytest

from pipeline.engine.compilation import alone_with


def test_one_process_at_a_time_compiles_a_kernel(tmp_path):
    """Another one waits for it, and for nothing after it."""
    file = tmp_path / "kernel.lock"
    with alone_with(file), file.open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with file.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
