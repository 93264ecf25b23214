"""How an engine plans its steps, and where what it learns of their times is kept across restarts."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pipeline.engine.base import ModelInfo
from pipeline.scheduling.adaptive import NO_TARGETS, Adaptive
from pipeline.scheduling.pace import Targets
from pipeline.scheduling.policy import Policy
from pipeline.scheduling.step_model import StepModel
from pipeline.scheduling.transit import Transit

log = structlog.get_logger(__name__)

SAVE_EVERY_S = 60.0
"""How much learning a crash may cost."""


class Learned:
    """A step model and the file that it is kept in; None where it is not."""

    def __init__(self, model: StepModel, path: Path | None):
        self._model = model
        self._path = path
        self._saved_s: float | None = None

    def save_if_due(self, now_s: float) -> None:
        """Saves once a minute."""
        if self._saved_s is None:
            self._saved_s = now_s
        elif now_s - self._saved_s >= SAVE_EVERY_S:
            self._saved_s = now_s
            self.save()

    def save(self) -> None:
        """Replaces the file in one piece. Without it the next start learns again, so a full disk stops nobody."""
        if self._path is None or not self._model.known:
            return
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._model.to_json()), encoding="utf-8")
            part.replace(self._path)
        except OSError as error:
            log.warning("step_times_not_saved", path=str(self._path), detail=error.strerror)


def read_model(path: Path | None) -> StepModel:
    """Reads what was learned before, or begins anew."""
    if path is None or not path.exists():
        return StepModel()
    try:
        return StepModel.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # half a file, another version, not ours
        log.warning("step_times_ignored", path=str(path), detail=str(error)[:200])
        return StepModel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """What the settings say of how steps are planned.

    Attributes:
        targets: What live requests want.
        weights: Tenants' shares of a lane under contention, by name; 1 where one is not named.
        folder: Where step times are kept; None keeps none.
        transit: How long live requests take to the engine and from it; somebody else's to observe.
        policy: Plans instead of the adaptive policy; nothing of it is kept.
    """

    targets: Targets = NO_TARGETS
    weights: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    transit: Transit = field(default_factory=Transit)
    policy: Policy | None = None

    def open(self, info: ModelInfo, threads: int) -> tuple[Policy, Learned]:
        """Makes the policy of one engine. Step times are those of a model on a device with so many threads."""
        if self.policy is not None:
            return self.policy, Learned(StepModel(), None)
        path = None if self.folder is None else self.folder / f"{_identity(info, threads)}.json"
        model = read_model(path)
        return Adaptive(model, self.targets, weights=self.weights, transit=self.transit), Learned(model, path)


def _identity(info: ModelInfo, threads: int) -> str:
    """Names what step times depend on: readable, and unique by its digest."""
    parts = (info.name, info.source, info.revision or "", info.dtype, info.device, str(threads))
    readable = "".join(c if c.isalnum() else "-" for c in f"{info.name}-{info.dtype}-{info.device}-{threads}")[:80]
    return f"{readable}-{hashlib.blake2b(chr(0).join(parts).encode(), digest_size=6).hexdigest()}"
