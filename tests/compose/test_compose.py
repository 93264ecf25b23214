"""What compose.yaml promises to whoever starts it: nothing exposed, nothing unpinned, nothing that starts too early."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings import ENV_PREFIX, load

COMPOSE_FILE = Path(__file__).parents[2] / "compose" / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("penstock:")}
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}


def default(value: str) -> str:
    """Returns the text with every `${NAME:-default}` replaced by its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(duration: str) -> int:
    """Returns a duration such as `45s` as a number."""
    return int(duration.removesuffix("s"))


def test_the_services_are_those_that_the_readme_names():
    """Kafka, its topics and one worker start by default; the GPU worker and the window into Kafka are asked for."""
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {"kafka": [], "topics": [], "worker-cpu": [], "worker-gpu": ["gpu"], "kafka-ui": ["ui"]}


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str):
    """Docker publishes past the host's firewall, so a port without an address is open to the network."""
    for port in SERVICES[name].get("ports", []):
        assert default(port).startswith("127.0.0.1:")


def test_published_ports_differ():
    """All profiles can run at once."""
    ports = [default(port).split(":")[1] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == len(set(ports)) == 4


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOT))
def test_a_service_that_stays_says_when_it_is_healthy(name: str):
    """Each has a probe with a bound on how long one may take."""
    probe = SERVICES[name]["healthcheck"]
    assert probe["test"][0] == "CMD"
    assert seconds(probe["timeout"]) <= seconds(probe["interval"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_until_what_it_needs_is_ready(name: str):
    """One shots have to have succeeded and the others to be healthy: started is not enough."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] == ("service_completed_successfully" if other in ONE_SHOT else "service_healthy")


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS.keys()))
def test_foreign_images_carry_an_exact_version_that_a_digest_can_replace(name: str):
    """The default is a full version, never a moving tag; the variable is where a digest goes."""
    variable, image = re.fullmatch(r"\$\{(\w+):-(.+)\}", SERVICES[name]["image"]).groups()
    assert variable == name.upper().replace("-", "_") + "_IMAGE"
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image)


@pytest.mark.parametrize("name", OURS)
def test_our_images_are_built_on_the_python_that_the_dockerfile_names(name: str):
    """Both places that name the base image name the same exact version."""
    dockerfile = (COMPOSE_FILE.parent / "Dockerfile").read_text()
    base = re.search(r"^ARG PYTHON_IMAGE=(.+)$", dockerfile, re.MULTILINE)[1]
    assert re.fullmatch(r"python:3\.12\.\d+-slim-\w+", base)
    assert default(OURS[name]["build"]["args"]["PYTHON_IMAGE"]) == base


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_contained(name: str):
    """The root file system is read-only, no capability is left, and the image's last user is not root."""
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    users = re.findall(r"^USER (\w+)$", (COMPOSE_FILE.parent / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["penstock"]


@pytest.mark.parametrize("name", OURS)
def test_the_settings_know_every_variable_that_our_containers_get(name: str, monkeypatch: pytest.MonkeyPatch):
    """What compose.yaml and the Dockerfile set is read as settings without complaint."""
    dockerfile = (COMPOSE_FILE.parent / "Dockerfile").read_text()
    variables = dict(re.findall(rf"({ENV_PREFIX}\w+)=(\S+)", dockerfile)) | SERVICES[name]["environment"]
    assert all(variable.startswith(ENV_PREFIX) for variable in variables)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, default(value))
    settings = load()
    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert settings.http.host == "0.0.0.0"


@pytest.mark.parametrize("name", ["kafka", "kafka-ui"])
def test_kafkas_containers_get_kafkas_variables_only(name: str):
    """A misspelt variable would be ignored in silence, so at least its prefix is right."""
    assert all(variable.startswith("KAFKA_") for variable in SERVICES[name]["environment"])


def test_workers_reach_kafka_on_the_listener_that_containers_resolve():
    """The address that clients in containers are told is the one that the broker advertises to them."""
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INTERNAL://{OURS['worker-cpu']['environment']['PENSTOCK_KAFKA__BOOTSTRAP_SERVERS']}" in advertised.split(",")


@pytest.mark.parametrize("name", ["worker-cpu", "worker-gpu"])
def test_a_worker_may_drain_before_it_is_killed(name: str):
    """Docker waits longer than a worker goes on with running requests after SIGTERM."""
    assert seconds(SERVICES[name]["stop_grace_period"]) > load().limits.drain_s


def has_compose_plugin() -> bool:
    """Tells whether this machine's docker client understands `docker compose`; it needs no daemon for that."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not has_compose_plugin(), reason="the docker client here has no compose plugin")
def test_docker_compose_accepts_the_file():
    """Docker's own reading of the file, all profiles included, finds no fault."""
    command = ["docker", "compose", "-f", str(COMPOSE_FILE), "--profile", "gpu", "--profile", "ui", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
