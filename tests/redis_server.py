"""A real Redis server for one test or module, to kill and bring back at will."""

import os
import shutil
from pathlib import Path

import pytest

from compose.redis_server import MISSING, PROGRAM, RedisServer


def redis_server(directory: Path) -> RedisServer:
    """Makes one, to be started; skips the test where there is no program, and fails it in CI, where nothing may go missing unnoticed."""
    if shutil.which(PROGRAM) is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return RedisServer(directory)
