"""The partitions that this worker owns: claimed with an epoch, committed as far as they are done, given up in order."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from pipeline.delivery.ledger import PartitionLedger, decode_metadata
from pipeline.delivery.outbox import Channel, Outbox
from pipeline.transport.base import BrokerUnavailable, ChangeKind, Committed, Consumer, NotOwner, Partition
from schemas.control import Assigned, encode_control

log = structlog.get_logger(__name__)

COMMIT_EVERY_S = 0.5
COMMIT_TIMEOUT_S = 3.0
RETRY_AFTER_S = 3.0
CLAIM_AGAIN_S = 0.5


@dataclass(slots=True)
class _Claim:
    """Partitions on their way to being ours: the epoch is the offset of our `assigned` record."""

    partitions: frozenset[Partition]
    epoch: int | None = None
    not_before_s: float = 0.0
    channel: Channel = field(default_factory=lambda: Channel(on_refused=_assigned_refused))


@dataclass(slots=True)
class _Leaving:
    """Partitions on their way out, until what runs has ended or the budget is spent."""

    partitions: frozenset[Partition]
    deadline_s: float


class Assignments:
    """One owner of the ledgers and of every commit."""

    def __init__(self, *, consumer: Consumer, outbox: Outbox, control: Partition, member: str, window: int, revoke_budget_s: float):
        self._consumer = consumer
        self._outbox = outbox
        self._control = control
        self._member = member
        self._window = window
        self._revoke_budget_s = revoke_budget_s
        self._ledgers: dict[Partition, PartitionLedger] = {}
        self._claims: list[_Claim] = []
        self._leaving: list[_Leaving] = []
        self._paused: frozenset[Partition] = frozenset()
        self._committed: dict[Partition, Committed] = {}
        self._commit_at_s = 0.0

    def follow(self, now_s: float, on_leaving: Callable[[frozenset[Partition]], None], on_gone: Callable[[frozenset[Partition]], None]) -> None:
        """Acts on what changed hands since the last call.

        Args:
            now_s: The monotonic clock.
            on_leaving: Told of partitions that will be given up soon: what has not begun may be dropped, what runs may end.
            on_gone: Told of partitions that are ours no more: everything of theirs is to be dropped.
        """
        for change in self._consumer.changes():
            if change.kind is ChangeKind.ASSIGNED:
                self._announce(change.partitions)
            elif change.kind is ChangeKind.REVOKED:
                on_leaving(change.partitions)
                self._leaving.append(_Leaving(change.partitions, now_s + self._revoke_budget_s))
            else:
                self._forget(change.partitions, on_gone)
        for claim in [claim for claim in self._claims if claim.epoch is not None and claim.not_before_s <= now_s]:
            self._take(claim, claim.epoch or 0, now_s)
        for leaving in tuple(self._leaving):
            if now_s >= leaving.deadline_s or not self.open_offsets(leaving.partitions):
                self._let_go(leaving, on_gone)

    def owns(self, partition: Partition) -> bool:
        """Tells whether requests of this partition may be admitted."""
        return partition in self._ledgers and all(partition not in leaving.partitions for leaving in self._leaving)

    def is_settled(self) -> bool:
        """Tells whether the group has answered and every claim went through."""
        return self._consumer.joined() and not self._claims

    @property
    def partitions(self) -> frozenset[Partition]:
        """The partitions owned now."""
        return frozenset(self._ledgers)

    def ledger(self, partition: Partition) -> PartitionLedger:
        """The ledger of a partition that is owned."""
        return self._ledgers[partition]

    def open_offsets(self, partitions: Collection[Partition]) -> int:
        """How many offsets of these partitions are in flight."""
        return sum(self._ledgers[p].open_offsets() for p in partitions if p in self._ledgers)

    def hold(self, *, everything: bool, besides: Collection[Partition]) -> None:
        """Pauses the partitions whose window is full and those named `besides`, or all of them, and resumes the others."""
        wanted = frozenset(p for p, ledger in self._ledgers.items() if everything or ledger.is_full() or p in besides)
        if wanted == self._paused:
            return
        self._consumer.pause(wanted - self._paused)
        self._consumer.resume((self._paused - wanted) & self.partitions)
        self._paused = wanted

    def commit(self, now_s: float, *, at_once: bool = False) -> None:
        """Commits what is done, every so often."""
        if now_s < self._commit_at_s and not at_once:
            return
        self._commit_at_s = now_s + COMMIT_EVERY_S
        due = {p: at for p, ledger in self._ledgers.items() if (at := _position(ledger)) != self._committed.get(p) and not self._is_leaving(p)}
        if due:
            self._commit(due, now_s)

    def leave(self, timeout_s: float) -> None:
        """Commits what is done and leaves the group."""
        self.commit(0.0, at_once=True)
        self._consumer.close(timeout_s)

    def _announce(self, partitions: frozenset[Partition]) -> None:
        if not partitions:
            return
        claim = _Claim(partitions)
        self._claims.append(claim)
        record = encode_control(Assigned(member=self._member, partitions=tuple(f"{p.topic}/{p.number}" for p in sorted(partitions))))

        def landed(offset: int) -> None:
            claim.epoch = offset

        self._outbox.post(claim.channel, self._control, record, landed)

    def _take(self, claim: _Claim, epoch: int, now_s: float) -> None:
        """Commits the partitions as they are: the coordinator refuses a member that is not the owner any more."""
        try:
            committed = dict(self._consumer.committed(claim.partitions))
            for partition in claim.partitions - committed.keys():
                committed[partition] = Committed(self._consumer.position(partition))
            self._consumer.commit(committed, COMMIT_TIMEOUT_S)
        except (NotOwner, BrokerUnavailable) as error:  # if they are really gone, the consumer will say so
            log.warning("claim_delayed", error=type(error).__name__, detail=str(error))
            claim.not_before_s = now_s + CLAIM_AGAIN_S
            return
        self._claims.remove(claim)
        for partition, (offset, metadata) in committed.items():
            self._ledgers[partition] = PartitionLedger(
                next_offset=offset, epoch=epoch, window=self._window, done_before=decode_metadata(offset, metadata)
            )
            self._committed[partition] = Committed(offset, metadata)
        self._consumer.resume(claim.partitions - self._paused)
        log.info("partitions_assigned", partitions=len(claim.partitions), epoch=epoch)

    def _let_go(self, leaving: _Leaving, on_gone: Callable[[frozenset[Partition]], None]) -> None:
        self._leaving.remove(leaving)
        commits = {p: _position(self._ledgers[p]) for p in leaving.partitions if p in self._ledgers}
        self._consumer.release(leaving.partitions, commits)
        log.info("partitions_revoked", partitions=len(leaving.partitions), unfinished=self.open_offsets(leaving.partitions))
        self._forget(leaving.partitions, on_gone)

    def _forget(self, partitions: frozenset[Partition], on_gone: Callable[[frozenset[Partition]], None]) -> None:
        on_gone(partitions)
        for partition in partitions:
            self._ledgers.pop(partition, None)
            self._committed.pop(partition, None)
        self._paused -= partitions
        for claim in tuple(self._claims):
            claim.partitions -= partitions
            if not claim.partitions:
                self._outbox.abandon(claim.channel)
                self._claims.remove(claim)
        for leaving in tuple(self._leaving):
            leaving.partitions -= partitions
            if not leaving.partitions:
                self._leaving.remove(leaving)

    def _commit(self, due: dict[Partition, Committed], now_s: float) -> None:
        try:
            self._consumer.commit(due, COMMIT_TIMEOUT_S)
        except NotOwner:
            log.warning("commit_refused", partitions=len(due))
        except BrokerUnavailable as error:
            log.warning("commit_delayed", detail=str(error))
            self._commit_at_s = now_s + RETRY_AFTER_S
        else:
            self._committed.update(due)

    def _is_leaving(self, partition: Partition) -> bool:
        return any(partition in leaving.partitions for leaving in self._leaving)


def _position(ledger: PartitionLedger) -> Committed:
    return Committed(ledger.committable(), ledger.metadata())


def _assigned_refused(error: Exception) -> None:
    raise RuntimeError(f"the control topic refuses this worker's records: {error}") from error
