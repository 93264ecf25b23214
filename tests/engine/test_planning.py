"""What an engine learns of its step times, kept across restarts."""

import json

from structlog.testing import capture_logs

from pipeline.engine.base import ModelInfo
from pipeline.engine.planning import SAVE_EVERY_S, Planning
from pipeline.scheduling.policy import FirstCome
from pipeline.scheduling.step_model import TRUSTED_AFTER_STEPS, Load

INFO = ModelInfo(
    name="team/small", source="s", revision=None, architecture="A", parameters=1, dtype="float32", device="cpu", context_tokens=64, vocabulary=8
)


def teach(policy, learned, folder):
    """Shows a model some steps and saves what it learned."""
    load = Load()
    load.decodes = 4
    for _ in range(TRUSTED_AFTER_STEPS + 2):
        policy.model.observe(load, 0.02)
    learned.save()
    (path,) = folder.iterdir()
    return path


def test_a_restart_begins_with_what_was_learned(tmp_path):
    """The same model on the same device with as many threads; another number of threads begins anew."""
    planning = Planning(folder=tmp_path / "times")
    policy, learned = planning.open(INFO, 2)
    assert not policy.model.known
    teach(policy, learned, tmp_path / "times")
    assert planning.open(INFO, 2)[0].model.seconds == policy.model.seconds
    assert planning.open(INFO, 2)[0].model.known
    assert not planning.open(INFO, 1)[0].model.known


def test_a_broken_file_is_ignored_with_a_warning(tmp_path):
    """Half a file, another version, no JSON: the worker starts and learns again."""
    planning = Planning(folder=tmp_path)
    policy, learned = planning.open(INFO, 2)
    path = teach(policy, learned, tmp_path)
    whole = path.read_text()
    for broken in (whole[:100], json.dumps({"terms": ["other"]}), "[]", "\x00"):
        path.write_text(broken)
        with capture_logs() as logs:
            assert not planning.open(INFO, 2)[0].model.known
        assert [line["event"] for line in logs] == ["step_times_ignored"]


def test_learning_is_saved_once_a_minute_and_a_full_disk_stops_nobody(tmp_path):
    """Nothing is written in between, nothing half written is left behind, and what can't be written is a warning."""
    planning = Planning(folder=tmp_path)
    policy, learned = planning.open(INFO, 2)
    path = teach(policy, learned, tmp_path)
    path.unlink()
    learned.save_if_due(10.0)
    learned.save_if_due(9.0 + SAVE_EVERY_S)
    assert not path.exists()
    learned.save_if_due(10.0 + SAVE_EVERY_S)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    path.unlink()
    path.mkdir()
    with capture_logs() as logs:
        learned.save()
    assert [line["event"] for line in logs] == ["step_times_not_saved"]


def test_a_policy_that_is_given_plans_and_nothing_is_kept(tmp_path):
    """That is how other controllers run over the same engine."""
    given = FirstCome()
    policy, learned = Planning(folder=tmp_path, policy=given).open(INFO, 2)
    learned.save()
    assert policy is given
    assert not list(tmp_path.iterdir())
