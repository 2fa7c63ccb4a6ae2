"""Pools fill, at their pace, and go on when what stopped them is over."""

import asyncio
from typing import Literal

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.reconcile.absence import SURE_AFTER
from warmpool.sim.faults import ApiFault, OutageFault, SpawnFault
from warmpool.sim.world import Server

pytestmark = pytest.mark.looptime

CREATE = "^/compute/v2.1/servers$"
FLAVORS = "GET /compute/v2.1/flavors"
CAPACITY, READY, RESOLVED = "CapacityAvailable", "Ready", "DependenciesResolved"


def building(lab: Lab) -> list[Server]:
    return [s for s in lab.servers() if s.vm_state == "building"]


async def test_a_pool_fills_to_its_replicas_and_rests() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=5)
        assert await lab.until(lambda: lab.is_even(pool, 5)) < 4
        racks = {vm["status"]["rack"] for vm in lab.free()}
        assert lab.status(pool)["claimable"]["distinctRacks"] == len(racks) > 1
        await asyncio.sleep(120)
        assert lab.posts() == 5


async def test_no_more_is_built_at_once_than_max_concurrent() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=6, maxConcurrent=2)
        filled = asyncio.ensure_future(lab.until(lambda: lab.is_even(pool, 6)))
        while not filled.done():
            assert len(building(lab)) <= 2
            await asyncio.sleep(0.05)
        assert 6 <= filled.result() < 9


async def test_zones_are_filled_side_by_side_and_evenly() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=6, availabilityZones=["az1", "az2"])
        assert await lab.until(lambda: lab.is_even(pool, 6)) < 4
        zones = [vm["status"]["zone"] for vm in lab.free()]
        assert sorted(zones) == ["az1"] * 3 + ["az2"] * 3


async def test_a_pace_starts_with_a_full_bucket_and_goes_on_as_it_fills() -> None:
    async with Lab() as lab:
        lab.pool(replicas=9, refill={"maxPerCycle": 4, "cycle": "4m"})
        await lab.until(lambda: len(lab.free()) == 4, within=5)
        assert await lab.until(lambda: len(lab.free()) == 5, within=70) > 50
        await lab.until(lambda: len(lab.free()) == 9, within=260)
        assert lab.posts() == 9


async def test_a_pool_out_of_quota_holds_and_goes_on_by_itself_when_it_is_raised() -> None:
    async with Lab() as lab:
        lab.quota(2)
        pool = lab.pool(replicas=4, maxConcurrent=1)
        await lab.until(lambda: len(lab.free()) == 2)
        await lab.until(lambda: lab.condition(pool, CAPACITY) == ("False", "QuotaExceeded"))
        assert lab.status(pool)["lastFailure"]["reason"] == "QuotaExceeded"
        before = lab.posts()
        await asyncio.sleep(300)
        assert lab.posts() - before < 12
        lab.quota(10)
        assert await lab.until(lambda: lab.is_even(pool, 4)) < 60
        assert lab.condition(pool, CAPACITY) == ("True", "CapacityOk")
        assert "lastFailure" not in lab.status(pool)


async def test_a_build_that_fails_once_is_cleaned_up_and_made_good_at_once() -> None:
    async with Lab() as lab:
        lab.arm(SpawnFault(effect="abort", count=1))
        pool = lab.pool(replicas=3)
        assert await lab.until(lambda: lab.is_even(pool, 3)) < 8
        assert lab.posts() == 4


async def test_a_template_that_keeps_failing_is_slowed_down_and_told_of() -> None:
    async with Lab() as lab:
        over = lab.arm(SpawnFault(effect="abort", message="kernel panic"))
        pool = lab.pool(replicas=1)
        await asyncio.sleep(600)
        assert 5 < lab.posts() < 14
        failure = lab.status(pool)["lastFailure"]
        assert "kernel panic" in failure["message"]
        assert failure["count"] == lab.posts()
        over()
        await lab.until(lambda: lab.is_even(pool, 1), within=620)


async def test_a_cloud_without_room_holds_the_pool_and_no_wreck_is_left() -> None:
    async with Lab() as lab:
        over = lab.arm(SpawnFault(effect="fail", message="No valid host was found."))
        pool = lab.pool(replicas=2, maxConcurrent=1)
        await lab.until(lambda: lab.condition(pool, CAPACITY) == ("False", "NoValidHost"))
        await asyncio.sleep(120)
        assert len(lab.servers()) <= 1
        over()
        await lab.until(lambda: lab.is_even(pool, 2))


async def test_a_zone_without_room_does_not_stop_the_other() -> None:
    async with Lab() as lab:
        lab.arm(SpawnFault(effect="fail", host="^r[12]-", message="No valid host was found."))
        pool = lab.pool(replicas=4, availabilityZones=["az1", "az2"])
        await lab.until(lambda: lab.status(pool).get("ready") == 4)
        assert {vm["status"]["zone"] for vm in lab.free()} == {"az2"}


async def test_a_build_that_hangs_is_given_up_after_the_launch_timeout() -> None:
    async with Lab() as lab:
        lab.arm(SpawnFault(effect="hang", count=1))
        pool = lab.pool(replicas=2, health={"launchTimeout": "30s"})
        took = await lab.until(lambda: lab.is_even(pool, 2))
        assert 30 < took < 40
        assert lab.posts() == 3


async def test_a_guest_that_does_not_answer_is_not_ready_before_it_does() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1, health={"probe": {"tcpSocket": {"port": 22}}})
        await lab.until(lab.servers)
        (server,) = lab.servers()
        lab.nova.set_reachable(server, reachable=False)
        await lab.always(lambda: lab.status(pool).get("ready", 0) == 0, 20)
        lab.nova.set_reachable(server, reachable=True)
        assert await lab.until(lambda: lab.is_even(pool, 1)) < 3


@pytest.mark.parametrize(("effect", "within"), [("lost", 10), ("drop", SURE_AFTER + 5)])
async def test_a_post_whose_answer_is_lost_gives_no_second_server(
    effect: Literal["lost", "drop"], within: float
) -> None:
    """One that never arrived is sent again once it is sure that it will not."""
    async with Lab() as lab:
        lab.arm(ApiFault(effect=effect, method="POST", path=CREATE, count=2))
        pool = lab.pool(replicas=3)
        assert await lab.until(lambda: lab.is_even(pool, 3)) < within
        assert lab.most == 3


async def test_a_post_that_outlasts_its_call_gives_one_server_in_the_end() -> None:
    """It takes effect after we gave it up and looked in vain: the extra server is swept."""
    async with Lab() as lab:
        lab.arm(ApiFault(effect="slow", method="POST", path=CREATE, delay=(90, 90), count=1))
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.most == 2, within=120)
        await lab.until(lambda: lab.is_even(pool, 1), within=150)


async def test_a_server_that_was_accepted_and_never_appears_is_posted_again() -> None:
    async with Lab() as lab:
        lab.arm(SpawnFault(effect="vanish", count=1))
        pool = lab.pool(replicas=2)
        assert await lab.until(lambda: lab.is_even(pool, 2), within=90) < 75
        assert lab.posts() == 3


async def test_a_scheduler_that_is_away_only_delays() -> None:
    async with Lab() as lab:
        lab.arm(OutageFault(effect="scheduler", seconds=60))
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3), within=75)
        assert lab.posts() == 3


async def test_a_cloud_that_answers_500_is_tried_again_without_a_second_server() -> None:
    async with Lab() as lab:
        lab.arm(ApiFault(effect="status", status=503, seconds=60))
        pool = lab.pool(replicas=3)
        await asyncio.sleep(30)
        assert lab.condition(pool, RESOLVED)[0] in ("False", "Unknown")
        await lab.until(lambda: lab.is_even(pool, 3), within=120)
        assert lab.most == 3


async def test_a_paused_pool_does_nothing_until_it_goes_on() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2, paused=True)
        await lab.always(lambda: not lab.servers(), 30)
        await lab.change(pool, paused=False)
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.change(pool, paused=True, replicas=0)
        await lab.always(lambda: len(lab.free()) == 2, 30)


async def test_an_image_that_is_missing_is_named_and_looked_for_again() -> None:
    async with Lab() as lab:
        template = {"flavor": "m1.micro", "image": "debian-99"}
        pool = lab.pool(replicas=1, template=template)
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ImageNotFound"))
        assert lab.posts() == 0
        await lab.change(pool, template=template | {"image": "debian-13"})
        assert await lab.until(lambda: lab.is_even(pool, 1)) < 15


async def test_an_image_that_is_missing_is_looked_for_at_its_pace_however_busy_the_pool() -> None:
    """Each pass over the pool looked everything up again: some twenty times a second."""
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.change(pool, template={"flavor": "m1.micro", "image": "debian-99"})
        await lab.until(lambda: lab.condition(pool, RESOLVED) == ("False", "ImageNotFound"))
        before = lab.nova.traffic.calls[FLAVORS]
        for number in range(600):
            for vm, _ in lab.vms():
                label = {"op": "add", "path": "/metadata/labels/news", "value": str(number)}
                await lab.cluster.patch(Kind.WARM_VM, vm, [label])
            await asyncio.sleep(0.1)
        assert 4 <= lab.nova.traffic.calls[FLAVORS] - before <= 8


async def test_max_size_counts_claimed_vms() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2, maxSize=3)
        await lab.until(lambda: lab.is_even(pool, 2))
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim))
        await lab.until(lambda: lab.status(pool)["ready"] == 1)
        assert lab.condition(pool, CAPACITY) == ("False", "MaxSizeReached")
        await asyncio.sleep(60)
        assert lab.most == 3
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 2))
