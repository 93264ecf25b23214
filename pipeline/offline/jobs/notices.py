"""Tells the outside that a job is over, again and again until it is taken, and gives up after a day."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import structlog

from pipeline.offline import files
from pipeline.offline.jobs.registry import Home
from pipeline.offline.jobs.tally import Standing, Tally
from pipeline.offline.jobs.webhook import WebhookFailed, WebhookRefused, post
from pipeline.settings import JobsSettings

log = structlog.get_logger(__name__)

FIRST_S, LONGEST_S, ATTEMPTS = 5.0, 7_200.0, 22
"""Waits double from the first to the longest: the last attempt is made after about a day."""


def tell(home: Home, settings: JobsSettings) -> None:
    """Sends the job's webhook if it is time to, and notes what became of it."""
    url = home.submission.webhook
    if url is None or not home.owes_notice:
        return
    attempts = int(json.loads(home.notice_file.read_bytes()).get("attempts", 0)) + 1
    standing = Tally(home).read()
    secret = settings.webhook_secret
    message = f"{home.id}-{home.submission.submitted_ms}"
    try:
        post(
            url,
            message,
            payload(standing),
            secret=None if secret is None else secret.get_secret_value(),
            allows_private=settings.webhook_private_addresses,
        )
    except WebhookRefused as error:
        _settle(home, "webhook_refused", error)
    except WebhookFailed as error:
        if attempts >= ATTEMPTS:
            _settle(home, "webhook_given_up", error)
            return
        wait_s = min(FIRST_S * 2.0 ** (attempts - 1), LONGEST_S)
        log.warning("webhook_failed", job=home.id, attempts=attempts, detail=str(error), again_in_s=wait_s)
        _owe(home, {"attempts": attempts, "detail": str(error)}, time.time() + wait_s)
    else:
        _settle(home, "webhook_taken", None)


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


def _settle(home: Home, event: str, error: Exception | None) -> None:
    if error is None:
        log.info(event, job=home.id)
    else:
        log.error(event, job=home.id, detail=str(error))
    home.notice_file.unlink(missing_ok=True)


def _owe(home: Home, said: Mapping[str, Any], due_s: float) -> None:
    files.replace(home.notice_file, json.dumps(said).encode())
    os.utime(home.notice_file, (due_s, due_s))
