"""Tells the outside that a job is over, again and again until it is taken; gives up after a day, or at once where no waiting mends it."""

import json
import os
import time
from dataclasses import asdict
from typing import Any

import structlog

from pipeline.offline import files
from pipeline.offline.jobs.registry import Home
from pipeline.offline.jobs.tally import Standing, Tally
from pipeline.offline.jobs.webhook import WebhookFailed, WebhookRefused, post
from pipeline.offline.refusals import JobRefused
from pipeline.settings import JobsSettings

log = structlog.get_logger(__name__)

FIRST_S, LONGEST_S, ATTEMPTS = 5.0, 7_200.0, 22
"""Waits double from the first to the longest: the last attempt is made after about a day."""


def tell(home: Home, settings: JobsSettings) -> None:
    """Sends the job's webhook if it is time to, and notes what became of it.

    Raises:
        StoreAway: The job's folder is away, and with it how the job ended.
    """
    url = home.submission.webhook
    if url is None or not home.owes_notice:
        return
    attempts = int(json.loads(home.notice_file.read_bytes()).get("attempts", 0)) + 1
    try:
        _send(home, settings, url)
    except (WebhookRefused, JobRefused) as error:
        _give_up(home, attempts, error)
    except WebhookFailed as error:
        if attempts >= ATTEMPTS:
            _give_up(home, attempts, error)
        else:
            _put_off(home, attempts, error)
    else:
        log.info("webhook_taken", job=home.id)
        home.notice_file.unlink(missing_ok=True)


def payload(standing: Standing) -> dict[str, Any]:
    """What a webhook says: counts and names, nothing of any row."""
    counts = asdict(standing.counts)
    return {
        "type": f"job.{standing.phase.value}",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "data": {
            "job": standing.job,
            "status": standing.phase.value,
            "task": standing.task,
            "model": standing.model,
            "output": standing.output,
            "planned_rows": standing.planned_rows,
            "failure": standing.failure,
            **counts,
        },
    }


def _send(home: Home, settings: JobsSettings, url: str) -> None:
    secret = settings.webhook_secret
    post(
        url,
        f"{home.id}-{home.submission.submitted_ms}",
        payload(_standing(home)),
        secret=None if secret is None else secret.get_secret_value(),
        allows_private=settings.webhook_private_addresses,
    )


def _standing(home: Home) -> Standing:
    try:
        return Tally(home).read()
    except ValueError as error:  # the next look finds the same; what it says may quote the record
        raise JobRefused(f"{home.submission.out}: a record of the job is damaged ({type(error).__name__})") from None


def _give_up(home: Home, attempts: int, error: Exception) -> None:
    log.warning("webhook_given_up", job=home.id, attempts=attempts, detail=str(error))
    home.give_notice_up(str(error))


def _put_off(home: Home, attempts: int, error: Exception) -> None:
    wait_s = min(FIRST_S * 2.0 ** (attempts - 1), LONGEST_S)
    log.warning("webhook_failed", job=home.id, attempts=attempts, detail=str(error), again_in_s=wait_s)
    due_s = time.time() + wait_s
    files.replace(home.notice_file, json.dumps({"attempts": attempts, "detail": str(error)}).encode())
    os.utime(home.notice_file, (due_s, due_s))
