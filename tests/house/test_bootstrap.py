"""The set-up script on machines that lack something, played by stand-ins for the system's commands."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("awk", "bash", "cat", "chmod", "cksum", "cmp", "cp", "dirname", "env", "mkdir", "mv", "rm", "sed", "touch")
JAVA_17 = """echo 'openjdk version "17.0.15" 2025-04-15' >&2"""
MAVEN = 'echo run >>"$HERE/mvn.log"; for a; do case $a in -Dlibs.dir=*) mkdir -p "${a#*=}"; touch "${a#*=}/kafka.jar" ;; esac; done'


@dataclass(frozen=True)
class Machine:
    """A checkout with the set-up script, and a PATH with nothing on it but what the test puts there."""

    directory: Path

    def has(self, command: str, script: str) -> None:
        """Puts a command on PATH that does what the script says; HERE is the machine's directory."""
        path = self.directory / "bin" / command
        path.write_text(f"#!/usr/bin/env bash\n{script}\n")
        path.chmod(0o755)

    def bootstrap(self, *parts: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the script with these environment variables."""
        environment = {"PATH": str(self.directory / "bin"), "HERE": str(self.directory), **variables}
        script = str(self.directory / "compose" / "bootstrap.sh")
        return subprocess.run([script, *parts], env=environment, capture_output=True, text=True, check=False)

    def log(self, command: str) -> list[str]:
        """Returns what a command noted about its calls."""
        path = self.directory / f"{command}.log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine without Java, Maven, kcat and a package manager, and an ordinary user on it."""
    for path in ("compose/bootstrap.sh", "compose/kafka/pom.xml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    machine = Machine(tmp_path)
    machine.has("id", "echo 1000")
    return machine


def test_a_missing_java_is_named_with_the_command_that_brings_it(machine: Machine):
    """On Debian, without root, the message is the command to type."""
    machine.has("apt-get", 'echo "$@" >>"$HERE/apt-get.log"')
    done = machine.bootstrap("kafka")
    assert done.returncode == 1
    assert "Java 17 or later is missing" in done.stderr
    assert "sudo apt-get update && sudo apt-get install -y default-jre-headless" in done.stderr
    assert machine.log("apt-get") == []


def test_an_old_java_counts_as_missing(machine: Machine):
    """Kafka would start and fail with a riddle about class file versions."""
    machine.has("java", """echo 'openjdk version "11.0.2" 2019-01-15' >&2""")
    machine.has("brew", "exit 1")
    done = machine.bootstrap("kafka")
    assert (done.returncode, "brew install openjdk" in done.stderr) == (1, True)


def test_root_on_debian_gets_what_is_missing(machine: Machine):
    """The package lists are refreshed first, the package is named, and the work goes on."""
    machine.has("id", "echo 0")
    machine.has("mvn", MAVEN)
    machine.has("java-to-come", JAVA_17)
    machine.has("apt-get", 'echo "$1" >>"$HERE/apt-get.log"; if [[ $1 == install ]]; then mv "$HERE/bin/java-to-come" "$HERE/bin/java"; fi')
    done = machine.bootstrap("kafka")
    assert done.returncode == 0, done.stderr
    assert machine.log("apt-get") == ["update", "install"]
    assert "installing the packages: default-jre-headless" in done.stderr
    assert (machine.directory / ".cache/kafka/libs/kafka.jar").exists()


def test_a_package_that_does_not_help_is_not_taken_for_help(machine: Machine):
    """Where the distribution's Java is too old, the script says so and does not go on."""
    machine.has("id", "echo 0")
    machine.has("apt-get", "exit 0")
    done = machine.bootstrap("kafka")
    assert (done.returncode, "still missing after installing default-jre-headless" in done.stderr) == (1, True)


def test_kafkas_jars_are_fetched_once_until_their_list_changes(machine: Machine):
    """The second call does nothing; a new pom.xml replaces all jars, old ones included."""
    machine.has("java", JAVA_17)
    machine.has("mvn", MAVEN)
    assert machine.bootstrap("kafka").returncode == 0
    assert machine.bootstrap("kafka").returncode == 0
    assert machine.log("mvn") == ["run"]
    libs = machine.directory / ".cache" / "kafka" / "libs"
    (libs / "kafka-of-yesterday.jar").touch()
    with (machine.directory / "compose/kafka/pom.xml").open("a") as pom:
        pom.write("<!-- another version -->\n")
    assert machine.bootstrap("kafka").returncode == 0
    assert machine.log("mvn") == ["run", "run"]
    assert sorted(path.name for path in libs.iterdir()) == ["kafka.jar", "pom.xml"]


def test_a_broken_download_is_not_taken_for_kafka(machine: Machine):
    """When Maven fails, the next call tries again."""
    machine.has("java", JAVA_17)
    machine.has("mvn", f"{MAVEN}; exit 1")
    assert machine.bootstrap("kafka").returncode != 0
    machine.has("mvn", MAVEN)
    assert machine.bootstrap("kafka").returncode == 0
    assert machine.log("mvn") == ["run", "run"]


def test_a_system_without_a_known_package_manager_gets_the_name(machine: Machine):
    """The message still says what is wanted and what Debian calls it."""
    done = machine.bootstrap("kcat")
    assert (done.returncode, "kcat is missing; install it and put it on PATH" in done.stderr) == (1, True)


def test_an_old_python_counts_as_missing(machine: Machine):
    """An interpreter before 3.11, or a version manager's shim that runs nothing, does not make the environment."""
    for name in ("python3", "python3.11"):
        machine.has(name, "exit 1")
    machine.has("dnf", "exit 1")
    done = machine.bootstrap("venv")
    assert (done.returncode, "Python 3.11 or later is missing; install it with: sudo dnf install -y python3.12" in done.stderr) == (1, True)


def test_an_unknown_part_is_refused(machine: Machine):
    """A typing error is no success."""
    done = machine.bootstrap("kafak")
    assert (done.returncode, "there is no 'kafak'" in done.stderr) == (1, True)


LOCK = """numpy==2.0 \\
    --hash=sha256:aa
    # via torch
torch==2.15.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via penstock
typer==1 \\
    --hash=sha256:dd
"""


def test_constraints_are_the_lock_itself(machine: Machine):
    """An installation without the development tools gets the locked versions, hashes and all."""
    (machine.directory / "requirements.lock").write_text(LOCK)
    assert machine.bootstrap("constraints", UV_TORCH_BACKEND="").stdout == LOCK


def test_constraints_for_another_build_of_torch_keep_every_other_hash(machine: Machine):
    """Only torch's own hashes go; its version stays."""
    (machine.directory / "requirements.lock").write_text(LOCK)
    done = machine.bootstrap("constraints", UV_TORCH_BACKEND="cpu")
    assert done.stdout == LOCK.replace("torch==2.15.0 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n", "torch==2.15.0\n")
