"""Any order of events in a group of the embedded log, with the clock and the heartbeats in the test's hand."""

import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.transport.base import ChangeKind, Committed, NotOwner, Partition, Record, TopicSpec
from pipeline.transport.embedded import catalogue, group, records
from pipeline.transport.embedded.consumer import EmbeddedConsumer
from pipeline.transport.embedded.database import connect, immediate, prepare
from pipeline.transport.embedded.group import Member
from pipeline.transport.embedded.ownership import Membership
from pipeline.transport.embedded.records import Row

PARTITIONS, MEMBERS = 3, 3
SESSION_S, BUDGET_S = 10.0, 4.0


class Actor:
    """A member whose heartbeats happen when the test says so."""

    def __init__(self, path: Path, name: str, world: "World"):
        self.name, self.world, self.connection = name, world, connect(path)
        member = Member(name, "group", frozenset({"topic"}), SESSION_S, BUDGET_S)
        self.membership = Membership(path, member, world.clock)
        self.consumer = EmbeddedConsumer(connect(path), self.membership)
        self.expected: dict[Partition, int] = {}
        self.revoked: set[Partition] = set()

    def beat(self) -> None:
        """A heartbeat, and what is due."""
        self.membership.beat(self.connection)

    def poll(self, max_records: int) -> None:
        """A poll: what comes must be next in a partition that is owned and not revoked."""
        # The records of a poll come from the state after its changes.
        delivered = self.consumer.poll(0.0, max_records)
        for change in self.consumer.changes():
            for partition in change.partitions:
                self.expected.pop(partition, None)
                self.revoked.discard(partition)
                if change.kind is ChangeKind.ASSIGNED:
                    self.expected[partition] = self.world.committed(partition)
                if change.kind is ChangeKind.REVOKED:
                    self.revoked.add(partition)
            if change.kind is ChangeKind.ASSIGNED:
                self.consumer.resume(change.partitions)
        for record in delivered:
            self.take(record)

    def take(self, record: Record) -> None:
        """Checks that a record is the next of its partition."""
        assert record.offset == self.expected[record.partition]
        assert record.value == b"%d" % record.offset
        self.expected[record.partition] += 1
        self.world.delivered[record.partition].add(record.offset)

    def commit(self) -> None:
        """Commits what was taken; a commit may fail only as a whole, and never moves anything back."""
        wanted = {partition: Committed(offset) for partition, offset in self.expected.items()}
        before = self.world.commits()
        try:
            self.consumer.commit(wanted, timeout_s=1.0)
        except NotOwner:
            assert self.world.commits() == before
        else:
            assert all(before.get(p, 0) <= committed.offset for p, committed in wanted.items())
            assert wanted.keys() <= self.world.owned_by(self.name)

    def release(self) -> None:
        """Gives back what was revoked."""
        going, self.revoked = frozenset(self.revoked), set()
        for partition in going:
            self.expected.pop(partition, None)
        self.consumer.release(going, {p: Committed(self.world.taken(self, p)) for p in going})

    def close(self) -> None:
        """Lets go of the file."""
        self.consumer._connection.close()
        self.connection.close()


class World:
    """The log, its clock, and what has been seen of it."""

    def __init__(self, folder: Path):
        path = folder / "log.sqlite"
        prepare(path)
        self.now_s = 100.0
        self.connection = connect(path)
        with immediate(self.connection):
            catalogue.create(self.connection, [TopicSpec(name="topic", partitions=PARTITIONS)])
        self.partitions = {Partition("topic", n): n + 1 for n in range(PARTITIONS)}
        self.ends = dict.fromkeys(self.partitions, 0)
        self.delivered: defaultdict[Partition, set[int]] = defaultdict(set)
        self.positions: dict[tuple[str, Partition], int] = {}
        self.actors = [Actor(path, f"member {n}", self) for n in range(MEMBERS)]

    def clock(self) -> float:
        """The machine's clock."""
        return self.now_s

    def produce(self, number: int) -> None:
        """Appends a record that tells its offset."""
        partition = Partition("topic", number)
        with immediate(self.connection):
            records.append(self.connection, self.partitions[partition], [Row(0, b"", None, b"%d" % self.ends[partition])])
        self.ends[partition] += 1

    def commits(self) -> dict[Partition, int]:
        """What the group has committed."""
        return {p: committed.offset for p, committed in group.committed(self.connection, "group", self.partitions).items()}

    def owned_by(self, name: str) -> set[Partition]:
        """What the file says a member owns."""
        rows = self.connection.execute("SELECT partition_id FROM ownership WHERE owner = ?", (name,)).fetchall()
        return {partition for partition, partition_id in self.partitions.items() if (partition_id,) in rows}

    def overslept(self, sleeper: int) -> None:
        """One member stalls past its session; the others live on and go through everything."""
        others = self.actors[:sleeper] + self.actors[sleeper + 1 :]
        for _ in range(5):
            self.now_s += SESSION_S / 2
            for actor in others:
                actor.beat()
                actor.poll(3)
        for actor in others:
            actor.commit()

    def regained(self, sleeper: int) -> None:
        """A member loses everything and gets it back before it looks: to it nothing seems to have happened."""
        self.overslept(sleeper)
        for actor in self.actors:
            if actor is not self.actors[sleeper]:
                actor.membership.leave(actor.connection)
        self.actors[sleeper].beat()

    def committed(self, partition: Partition) -> int:
        """Where a new owner has to start."""
        return self.commits().get(partition, 0)

    def taken(self, actor: Actor, partition: Partition) -> int:
        """Where an actor stands in a partition that is being revoked: it delivers no more."""
        return actor.consumer.position(partition)

    def settle(self) -> None:
        """Lets everybody beat, poll and release until nothing happens any more."""
        for _ in range(12):
            for actor in self.actors:
                actor.beat()
                actor.poll(1_000)
                actor.release()
            self.now_s += 0.5

    def close(self) -> None:
        """Lets go of the file."""
        for actor in self.actors:
            actor.close()
        self.connection.close()


WHO = st.integers(0, MEMBERS - 1)
ACTIONS = st.one_of(
    st.tuples(st.just("produce"), st.integers(0, PARTITIONS - 1)),
    st.tuples(st.just("poll"), WHO, st.integers(1, 5)),
    st.tuples(st.sampled_from(["beat", "beat", "commit", "release", "leave"]), WHO),
    st.tuples(st.sampled_from(["overslept", "regained"]), WHO),
    st.tuples(st.just("wait"), st.sampled_from([0.5, BUDGET_S + 0.1, SESSION_S + 0.1])),
)


def act(world: World, name: str, *arguments: float) -> None:
    """Lets one thing happen."""
    match name:
        case "produce":
            world.produce(int(arguments[0]))
        case "wait":
            world.now_s += arguments[0]
        case "overslept" | "regained":
            getattr(world, name)(int(arguments[0]))
        case "poll":
            world.actors[int(arguments[0])].poll(int(arguments[1]))
        case "leave":
            actor = world.actors[int(arguments[0])]
            actor.membership.leave(actor.connection)
        case _:
            getattr(world.actors[int(arguments[0])], name)()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, min_size=10, max_size=50))
@example([("poll", 0, 2), ("overslept", 0), ("commit", 0)])
@example([("poll", 0, 2), ("regained", 0), ("commit", 0)])
@example([("poll", 0, 2), ("regained", 0), ("poll", 0, 1), ("commit", 0)])
def test_every_record_reaches_an_owner_in_order_and_commits_never_go_back(actions):
    """Whoever joins, leaves, stalls, releases or forgets to: nothing is skipped, and the fence holds."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.settle()
        for number in [*range(PARTITIONS)] * 4:
            world.produce(number)
        for action in actions:
            act(world, *action)
        world.settle()
        owned = [actor.consumer.assignment() for actor in world.actors]
        assert sorted(len(share) for share in owned) == [1, 1, 1]
        assert frozenset().union(*owned) == world.partitions.keys()
        for partition, end in world.ends.items():
            assert world.delivered[partition] == set(range(end))
        world.close()
