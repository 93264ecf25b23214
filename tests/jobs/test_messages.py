"""What a broker may hand to a worker: ids in JSON, signed where keys are configured. Real messages through a broker in memory."""

import os
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import ContentDisallowed

from pipeline.offline.confinement import Confinement
from pipeline.offline.jobs.errands import Errand, Kind
from pipeline.offline.jobs.registry import is_own
from pipeline.offline.jobs.rooms import open_turnstile
from pipeline.settings import BadConfiguration, JobsSettings, Settings, load
from tests.jobs import certificates
from workers.caller import QUEUES, CeleryCaller
from workers.celery_app import build, configuration, run
from workers.jobs import build_driver


def settings(tmp_path: Path, **jobs: Any) -> Settings:
    """Jobs in a folder of the test's own."""
    return load({"jobs": {"folder": tmp_path / "jobs", **jobs}, "data_dir": tmp_path})


class Nobody:
    """Whom nobody can call."""

    def call(self, errand: Errand) -> None:
        raise NotImplementedError

    def is_idle(self) -> bool:
        return True


def take(app: Celery, queue: str) -> Any:
    """The next message of a queue."""
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as waiting:
        return waiting.get(block=False)


@pytest.fixture
def signed(tmp_path: Path) -> dict[str, str]:
    """Settings with keys."""
    certificate, key = certificates.make(tmp_path / "keys", "worker")
    return {"signing_key": str(key), "signing_certificate": str(certificate), "signing_trusted": str(tmp_path / "keys" / "*.crt")}


def test_a_message_carries_ids_and_nothing_else(tmp_path: Path):
    """In JSON, on the queue of its kind, with no place for a result."""
    app = build(settings(tmp_path))
    CeleryCaller(app).call(Errand(Kind.SCORE, "job-1", 7))
    message = take(app, "score")
    assert message.content_type == "application/json"
    assert message.payload[:2] == [["job-1", 7], {}]
    assert app.conf.result_backend is None


def test_only_json_is_taken():
    """A pickle is refused before it is looked at."""
    found = configuration(JobsSettings())
    assert found["accept_content"] == found["task_serializer"].split() == ["json"]


def test_signed_messages_are_taken_and_others_refused(tmp_path: Path, signed: dict[str, str]):
    """With keys, what anybody else puts into the broker is no task."""
    plain, keyed = build(settings(tmp_path)), build(settings(tmp_path, **signed))
    assert keyed.conf.accept_content == ["auth"]
    CeleryCaller(keyed).call(Errand(Kind.PLAN, "job-1"))
    message = take(keyed, "plan")
    message.accept = {"application/data"}
    assert message.decode()[0] == ["job-1"]
    CeleryCaller(plain).call(Errand(Kind.PLAN, "job-2"))
    forged = take(plain, "plan")
    forged.accept = {"application/data"}
    with pytest.raises(ContentDisallowed):
        forged.decode()


def test_an_empty_queue_is_idle_and_one_with_messages_is_not(tmp_path: Path):
    """So that reconciling knows lost messages from those that wait."""
    app = build(settings(tmp_path))
    caller = CeleryCaller(app)
    while not caller.is_idle():
        take(app, QUEUES[Kind.SCORE])
    caller.call(Errand(Kind.SCORE, "job-1", 0))
    assert not caller.is_idle()
    take(app, "score").ack()
    assert caller.is_idle()


def test_a_broker_that_is_away_costs_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The errand stays to be called out again."""
    caller = CeleryCaller(build(settings(tmp_path, broker_url="redis://127.0.0.1:1/0")))
    caller.call(Errand(Kind.PLAN, "job-1"))
    assert not caller.is_idle()
    assert "broker_away" in capsys.readouterr().out


def test_brokers_that_lose_tasks_and_unknown_queues_are_refused(tmp_path: Path):
    """Each with what there is instead."""
    with pytest.raises(BadConfiguration, match="lose tasks"):
        settings(tmp_path, broker_url="filesystem://")
    with pytest.raises(BadConfiguration, match="they are finalise, plan, score"):
        run(settings(tmp_path), ["scores"])
    with pytest.raises(BadConfiguration, match="go together"):
        settings(tmp_path, signing_key="key.pem")


def test_jobs_that_others_can_list_may_use_only_what_the_settings_name(tmp_path: Path):
    """A list of one's own is filled by oneself, whatever the broker; it is one's own until others are let in."""
    redis = {"broker_url": "redis://127.0.0.1:1/0"}
    list_of_jobs = tmp_path / "jobs"
    assert build_driver(settings(tmp_path, **redis), Nobody(), bool)._within is None
    list_of_jobs.mkdir(mode=0o755)
    assert build_driver(settings(tmp_path, **redis), Nobody(), bool)._within is None
    list_of_jobs.chmod(0o775)
    assert build_driver(settings(tmp_path, **redis), Nobody(), bool)._within == Confinement((), ())
    named = build_driver(settings(tmp_path, **redis, roots=[tmp_path], stores=["s3://rows"]), Nobody(), bool)._within
    assert named == Confinement((tmp_path,), ("s3://rows",))
    assert build_driver(settings(tmp_path, roots=[tmp_path]), Nobody(), bool)._within == Confinement((tmp_path,), ())
    results = build_driver(settings(tmp_path, roots=[], output_stores=["s3://results"]), Nobody(), bool)._within
    assert results == Confinement((), (), ("s3://results",))
    with pytest.raises(BadConfiguration, match="no object store"):
        settings(tmp_path, stores=["/data"])
    for name in ("stores", "output_stores"):
        with pytest.raises(BadConfiguration, match="roots must name"):
            settings(tmp_path, **{name: ["s3://rows"]})


def test_a_list_is_its_users_own_whatever_his_umask_and_whoever_makes_it(tmp_path: Path):
    """Also where rows were scored on a worker before any job was submitted."""
    former = os.umask(0o000)
    try:
        open_turnstile(settings(tmp_path), "auto").close()
    finally:
        os.umask(former)
    assert is_own(tmp_path / "jobs")
