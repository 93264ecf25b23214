"""The verbs that start processes: what they hand to the worker."""

import sys
from types import SimpleNamespace

import pytest

from pipeline.settings import DeviceChoice, DtypeChoice, Settings, TransportKind
from tests.cli.conftest import Command


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that a worker was started with; it ends at once with 17."""
    seen: list[Settings] = []

    def main(settings: Settings) -> int:
        seen.append(settings)
        return 17

    monkeypatch.setitem(sys.modules, "workers.stream", SimpleNamespace(main=main))
    return seen


def test_a_worker_gets_its_settings_and_its_exit_code_is_the_commands(command: Command, started: list[Settings], monkeypatch: pytest.MonkeyPatch):
    """Flags become settings over the environment, and models are named one by one."""
    monkeypatch.setenv("PENSTOCK_DEVICE", "cuda")
    monkeypatch.setenv("PENSTOCK_HTTP__HOST", "0.0.0.0")
    arguments = ["--model", "a=./x", "--model", "b=org/name=1", "--dtype", "bfloat16", "--device", "cpu", "--http-port", 0, "--group-id", "mine"]
    assert command("worker", *arguments).code == 17
    (settings,) = started
    assert [(model.name, model.source) for model in settings.models] == [("a", "./x"), ("b", "org/name=1")]
    assert (settings.dtype, settings.device, settings.transport) == (DtypeChoice.BFLOAT16, DeviceChoice.CPU, TransportKind.KAFKA)
    assert (settings.http.port, settings.http.host, settings.kafka.group_id) == (0, "0.0.0.0", "mine")


def test_a_worker_without_flags_is_left_to_the_environment(command: Command, started: list[Settings], monkeypatch: pytest.MonkeyPatch):
    """Nothing is set that was not asked for."""
    monkeypatch.setenv("PENSTOCK_MODELS", '[{"name": "a", "source": "b"}]')
    assert command("worker").code == 17
    assert started[0].models[0].name == "a"


@pytest.mark.parametrize("text", ["a", "=x", "a="])
def test_a_model_needs_a_name_and_a_source(command: Command, started: list[Settings], text: str):
    """Half a model is bad configuration."""
    done = command("worker", "--model", text)
    assert (done.code, started) == (78, [])
    assert "NAME=PATH_OR_HUB_ID" in done.err


def test_up_needs_no_broker_and_says_how_to_talk(command: Command, started: list[Settings], tmp_path, monkeypatch: pytest.MonkeyPatch):
    """`up` takes the embedded log unless another was asked for, and names the commands to use next."""
    done = command("up", "--data-dir", tmp_path)
    assert (done.code, done.out) == (17, "")
    assert f"penstock chat --model tiny --transport embedded --data-dir {tmp_path}" in done.err
    assert command("up", "--transport", "kafka", "--model", "a=b").err.count("penstock chat --model a --transport kafka\n") == 1
    monkeypatch.setenv("PENSTOCK_TRANSPORT", "kafka")
    command("up")
    assert [settings.transport for settings in started] == [TransportKind.EMBEDDED, TransportKind.KAFKA, TransportKind.KAFKA]
