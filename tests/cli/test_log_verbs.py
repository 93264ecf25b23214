"""Verbs that look at the log: topics, models, asyncapi, doctor."""

import json
import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from pipeline.cli import log_checks
from pipeline.cli.finding import Status
from pipeline.settings import Settings
from pipeline.transport.base import Committed, TopicSpec, Transport, TransportError
from pipeline.transport.opening import open_transport
from schemas.topics import Topics
from tests.cli.conftest import Command, Work
from tests.scripted_worker import echo
from workers.health import HealthServer


def test_topics_are_planned_and_applied_once(command: Command, tmp_path: Path):
    """`plan` changes nothing, `apply` creates what is missing, and applying again finds nothing to do."""
    where = ["--transport", "embedded", "--data-dir", tmp_path, "--topic-prefix", "mine"]
    names = set(Topics("mine").all)
    for _ in range(2):
        plan = command("topics", "plan", *where)
        assert {line.partition(":")[0] for line in plan.out.splitlines()} == names
        assert "missing" in plan.out
    made = command("topics", "apply", "--json", *where)
    assert {(line["topic"], line["state"]) for line in map(json.loads, made.out.splitlines())} == {(name, "created") for name in names}
    for verb in ("apply", "plan"):
        again = command("topics", verb, *where)
        assert (again.code, again.out) == (0, "")
        assert "as they should be" in again.err


def test_a_topic_that_differs_is_told_and_left_alone(command: Command, tmp_path: Path, settings: Settings):
    """Too few partitions are the operator's to mend: they are named, and nothing is altered."""
    log = open_transport(settings)
    log.create([TopicSpec(name=settings.topics.requests, partitions=2)])
    log.close()
    for verb in ("apply", "plan"):
        done = command("topics", verb, "--json", "--transport", "embedded", "--data-dir", tmp_path)
        differences = [line for line in map(json.loads, done.out.splitlines()) if line["state"] == "differs"]
        assert {"topic": settings.topics.requests, "state": "differs", "setting": "partitions", "actual": "2", "wanted": "12"} in differences
        assert "broker's tools" in done.err


def test_models_are_described_from_their_files(command: Command, tmp_path: Path):
    """The model that ships is always listed; others with what their files say, or what is wrong with them."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"architectures": ["Gemma"], "text_config": {"max_position_embeddings": 77, "dtype": "float16"}}')
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"x" * 10)
    (tmp_path / "empty").mkdir()
    (tmp_path / "config.toml").write_text(
        f'models = [{{name = "mine", source = "{tmp_path}/mine"}}, {{name = "empty", source = "{tmp_path}/empty"}}, '
        '{name = "far", source = "nobody/nothing-of-that-name"}]'
    )
    done = command("models", "--json", "--config", tmp_path / "config.toml")
    mine, empty, far, shipped = map(json.loads, done.out.splitlines())
    assert (mine["architecture"], mine["context_tokens"], mine["dtype"], mine["weights_bytes"]) == ("Gemma", 77, "float16", 10)
    assert "config.json" in empty["problem"]
    assert (far["is_here"], far["problem"]) == (False, None)
    assert (shipped["name"], shipped["served"], mine["served"]) == ("tiny", False, True)
    assert shipped["weights_bytes"] > 1_000_000
    table = command("models", "--config", tmp_path / "config.toml").out
    assert "Gemma" in table
    assert "fetches it from the hub" in table


def test_the_contract_is_written_for_these_topics(command: Command, tmp_path: Path):
    """The AsyncAPI document goes to stdout or to a file, and names the configured topics."""
    document = json.loads(command("asyncapi", "--topic-prefix", "mine").out)
    assert document["asyncapi"].startswith("3.")
    assert document["channels"]["requests"]["address"] == "mine.requests"
    done = command("asyncapi", "--topic-prefix", "mine", "--output", tmp_path / "contract.json")
    assert done.out == ""
    assert json.loads((tmp_path / "contract.json").read_text()) == document


def findings(out: str) -> dict[str, list[dict[str, str]]]:
    """A doctor's report by check."""
    found: dict[str, list[dict[str, str]]] = {}
    for line in map(json.loads, out.splitlines()):
        found.setdefault(line["check"], []).append(line)
    return found


def test_the_doctor_finds_a_good_deployment_good(command: Command, log: list[object], work: Work):
    """With a log, its topics and a worker, nothing fails, and the probe says how far the clocks are apart."""
    work(echo)
    done = command("doctor", "--json", *log)
    found = findings(done.out)
    assert done.code == 0, done.out
    assert found.keys() >= {"software", "device", "memory", "model", "worker", "log", "group", "write and read", "clock"}
    assert {f["status"] for check in ("software", "device", "memory", "model", "log", "write and read", "clock") for f in found[check]} == {"ok"}
    assert "ms" in found["clock"][0]["detail"]


def test_the_doctor_says_what_to_do(command: Command, tmp_path: Path):
    """What is wrong comes with advice: a missing model fails, missing topics warn."""
    done = command("doctor", "--transport", "embedded", "--data-dir", tmp_path)
    assert done.code == 0
    assert "penstock topics apply" in done.out
    (tmp_path / "c.toml").write_text('models = [{name = "gone", source = "./gone"}]\n[kafka]\ncreate_topics = false\n')
    done = command("doctor", "--json", "--transport", "embedded", "--data-dir", tmp_path, "--config", tmp_path / "c.toml")
    found = findings(done.out)
    assert done.code == 1
    assert (found["model"][0]["status"], found["topics"][0]["status"]) == ("fail", "fail")
    assert found["model"][0]["advice"]


def test_the_doctor_ends_with_69_where_the_log_is_away(command: Command, tmp_path: Path):
    """What can be checked without the log is checked all the same."""
    (tmp_path / "file").write_text("in the way")
    done = command("doctor", "--json", "--transport", "embedded", "--data-dir", tmp_path / "file" / "x")
    assert done.code == 69
    assert findings(done.out)["log"][0]["status"] == "fail"
    assert findings(done.out)["model"][0]["status"] == "ok"


@pytest.mark.parametrize(("skew_ms", "status"), [(0, Status.OK), (-5_000, Status.WARN), (3_600_000, Status.FAIL)])
def test_the_doctor_measures_whose_clock_is_wrong(
    settings: Settings, transport: Transport, monkeypatch: pytest.MonkeyPatch, skew_ms: int, status: Status
):
    """A clock that is off by seconds warns, by more than half a minute fails."""
    read_back = log_checks._read_back
    monkeypatch.setattr(log_checks, "_read_back", lambda *a: read_back(*a) + skew_ms)
    (clock,) = [finding for finding in log_checks.clock(transport, settings) if finding.check == "clock"]
    assert clock.status is status
    assert (clock.advice is None) == (status is Status.OK)


def test_the_doctor_finds_that_it_may_not_write(settings: Settings, transport: Transport, monkeypatch: pytest.MonkeyPatch):
    """Where the log refuses the probe the finding names the topic."""

    def refuse(*_: object) -> None:
        raise TransportError("not authorised")

    monkeypatch.setattr(log_checks, "_write_probe", refuse)
    (finding,) = log_checks.clock(transport, settings)
    assert finding.status is Status.FAIL
    assert settings.topics.control in str(finding.advice)


def test_the_doctors_probe_disturbs_no_worker(command: Command, log: list[object], work: Work):
    """The probe is no cancel, and a worker goes on as before."""
    worker = work(echo)
    assert command("doctor", *log).code == 0
    assert json.loads(command("submit", "--prompt", "still there", "--wait", "--json", *log).out)["error"] is None
    assert worker.cancelled == set()


def test_the_doctor_tells_of_the_groups_lag(settings: Settings, transport: Transport):
    """A group that never committed is a warning; one that did is told with what is open."""
    (never,) = log_checks.group(transport, settings)
    assert never.status is Status.WARN
    with transport.consumer(settings.kafka.group_id, [settings.topics.requests]) as consumer:
        while not consumer.assignment():
            consumer.poll(0.1, 10)
        consumer.commit({partition: Committed(0) for partition in consumer.assignment()}, 5.0)
    (known,) = log_checks.group(transport, settings)
    assert known.status is Status.OK
    assert "0 requests" in known.detail


@pytest.mark.usefixtures("transport")
def test_the_doctor_asks_the_workers_of_this_machine(command: Command, log: list[object], settings: Settings):
    """A worker that is ready is fine, one that is not is told with its reason."""
    reason: list[str | None] = [None]
    server = HealthServer("127.0.0.1", 0, live=lambda: None, ready=lambda: reason[0], registry=CollectorRegistry(), batches=dict)
    (settings.data_dir / f"worker-{os.getpid()}.json").write_text(json.dumps({"pid": os.getpid(), "http": server.start()}))
    try:
        assert findings(command("doctor", "--json", *log).out)["worker"][0]["status"] == "ok"
        reason[0] = "loading models"
        (finding,) = findings(command("doctor", "--json", *log).out)["worker"]
    finally:
        server.close()
    assert finding["status"] == "warn"
    assert "loading models" in finding["detail"]


@pytest.mark.usefixtures("transport")
def test_the_doctor_finds_too_little_memory_and_missing_devices(command: Command, log: list[object], monkeypatch: pytest.MonkeyPatch):
    """Weights that do not fit, and a device that is not there, fail."""
    monkeypatch.setattr("pipeline.engine.resources.free_memory_bytes", lambda _: 1_000)
    done = command("doctor", "--json", *log)
    assert (done.code, findings(done.out)["memory"][0]["status"]) == (1, "fail")
    monkeypatch.setattr("pipeline.engine.resources.is_available", lambda _: False)
    monkeypatch.setenv("PENSTOCK_DEVICE", "mps")
    done = command("doctor", "--json", *log)
    assert (done.code, findings(done.out)["device"][0]["status"]) == (1, "fail")
