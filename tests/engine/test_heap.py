"""What a step frees is there for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from pipeline.engine.heap import CHOICES

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep what is freed by rules of their own"),
]

PAGES = 5_000
STEPS = f"""
import resource, sys
from array import array
from pipeline.engine.heap import keep_freed
if sys.argv[1:]:
    keep_freed()
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray({PAGES} * 4096), bytearray(1024 * 1024)]
    blocks = [bytes(block) for block in blocks]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step(), step()
print(step())
"""


def pages_asked_for(*arguments: str, **environment: str) -> int:
    """How many pages a process asks the system for in its third step."""
    clean = {name: value for name, value in os.environ.items() if name not in CHOICES}
    return int(subprocess.check_output([sys.executable, "-c", STEPS, *arguments], env=clean | environment, text=True))


def test_a_step_finds_what_the_one_before_it_freed():
    """Its large blocks are not mapped and zeroed anew."""
    assert pages_asked_for("keep") < PAGES / 10


def test_whoever_starts_the_process_may_choose_otherwise():
    """Settings of the C library's own stay as they were given."""
    assert pages_asked_for("keep", MALLOC_MMAP_THRESHOLD_="131072") > PAGES
