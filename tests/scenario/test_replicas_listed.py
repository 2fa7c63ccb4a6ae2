"""The replicas are listed, each by its own word, and the dead are cleared away by the leader."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from doubles.cluster import FakeCluster
from doubles.virtual_time import LoopClock, run
from warmpool.api.names import LABEL_ROLE, REPLICA_LEASE_PREFIX, Role
from warmpool.domain.errors import ClusterUnavailable, NotLeading
from warmpool.ports.cluster import Body
from warmpool.reconcile.replicas import (
    CLEAR_EVERY,
    DEAD_AFTER,
    LASTS,
    Card,
    Clearing,
    Member,
    Registration,
    as_identity,
    as_label,
    read_leader,
    read_member,
)

EVERY = timedelta(seconds=30)
SILENT = EVERY.total_seconds() * LASTS
"""Seconds after which a replica is taken for gone."""
CLEARED = SILENT * DEAD_AFTER + CLEAR_EVERY + 1


class CutOff(FakeCluster):
    """An API server that can be out of reach."""

    reachable = True
    writes = 0

    async def put_lease(self, name: str, body: Body) -> Body:
        if not self.reachable:
            raise ClusterUnavailable("nobody answers")
        self.writes += 1
        return await super().put_lease(name, body)


@dataclass
class Fleet:
    api: CutOff
    skew: timedelta = timedelta()
    tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    listed: dict[str, Registration] = field(default_factory=dict)
    leads: bool = True

    async def start(self, name: str) -> Registration:
        card = Card(name, "0.1.0+local", f"host-of-{name}")
        clock = LoopClock(lambda: self.skew)
        rng = random.Random(name)  # noqa: S311 - jitter
        it = self.listed[name] = Registration(self.api, clock, rng, card, EVERY)
        self.tasks[name] = asyncio.ensure_future(it.run(lambda: None))
        await asyncio.sleep(1)
        return it

    async def kill(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def clear(self) -> None:
        """One of them leads."""

        def check() -> None:
            if not self.leads:
                raise NotLeading("it does not")

        clearing = Clearing(self.api, LoopClock(), check)
        self.tasks["leader"] = asyncio.ensure_future(clearing.run(lambda: None))

    async def members(self) -> dict[str, Member]:
        members = [read_member(lease) for lease in await self.api.list_leases(LABEL_ROLE)]
        return {member.identity: member for member in members}


@contextlib.asynccontextmanager
async def a_fleet(*names: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(CutOff(lambda: datetime(2030, 1, 1, tzinfo=UTC)))
    for name in names:
        await fleet.start(name)
    yield fleet
    for name in list(fleet.tasks):
        await fleet.kill(name)


Tale = Callable[[Fleet], Awaitable[None]]


def told(tale: Tale, *names: str) -> None:
    async def whole() -> None:
        async with a_fleet(*(names or ("one", "two"))) as fleet:
            await tale(fleet)

    run(whole())


def test_a_replica_says_who_and_what_it_is() -> None:
    async def tale(fleet: Fleet) -> None:
        one = (await fleet.members())["one"]
        assert (one.role, one.version, one.host) == ("standby", "0.1.0-local", "host-of-one")
        assert one.lasts.total_seconds() == SILENT
        assert one.since is not None
        assert one.since == one.seen

    told(tale)


def test_who_leads_says_so_at_once() -> None:
    async def tale(fleet: Fleet) -> None:
        for role in (Role.LEADER, Role.STANDBY):
            fleet.listed["one"].say(role)
            await asyncio.sleep(0.1)
            members = await fleet.members()
            assert members["one"].role == role
            assert members["two"].role == "standby"

    told(tale)


def test_being_listed_costs_little() -> None:
    async def tale(fleet: Fleet) -> None:
        before = fleet.api.writes
        await asyncio.sleep(600)
        assert 2 * 20 <= fleet.api.writes - before <= 2 * 26

    told(tale)


def test_the_living_stay_listed_whatever_the_wall_clock_says() -> None:
    async def tale(fleet: Fleet) -> None:
        fleet.clear()
        for jump in (-1e6, 1e6, 0):
            fleet.skew = timedelta(seconds=jump)
            await asyncio.sleep(CLEARED)
            assert set(await fleet.members()) == {"one", "two"}

    told(tale)


def test_the_dead_are_cleared_away_and_nobody_else() -> None:
    async def tale(fleet: Fleet) -> None:
        await fleet.api.put_lease("somebody-elses", {"metadata": {}, "spec": {}})
        fleet.clear()
        await fleet.kill("one")
        await asyncio.sleep(SILENT * DEAD_AFTER - EVERY.total_seconds() - 1)
        assert set(await fleet.members()) == {"one", "two"}
        await asyncio.sleep(CLEARED)
        assert set(await fleet.members()) == {"two"}
        assert fleet.api.lease("somebody-elses") is not None

    told(tale)


def test_who_leads_no_more_clears_nothing() -> None:
    async def tale(fleet: Fleet) -> None:
        fleet.clear()
        await fleet.kill("one")
        fleet.leads = False
        with pytest.raises(NotLeading):
            await fleet.tasks.pop("leader")
        assert set(await fleet.members()) == {"one", "two"}

    told(tale)


def test_who_was_taken_for_dead_is_listed_again() -> None:
    async def tale(fleet: Fleet) -> None:
        fleet.clear()
        fleet.api.reachable = False
        await asyncio.sleep(CLEARED)
        assert await fleet.members() == {}
        fleet.api.reachable = True
        await asyncio.sleep(EVERY.total_seconds())
        assert set(await fleet.members()) == {"one", "two"}

    told(tale)


def test_a_lease_edited_by_hand_is_put_right() -> None:
    async def tale(fleet: Fleet) -> None:
        fleet.api.edit_lease(REPLICA_LEASE_PREFIX + "one", {"holderIdentity": "nobody"})
        await asyncio.sleep(EVERY.total_seconds())
        assert set(await fleet.members()) == {"one", "two"}

    told(tale)


def test_who_comes_again_under_its_old_name_takes_its_lease() -> None:
    async def tale(fleet: Fleet) -> None:
        before = (await fleet.members())["one"].since
        await fleet.kill("one")
        await asyncio.sleep(5)
        await fleet.start("one")
        after = (await fleet.members())["one"].since
        assert before is not None
        assert after is not None
        assert after > before

    told(tale)


def test_who_ends_well_is_listed_no_more_at_once() -> None:
    async def tale(fleet: Fleet) -> None:
        await fleet.kill("one")
        await fleet.listed["one"].withdraw()
        assert set(await fleet.members()) == {"two"}

    told(tale)


def test_who_ends_does_not_take_away_its_successors_lease() -> None:
    async def tale(fleet: Fleet) -> None:
        old = fleet.listed["one"]
        await fleet.kill("one")
        await fleet.start("one")
        await old.withdraw()
        assert set(await fleet.members()) == {"one", "two"}

    told(tale)


def test_leaders_are_read_from_the_lease_of_the_election() -> None:
    spec = {
        "holderIdentity": "one",
        "leaseDurationSeconds": 10,
        "acquireTime": "2030-01-01T00:00:00.000000Z",
        "renewTime": "2030-01-01T00:00:08.500000Z",
        "leaseTransitions": 3,
    }
    leader = read_leader({"metadata": {}, "spec": spec})
    assert leader is not None
    assert (leader.identity, leader.changes) == ("one", 3)
    assert leader.since == datetime(2030, 1, 1, tzinfo=UTC)
    assert leader.seen == datetime(2030, 1, 1, 0, 0, 8, 500000, tzinfo=UTC)
    assert read_leader({"metadata": {}, "spec": spec | {"holderIdentity": ""}}) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [("Node_7.example.org", "node-7-example-org"), ("__", "replica"), ("pod-1", "pod-1")],
)
def test_any_host_name_makes_an_identity(text: str, name: str) -> None:
    assert as_identity(text) == name


def test_any_version_makes_a_label() -> None:
    assert as_label("1.2.3+dirty/x") == "1.2.3-dirty-x"
    assert as_label("x" * 70 + ".") == "x" * 63
