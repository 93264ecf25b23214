"""Workers of this machine: where they listen, and what they say of themselves."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCard:
    """What a worker writes into its data folder while it runs."""

    pid: int
    url: str

    def not_ready(self) -> str | None:
        """Why it serves nothing yet; None once it does."""
        status, text = self._get("/readyz")
        return None if status == 200 else text.strip() or f"status {status}"

    def metrics(self) -> str:
        """Its metrics in Prometheus' text form; empty where it does not answer."""
        status, text = self._get("/metrics")
        return text if status == 200 else ""

    def batches(self) -> dict[str, Any] | None:
        """What its last steps were made of; None where it does not say."""
        status, text = self._get("/debug/batches")
        if status != 200:
            return None
        page: dict[str, Any] = json.loads(text)
        return page

    def _get(self, page: str) -> tuple[int | None, str]:
        try:
            with urllib.request.urlopen(self.url + page, timeout=ANSWER_S) as answer:  # noqa: S310 -- a loopback address from the worker's own card
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return None, f"no answer: {error}"


def find_workers(data_dir: Path) -> list[WorkerCard]:
    """The workers that run with this data folder; cards that a killed one left behind are passed over."""
    return [card for file in sorted(data_dir.glob("worker-*.json")) if (card := read_card(file)) is not None and _is_alive(card.pid)]


def read_card(file: Path) -> WorkerCard | None:
    """Reads a card; None where it is not, or not yet, complete."""
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        return WorkerCard(pid=int(card["pid"]), url=str(card["http"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
