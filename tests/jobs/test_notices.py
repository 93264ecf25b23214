"""Whoever is to hear of a job's end hears of it once, is tried again while that may help, and is given up when it does not."""

import json
import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.offline.jobs.errands import Errand, Kind
from pipeline.offline.jobs.notices import ATTEMPTS, FIRST_S, tell
from pipeline.offline.jobs.registry import Home
from pipeline.offline.jobs.tally import Tally
from pipeline.settings import JobsSettings
from tests.jobs.calls import call_again
from tests.jobs.conftest import Bench, Command
from tests.jobs.ear import Ear, certificate, ear
from tests.jobs.test_verbs import config

__all__ = ["certificate", "config", "ear"]

PRIVATE = JobsSettings(webhook_private_addresses=True)


@pytest.fixture
def home(bench: Bench, ear: Ear, dataset: Path, out: Path) -> Home:
    """A job that failed, of which somebody wants to hear."""
    home = bench.submit(dataset, out, webhook=ear.url)
    home.fail("the input is gone")
    return home


def make_due(home: Home) -> None:
    """Lets the time of the next attempt come."""
    os.utime(home.notice_file, (0, 0))


def test_a_webhook_that_is_not_taken_is_sent_again_later_and_at_last_settled(ear: Ear, home: Home):
    """Waits grow; once it is taken it is sent no more."""
    ear.status = 500
    tell(home, PRIVATE)
    tell(home, PRIVATE)
    assert len(ear.heard) == 1
    assert not home.owes_notice
    assert FIRST_S - 1 <= home.notice_file.stat().st_mtime - time.time() <= FIRST_S
    make_due(home)
    ear.status = 200
    tell(home, PRIVATE)
    assert not home.notice_file.exists()
    tell(home, PRIVATE)
    first, second = (json.loads(body) for _, body in ear.heard)
    assert first["type"] == second["type"] == "job.failed"
    assert second["data"]["failure"] == "the input is gone"
    assert ear.heard[0][0]["webhook-id"] == ear.heard[1][0]["webhook-id"]
    assert home.untold is None


@pytest.mark.parametrize("status", [404, 410])
def test_a_refusal_that_waiting_does_not_mend_ends_the_errand(bench: Bench, ear: Ear, home: Home, status: int):
    """One attempt and one warning that holds nothing of the address but its host; the job keeps the reason and calls nobody any more."""
    ear.status = status
    bench.driver = bench.drive(tell=lambda of: tell(of, PRIVATE))
    assert call_again(bench, home) == [Errand(Kind.NOTIFY, home.id)]
    with capture_logs() as lines:
        bench.answer_all()
        assert call_again(bench, home) == []
        bench.driver.notify(home.id)
    assert len(ear.heard) == 1
    assert [line for line in lines if line["log_level"] != "info"] == [
        {"event": "webhook_given_up", "log_level": "warning", "job": home.id, "attempts": 1, "detail": f"localhost answered {status}"}
    ]
    assert "/hook" not in str(lines)
    assert home.untold == Tally(home).read().untold == f"localhost answered {status}"


@pytest.mark.parametrize("status", [408, 429, 503])
def test_what_waiting_may_mend_is_tried_a_day_long(ear: Ear, home: Home, status: int):
    """And then given up, after as many attempts as there are."""
    ear.status = status
    for attempt in range(1, ATTEMPTS + 1):
        assert (home.owes_notice, home.untold, len(ear.heard)) == (True, None, attempt - 1)
        tell(home, PRIVATE)
        if attempt < ATTEMPTS:
            make_due(home)
    assert len(ear.heard) == ATTEMPTS
    assert not home.notice_file.exists()
    assert home.untold == f"localhost answered {status}"


def test_an_address_that_is_refused_is_not_asked_for_again(ear: Ear, home: Home):
    """Nothing is sent there."""
    tell(home, JobsSettings())
    assert ear.heard == []
    assert not home.notice_file.exists()
    assert "private network" in (home.untold or "")


def test_a_job_whose_folder_cannot_be_read_ends_the_errand(bench: Bench, ear: Ear, home: Home):
    """What there would be to tell cannot be known, and waiting changes nothing about it."""
    bench.driver = bench.drive(tell=lambda of: tell(of, PRIVATE))
    home.folder.plan_file.mkdir(parents=True)  # reading it fails, for the superuser too
    assert call_again(bench, home) == [Errand(Kind.NOTIFY, home.id)]
    bench.answer_all()
    assert call_again(bench, home) == []
    assert ear.heard == []
    assert "cannot be reached" in (home.untold or "")


def test_a_job_whose_records_are_damaged_ends_the_errand(ear: Ear, home: Home):
    """The reason quotes nothing of the record."""
    home.folder.path.mkdir()
    home.folder.plan_file.write_text("torn")
    tell(home, PRIVATE)
    assert ear.heard == []
    assert home.untold == f"{home.submission.out}: a record of the job is damaged (ValidationError)"
    assert not home.notice_file.exists()


def test_who_submits_again_is_told_again(bench: Bench, ear: Ear, home: Home, dataset: Path, out: Path):
    """What was given up before is forgotten."""
    ear.status = 404
    tell(home, PRIVATE)
    bench.submit(dataset, out, webhook=ear.url)
    assert (home.owes_notice, home.untold) == (True, None)


def test_who_submits_again_without_an_address_is_owed_nothing(bench: Bench, home: Home, dataset: Path, out: Path):
    """Nobody is called for a notice that has nowhere to go."""
    bench.submit(dataset, out)
    home.fail("the input is gone")
    assert call_again(bench, home) == []


def test_a_job_shows_that_its_webhook_was_given_up(command: Command, config: Path, ear: Ear, home: Home):
    """As a line, and as a member of the JSON."""
    ear.status = 404
    tell(home, PRIVATE)
    assert "untold because localhost answered 404" in command("jobs", "show", home.id, "--config", config).out
    assert json.loads(command("jobs", "show", home.id, "--json", "--config", config).out)["untold"] == "localhost answered 404"
