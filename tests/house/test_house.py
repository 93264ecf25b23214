"""Promises about the repository itself: what is in it, what make offers, what is locked."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TARGETS = ("setup", "demo", "test", "unit", "integration", "lint", "typecheck", "gpu", "chaos", "soak", "kafka", "lock", "clean", "help")

# Each is spelt so that it does not find itself here.
FOREIGN = {
    "the address of a package index": r"-index-url[= ]http|[/.]pypi[.]org|pythonhosted[.]org|repo1?[.]maven",
    "a path of one machine": r"(?<![\w.])/(root|home/\w+|Users/\w+|work)/(?![.]cache/uv)",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY-",
}


@cache
def tracked_texts() -> dict[str, str]:
    """Returns every text file that git tracks, by path."""
    paths = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    contents = {path: (ROOT / path).read_bytes() for path in paths if path and (ROOT / path).is_file()}
    return {path: data.decode() for path, data in contents.items() if b"\0" not in data}


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names_somebodys_machine(what: str):
    """A checkout works anywhere: nothing in it points at one network or one disk."""
    found = [f"{path}: {match[0]}" for path, text in tracked_texts().items() for match in re.finditer(FOREIGN[what], text)]
    assert found == []


def test_no_python_file_is_longer_than_a_reader_can_hold():
    """Past 500 lines a file is several rooms."""
    long = {path: lines for path, text in tracked_texts().items() if path.endswith(".py") and (lines := text.count("\n")) > 500}
    assert long == {}


def test_make_without_a_target_lists_all_of_them():
    """`make` explains itself and does nothing else."""
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  (\S+)", listed, re.MULTILINE) == [*sorted(TARGETS, key=listed.index)]


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_each_promised_target(target: str):
    """Other programs call these by name."""
    dry_run = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry_run.returncode == 0, dry_run.stderr


@pytest.mark.parametrize("suite", ["chaos", "soak"])
def test_a_suite_that_does_not_exist_is_no_success(suite: str, tmp_path: Path):
    """Where there is no such suite, make says so on stderr and fails."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    done = subprocess.run(["make", suite], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"no {suite} suite yet" in done.stderr


def locked(path: str) -> dict[str, str]:
    """Returns version and hashes of each package in a lock file, by canonical name."""
    entries = re.findall(r"^([A-Za-z0-9._-]+)==(.+(?:\n    --hash=.+)*)", (ROOT / path).read_text(), re.MULTILINE)
    return {canonicalize_name(name): rest for name, rest in entries}


def version(entry: str) -> str:
    """Returns the version in a lock entry."""
    return entry.split(maxsplit=1)[0]


def direct_dependencies() -> list[str]:
    """Returns what pyproject.toml asks for, development tools included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]


@pytest.mark.parametrize("dependency", direct_dependencies())
def test_every_direct_dependency_is_locked_to_a_version_that_it_allows(dependency: str):
    """requirements.lock is in step with pyproject.toml."""
    wanted = Requirement(dependency)
    assert wanted.specifier.contains(version(locked("requirements.lock")[canonicalize_name(wanted.name)]))


@pytest.mark.parametrize("path", ["requirements.lock", "compose/bootstrap.lock"])
def test_everything_locked_is_locked_by_hash(path: str):
    """What is installed is what was locked, byte for byte."""
    entries = locked(path)
    assert entries
    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []


def test_both_locks_agree():
    """Installing the one after the other changes no version back and forth."""
    tools, all_of_it = locked("compose/bootstrap.lock"), locked("requirements.lock")
    shared = tools.keys() & all_of_it.keys()
    assert {name: version(tools[name]) for name in shared} == {name: version(all_of_it[name]) for name in shared}
