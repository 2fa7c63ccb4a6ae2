"""The table of docs/faults.md: what a cloud can do to a pool, one test for each row.

Each says what the pool's conditions told meanwhile, that it recovered by itself within the time
that the table promises, and that nothing was lost, leaked or built twice.
"""

import asyncio
from collections.abc import Callable

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.sim.faults import ApiFault, DeleteFault, ListFault, OutageFault, SpawnFault

pytestmark = pytest.mark.looptime

CREATE = "^/compute/v2.1/servers$"
CAPACITY, READY, RESOLVED = "CapacityAvailable", "Ready", "DependenciesResolved"
HEALTHY = "Healthy"
GOOD = (CAPACITY, READY, RESOLVED, HEALTHY, "UpToDate")
SWEPT = 120.0
"""Seconds by which a leaked server is gone, or a doubt is acted upon."""


async def filled(lab: Lab, replicas: int, **spec: object) -> Ref:
    pool = lab.pool(replicas=replicas, **spec)
    await lab.until(lambda: lab.is_even(pool, replicas))
    return pool


def free(lab: Lab) -> set[str]:
    return {vm["metadata"]["uid"] for vm in lab.free()}


def said(lab: Lab, pool: Ref) -> set[tuple[str, str, str]]:
    """All that the conditions of a pool have told since it was created."""
    states = (c.body for c in lab.cluster.history if c.kind is Kind.WARM_POOL)
    return {
        (condition["type"], condition["status"], condition["reason"])
        for body in states
        if body["metadata"]["name"] == pool.name
        for condition in body.get("status", {}).get("conditions", [])
    }


async def says(lab: Lab, pool: Ref, kind: str, reason: str, within: float = 60.0) -> None:
    """Wait until a condition is False for that reason."""
    await lab.until(lambda: lab.condition(pool, kind) == ("False", reason), within)


async def recovers(lab: Lab, pool: Ref, replicas: int, *, built: int, within: float = 60.0) -> None:
    """The pool is full in time, and stays so: one server a VM, none else, and no more built."""
    await lab.until(lambda: lab.is_even(pool, replicas), within)
    there = free(lab)
    await asyncio.sleep(SWEPT)
    assert lab.is_even(pool, replicas), lab.told()
    assert free(lab) == there
    assert lab.posts() == built
    assert {kind: lab.condition(pool, kind)[0] for kind in GOOD} == dict.fromkeys(GOOD, "True")
    assert "lastFailure" not in lab.status(pool)


async def keeps(lab: Lab, holds: Callable[[], object], seconds: float) -> None:
    await lab.always(holds, seconds)


# --- no room --------------------------------------------------------------------------------


async def test_quota_reached_and_raised() -> None:
    async with Lab() as lab:
        lab.quota(3)
        pool = lab.pool(replicas=5)
        await says(lab, pool, CAPACITY, "QuotaExceeded")
        assert lab.condition(pool, READY) == ("False", "QuotaExceeded")
        assert lab.status(pool)["lastFailure"]["reason"] == "QuotaExceeded"
        await keeps(lab, lambda: len(lab.free()) <= 3, 300)
        assert lab.is_even(pool, 3)
        lab.quota(10)
        await recovers(lab, pool, 5, built=5)


@pytest.mark.parametrize("zones", [[], ["az1"]], ids=["anywhere", "zone"])
async def test_no_valid_host_and_then_a_host_comes_back(zones: list[str]) -> None:
    """Of a zone without an enabled host Nova says that it is not available, and builds nothing."""
    async with Lab(racks=1) as lab:
        hosts = list(lab.nova.world.hosts.values())
        pool = await filled(lab, 2, availabilityZones=zones)
        for host in hosts:
            lab.nova.disable(host, disabled=True)
        await lab.change(pool, replicas=4)
        await says(lab, pool, CAPACITY, "NoValidHost")
        assert lab.condition(pool, READY) == ("False", "NoValidHost")
        await keeps(lab, lambda: len(lab.free()) == 2, 120)
        lab.nova.disable(hosts[0], disabled=False)
        tried = lab.posts()
        await lab.until(lambda: lab.is_even(pool, 4), within=60)
        assert lab.posts() <= tried + 2
        await recovers(lab, pool, 4, built=lab.posts())


# --- what the template names ----------------------------------------------------------------


async def test_image_deleted() -> None:
    async with Lab() as lab:
        pool, images = await filled(lab, 2), lab.nova.world.images
        gone = next(ident for ident, image in images.items() if image.name == "debian-13")
        image = images.pop(gone)
        await lab.change(pool, replicas=4)
        await says(lab, pool, RESOLVED, "ImageNotFound")
        assert lab.condition(pool, READY) == ("False", "ImageNotFound")
        await keeps(lab, lambda: len(lab.free()) == 2, 300)
        images[lab.nova.world.new_id()] = image
        posts = lab.posts()
        await recovers(lab, pool, 4, built=posts + 2)


async def test_flavor_deleted() -> None:
    async with Lab() as lab:
        pool, flavors = await filled(lab, 2), lab.nova.world.flavors
        gone = next(ident for ident, flavor in flavors.items() if flavor.name == "m1.micro")
        flavor = flavors.pop(gone)
        await lab.change(pool, replicas=4)
        await says(lab, pool, RESOLVED, "FlavorNotFound")
        assert lab.condition(pool, READY) == ("False", "FlavorNotFound")
        await keeps(lab, lambda: len(lab.free()) == 2, 300)
        flavors[gone] = flavor
        posts = lab.posts()
        await recovers(lab, pool, 4, built=posts + 2)


# --- an API that fails ----------------------------------------------------------------------


async def test_500s_for_a_minute() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3)
        lab.arm(ApiFault(effect="status", status=500, seconds=60))
        await lab.change(pool, replicas=5)
        await says(lab, pool, RESOLVED, "CloudUnavailable")
        await keeps(lab, lambda: len(lab.free()) == 3, 40)
        posts = lab.posts()
        await recovers(lab, pool, 5, built=posts + 2, within=80)


async def test_429() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        over = lab.arm(ApiFault(effect="status", status=429, method="POST", path=CREATE))
        await lab.change(pool, replicas=4)
        await says(lab, pool, CAPACITY, "RateLimited")
        assert lab.condition(pool, READY) == ("False", "RateLimited")
        before = lab.posts()
        await keeps(lab, lambda: lab.is_even(pool, 2) or len(lab.free()) == 2, 300)
        assert lab.posts() - before <= 24, "it is not hammered"
        over()
        refused = lab.posts()
        await recovers(lab, pool, 4, built=refused + 2)


async def test_slow_api_of_20_seconds_a_call() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        slow = lab.arm(ApiFault(effect="slow", delay=(20.0, 20.0)))
        await lab.change(pool, replicas=5)
        await lab.until(lambda: lab.is_even(pool, 5), within=180)
        assert lab.most == 5
        slow()
        await recovers(lab, pool, 5, built=5)
        assert not {s for s in said(lab, pool) if s[1] == "False" and s[0] in (RESOLVED, HEALTHY)}


@pytest.mark.parametrize("effect", ["lost", "drop"])
async def test_post_whose_answer_was_lost(effect: str) -> None:
    """`lost`: the server is there. `drop`: it is not. We cannot know which."""
    async with Lab() as lab:
        pool = await filled(lab, 2)
        lab.arm(ApiFault(effect=effect, method="POST", path=CREATE, count=2))
        await lab.change(pool, replicas=4)
        await recovers(lab, pool, 4, built=4 if effect == "lost" else 6, within=20)
        assert lab.most == 4


# --- builds that fail -----------------------------------------------------------------------


async def test_post_accepted_and_no_server_ever_appears() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        lab.arm(SpawnFault(effect="vanish", count=1))
        await lab.change(pool, replicas=4)
        await lab.until(lambda: lab.condition(pool, READY) == ("False", "Filling"))
        await recovers(lab, pool, 4, built=5, within=75)


async def test_stuck_in_build() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2, health={"launchTimeout": "60s"})
        lab.arm(SpawnFault(effect="hang", count=1))
        await lab.change(pool, replicas=4)
        await lab.until(lambda: len(lab.free()) == 3)
        assert lab.condition(pool, "Progressing") == ("True", "Filling")
        await lab.until(lambda: lab.notes("LaunchTimeout"), within=70)
        await recovers(lab, pool, 4, built=5)


async def test_error_after_spawning() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        lab.arm(SpawnFault(effect="abort", message="no such device", count=3))
        await lab.change(pool, replicas=4)
        await lab.until(lambda: lab.notes("BuildFault"))
        assert "no such device" in lab.notes("BuildFault")[0]
        await says(lab, pool, CAPACITY, "BuildFault")
        await recovers(lab, pool, 4, built=7)


async def test_active_and_never_reachable() -> None:
    async with Lab() as lab:
        probe = {"launchTimeout": "60s", "probe": {"tcpSocket": {"port": 22}}}
        pool = await filled(lab, 2, health=probe)
        await lab.change(pool, replicas=3)
        await lab.until(lambda: len(lab.servers()) == 3)
        mute = max(lab.servers(), key=lambda server: server.number)
        lab.nova.set_reachable(mute, reachable=False)
        await keeps(lab, lambda: len(lab.free()) == 2, 55)
        await lab.until(lambda: lab.notes("ProbeFailed"), within=20)
        await recovers(lab, pool, 3, built=4)
        assert mute not in lab.servers()


# --- what others do to our servers ----------------------------------------------------------


async def test_deleted_behind_our_back() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3)
        victim, *_ = lab.servers()
        lab.nova.delete(victim, admin=True)
        await lab.until(lambda: len(lab.free()) == 2, within=15)
        await lab.until(lambda: lab.condition(pool, READY) == ("False", "Filling"))
        await recovers(lab, pool, 3, built=4)


async def test_renamed() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        before, server = free(lab), lab.servers()[0]
        server.name = "not-what-you-think"
        lab.nova.world.touch(server)
        await recovers(lab, pool, 2, built=2)
        assert free(lab) == before


async def test_moved_to_another_host() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        (vm, _), before = lab.free(), free(lab)
        server = lab.server_of(vm)
        other = next(h for h in lab.nova.world.hosts if h[:2] != server.host[:2])
        lab.nova.move(server, other)

        def place() -> tuple[str, str]:
            now = next(v for v in lab.free() if v["metadata"]["uid"] == vm["metadata"]["uid"])
            return now["status"]["hypervisor"], now["metadata"]["labels"]["warmpool.dev/rack"]

        await lab.until(lambda: place() == (other, other[:2]), within=15)
        assert free(lab) == before
        await recovers(lab, pool, 2, built=2)


async def test_metadata_and_tags_wiped() -> None:
    """Our mark is gone with them. Its WarmVM knows its server by id, and keeps it."""
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: len(lab.free()) == 2)
        before, server = free(lab), lab.servers()[0]
        lab.nova.set_metadata(server, {})
        lab.nova.set_tags(server, ())
        await keeps(lab, lambda: free(lab) == before, 1000)
        assert lab.posts() == len(lab.servers()) == 2
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: not lab.servers(), within=90)


# --- ends -----------------------------------------------------------------------------------


async def test_delete_that_hangs() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 4)
        over = lab.arm(DeleteFault(effect="hang"))
        await lab.change(pool, replicas=2)
        await lab.until(lambda: len(lab.free()) == 2)
        await lab.until(lambda: lab.condition(pool, "Progressing") == ("True", "Shrinking"))
        await keeps(lab, lambda: len(list(lab.vms())) == len(lab.servers()) == 4, 120)
        assert lab.nova.traffic.calls["DELETE /compute/v2.1/servers/{id}"] < 60
        over()
        for server in [s for s in lab.servers() if s.task == "deleting"]:
            lab.nova.wipe(server)
        await recovers(lab, pool, 2, built=4)


async def test_delete_answered_204_and_the_server_stays() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3)
        lab.arm(DeleteFault(effect="ignored", count=4))
        await lab.change(pool, replicas=2)
        await lab.until(lambda: lab.condition(pool, "Progressing") == ("True", "Shrinking"))
        await recovers(lab, pool, 2, built=3)


# --- listings that lie ----------------------------------------------------------------------


async def test_a_listing_that_returns_half() -> None:
    """For twenty minutes, so that complete ones are among them, and doubt ends."""
    async with Lab() as lab:
        pool = await filled(lab, 12)
        before = free(lab)
        over = lab.arm(ListFault(effect="half"))
        await keeps(lab, lambda: free(lab) == before, 1200)
        over()
        await recovers(lab, pool, 12, built=12)
        assert free(lab) == before


async def test_duplicates_across_pages() -> None:
    async with Lab(page=2) as lab:
        lab.arm(ListFault(effect="duplicates"))
        pool = await filled(lab, 7)
        await keeps(lab, lambda: len(lab.free()) == 7, 1000)
        await lab.change(pool, replicas=5)
        await recovers(lab, pool, 5, built=7)


# --- credentials and clocks -----------------------------------------------------------------


async def test_wrong_password_for_ten_minutes() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        before = free(lab)
        over = lab.arm(OutageFault(effect="credentials"))
        await lab.change(pool, replicas=4)
        await says(lab, pool, RESOLVED, "CredentialsRefused")
        assert lab.condition(pool, READY) == ("False", "CredentialsRefused")
        asked = lab.nova.traffic.calls.total()
        await keeps(lab, lambda: free(lab) == before, 600)
        assert lab.nova.traffic.calls.total() - asked < 60, "accounts are locked for less"
        over()
        await recovers(lab, pool, 4, built=4)


@pytest.mark.parametrize(
    ("ahead", "behind"), [(90.0, 0.0), (-90.0, 0.0), (0.0, 90.0)], ids=["ours", "theirs", "inner"]
)
async def test_clocks_90_seconds_off(ahead: float, behind: float) -> None:
    """Ours is ahead of the cloud's, or behind, or its hypervisors' are behind its API's."""
    async with Lab(ahead=ahead, behind=behind) as lab:
        pool = lab.pool(replicas=4, health={"launchTimeout": "80s"})
        await lab.until(lambda: lab.is_even(pool, 4), within=60)
        lab.nova.wipe(lab.servers()[0])
        await lab.until(lambda: lab.posts() == 5, within=60)
        await recovers(lab, pool, 4, built=5)
        told = {reason for _, state, reason in said(lab, pool) if state == "False"}
        assert told <= {"Filling", "PoolFull"}
