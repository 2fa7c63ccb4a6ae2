"""Pools lie as their rules say: by aiming, by mending, and they tell what cannot be helped."""

import asyncio
from collections import Counter

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.sim.faults import SpawnFault

pytestmark = pytest.mark.looptime

SKEW = [{"domain": "rack", "maxSkew": 1}]
BALANCED, CAPACITY = "Balanced", "CapacityAvailable"


def racks(lab: Lab) -> Counter[str]:
    return Counter(vm["status"]["rack"] for vm in lab.free())


def hypervisors(lab: Lab) -> Counter[str]:
    return Counter(vm["status"]["hypervisor"] for vm in lab.free())


def is_level(counts: Counter[str], over: int, skew: int = 1) -> bool:
    return len(counts) == over and max(counts.values()) - min(counts.values()) <= skew


async def lopsided(lab: Lab, pool: Ref) -> None:
    """Six VMs, all in rack r1: it was the only one that took builds."""
    for host in lab.nova.world.hosts.values():
        lab.nova.disable(host, host.spec.rack != "r1")
    await lab.until(lambda: lab.is_even(pool, 6))
    assert set(racks(lab)) == {"r1"}
    for host in lab.nova.world.hosts.values():
        lab.nova.disable(host, disabled=False)


@pytest.mark.parametrize("spread", [[], SKEW])
async def test_a_pool_is_filled_evenly_over_racks_and_hypervisors(spread: list[object]) -> None:
    """Nova by itself weighs free memory alone: r1 has much less of it."""
    async with Lab() as lab:
        for host in lab.nova.world.hosts.values():
            if host.spec.rack == "r1":
                host.ram_used += 200_000
        pool = lab.pool(replicas=12, spread=spread)
        await lab.until(lambda: lab.is_even(pool, 12))
        assert is_level(racks(lab), over=4)
        assert is_level(hypervisors(lab), over=8)
        assert lab.condition(pool, BALANCED)[0] == "True"


async def test_a_pool_that_lost_its_balance_gets_it_back_one_vm_at_a_time() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=6, spread=SKEW)
        await lopsided(lab, pool)

        def mended() -> bool:
            assert len(lab.free()) >= 6
            return is_level(racks(lab), over=4) and lab.is_even(pool, 6)

        await lab.until(mended, within=300)
        assert 7 <= lab.most <= 8  # one more, and one whose delete is under way
        assert lab.condition(pool, BALANCED) == ("True", "SpreadKept")
        posts = lab.posts()
        await asyncio.sleep(300)
        assert lab.posts() == posts


async def test_mending_keeps_to_the_pace() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=6, spread=SKEW, refill={"maxPerCycle": 7, "cycle": "14m"})
        loop = asyncio.get_running_loop()
        began = loop.time()
        await lopsided(lab, pool)
        await lab.always(lambda: lab.posts() <= 7 + (loop.time() - began) / 120, 300)
        assert lab.posts() >= 8


async def test_where_nova_chooses_what_lies_askew_is_mended_by_trying() -> None:
    async with Lab(admin=False) as lab:
        pool = lab.pool(replicas=4, spread=[{"domain": "hypervisor", "maxPerDomain": 1}])
        await lab.until(lambda: lab.is_even(pool, 4))
        assert lab.condition(pool, BALANCED)[0] == "True"
        for vm in lab.free()[1:]:
            lab.nova.move(lab.server_of(vm), lab.server_of(lab.free()[0]).host or "")
        await lab.until(lambda: lab.condition(pool, BALANCED)[0] == "False")
        await lab.until(
            lambda: max(hypervisors(lab).values()) == 1 and lab.is_even(pool, 4), within=900
        )
        assert lab.condition(pool, BALANCED) == ("True", "SpreadKept")


async def test_attempts_that_cannot_help_become_rare() -> None:
    """One rack is all there is: two are asked."""
    async with Lab(racks=1, admin=False) as lab:
        pool = lab.pool(replicas=3, spread=[{"domain": "zone", "minDomains": 2}])
        await lab.until(lambda: lab.condition(pool, BALANCED) == ("False", "NovaChooses"))
        await asyncio.sleep(900)
        assert 6 <= lab.posts() <= 8  # after one minute, two, four, eight


async def test_credentials_that_see_no_racks_say_so() -> None:
    async with Lab(admin=False) as lab:
        pool = lab.pool(replicas=2, spread=SKEW)
        await lab.until(lambda: lab.is_even(pool, 2))
        assert lab.condition(pool, BALANCED) == ("Unknown", "RacksUnknown")


async def test_skew_that_cannot_be_helped_is_told_and_nothing_is_built_for_it() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=6, spread=SKEW)
        for host in lab.nova.world.hosts.values():
            lab.nova.disable(host, host.spec.rack not in {"r1", "r2"})
        await lab.until(lambda: lab.is_even(pool, 6))
        for host in lab.nova.world.hosts.values():
            lab.nova.disable(host, host.spec.rack != "r1")
        claim = lab.claim(count=3, constraints=[{"domain": "rack", "maxPerDomain": 3}])
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 6))
        await lab.until(lambda: lab.condition(pool, BALANCED)[0] == "False")
        posts = lab.posts()
        await asyncio.sleep(200)
        assert lab.condition(pool, BALANCED) == ("False", "NoRoomElsewhere")
        assert lab.posts() == posts
        for host in lab.nova.world.hosts.values():
            lab.nova.disable(host, disabled=False)
        await lab.until(lambda: is_level(racks(lab), over=4), within=300)


async def test_a_bound_per_hypervisor_is_kept_while_the_pool_is_filled() -> None:
    """Eight hypervisors take one each: the ninth VM is not built, and the pool says why."""
    async with Lab() as lab:
        pool = lab.pool(replicas=9, spread=[{"domain": "hypervisor", "maxPerDomain": 1}])
        await lab.until(lambda: lab.is_even(pool, 8))
        await lab.until(lambda: lab.condition(pool, CAPACITY) == ("False", "SpreadExhausted"))
        await asyncio.sleep(120)
        assert lab.posts() == 8
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 8))
        assert max(hypervisors(lab).values()) == 1


async def test_a_hypervisor_that_spoils_builds_is_left_alone_for_a_while() -> None:
    async with Lab() as lab:
        over = lab.arm(SpawnFault(effect="fail", host="^r1-h1$"))
        pool = lab.pool(replicas=8)
        assert await lab.until(lambda: lab.is_even(pool, 8)) < 10
        assert "r1-h1" not in hypervisors(lab)
        assert lab.posts() <= 10
        over()


async def test_scaling_down_leaves_the_pool_within_its_rules() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=12, spread=[{"domain": "zone", "maxSkew": 1}])
        await lab.until(lambda: lab.is_even(pool, 12))
        for replicas in (9, 5, 2):
            await lab.change(pool, replicas=replicas)
            await lab.until(lambda n=replicas: lab.is_even(pool, n))  # type: ignore[misc]
            assert is_level(Counter(vm["status"]["zone"] for vm in lab.free()), over=2)
        assert lab.posts() == 12


async def test_claims_and_spread_live_together() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=8, spread=SKEW)
        await lab.until(lambda: lab.is_even(pool, 8))
        for n in range(6):
            claim = lab.claim(f"claim-{n}", count=3, onUnsatisfied="Wait")
            await lab.until(lambda c=claim: lab.bound(c))  # type: ignore[misc]
        await lab.until(lambda: lab.is_even(pool, 8) and is_level(racks(lab), over=4))
        for n in range(6):
            lab.delete(Kind.VM_CLAIM, Ref("search", f"claim-{n}"))
        await lab.until(lambda: len(lab.servers()) == 8)
        assert lab.condition(pool, BALANCED) == ("True", "SpreadKept")
