"""`penstock config show`: every setting, its value, and who decided it."""

import json
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.cli.conftest import Command


def shown(command: Command, *arguments: object) -> dict[str, dict[str, object]]:
    """Settings by path."""
    done = command("config", "show", "--json", *arguments)
    assert done.code == 0, done.err
    return {entry["path"]: entry for entry in map(json.loads, done.out.splitlines())}


def test_every_source_is_named(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Flag over environment over file over default, and the table says which it was."""
    file = tmp_path / "penstock.toml"
    file.write_text('[kafka]\ngroup_id = "from-file"\ntopic_prefix = "from-file"\npartitions = 5\n[http]\nport = 1\n')
    monkeypatch.setenv("PENSTOCK_KAFKA__TOPIC_PREFIX", "from-environment")
    monkeypatch.setenv("PENSTOCK_STREAM", '{"flush_tokens": 7}')
    monkeypatch.setenv("PENSTOCK_HTTP__PORT", "2")
    entries = shown(command, "--config", file, "--group-id", "from-flag")
    told = {path: (entries[path]["value"], entries[path]["source"]) for path in entries}
    assert told["kafka.group_id"] == ("from-flag", "flag")
    assert told["kafka.topic_prefix"] == ("from-environment", "environment (PENSTOCK_KAFKA__TOPIC_PREFIX)")
    assert told["http.port"] == (2, "environment (PENSTOCK_HTTP__PORT)")
    assert told["stream.flush_tokens"] == (7, "environment (PENSTOCK_STREAM)")
    assert told["kafka.partitions"] == (5, f"file ({file})")
    assert told["kafka.session_timeout_ms"] == (15_000, "default")
    assert all(entry["about"] for entry in entries.values())
    assert entries["kafka.partitions"]["variable"] == "PENSTOCK_KAFKA__PARTITIONS"


def test_no_setting_is_left_out(command: Command):
    """Every leaf of the tree is listed, by the path that sets it."""
    paths = shown(command).keys()
    for name, field in Settings.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        for path in [f"{name}.{below}" for below in inner] if inner else [name]:
            assert path in paths


def test_secrets_are_masked(command: Command, monkeypatch: pytest.MonkeyPatch):
    """A password is shown as stars, in the table and in JSON."""
    for name, value in (("SECURITY_PROTOCOL", "SASL_PLAINTEXT"), ("SASL_MECHANISM", "PLAIN"), ("SASL_USERNAME", "me"), ("SASL_PASSWORD", "hunter2")):
        monkeypatch.setenv(f"PENSTOCK_KAFKA__{name}", value)
    for form in ([], ["--json"]):
        done = command("config", "show", *form)
        assert done.code == 0
        assert "hunter2" not in done.out
    assert shown(command)["kafka.sasl_password"]["value"] == "**********"
    assert shown(command)["kafka.ssl_password"]["value"] is None


def test_plain_output_is_one_line_per_setting(command: Command):
    """Without a terminal there is a line `path = value  # source` for each, and no table."""
    lines = command("config", "show", "--topic-prefix", "mine").out.splitlines()
    assert 'kafka.topic_prefix = "mine"  # flag' in lines
    assert len(lines) == len(shown(command))
