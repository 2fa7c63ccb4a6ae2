"""Pools renew themselves: a new template, and VMs that are too old; never below the budget."""

from collections import Counter

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.sim.faults import SpawnFault

pytestmark = pytest.mark.looptime

OLD = {"flavor": "m1.micro", "image": "debian-13"}
NEW = OLD | {"metadata": {"generation": "2"}}


async def filled(lab: Lab, replicas: int = 10, **spec: object) -> Ref:
    pool = lab.pool(replicas=replicas, template=OLD, **spec)
    await lab.until(lambda: lab.is_even(pool, replicas))
    return pool


async def renew(lab: Lab, pool: Ref, **template: object) -> None:
    """Change the template; the pool has taken notice then."""
    before = lab.status(pool)["revision"]
    await lab.change(pool, template=NEW | template)
    await lab.until(lambda: lab.status(pool)["revision"] != before)


def revisions(lab: Lab) -> Counter[str]:
    """Of the VMs that are free."""
    return Counter(vm["spec"]["revision"] for vm in lab.free())


def up_to_date(lab: Lab, pool: Ref) -> bool:
    status, _ = lab.condition(pool, "UpToDate")
    return status == "True" and set(revisions(lab)) == {lab.status(pool)["revision"]}


def generations(lab: Lab) -> Counter[str]:
    """What the servers were built from."""
    return Counter(server.metadata.get("generation", "1") for server in lab.servers())


async def test_a_new_template_is_rolled_out_a_few_at_a_time() -> None:
    async with Lab() as lab:
        pool = await filled(lab, updateStrategy={"type": "RollingUpdate", "maxUnavailable": "20%"})
        await renew(lab, pool)
        assert lab.condition(pool, "UpToDate") == ("False", "RollingOut")
        fewest = 10

        def done() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(lab.free()))
            return lab.is_even(pool, 10) and up_to_date(lab, pool)

        assert await lab.until(done) > 4 * 2, "five rounds of two builds"
        assert fewest == 8
        assert generations(lab) == {"2": 10}
        assert lab.posts() == 20


async def test_a_large_pool_is_rolled_out_to_the_last() -> None:
    """Those at rest are found, although nothing touches them."""
    async with Lab() as lab:
        pool = await filled(lab, 150, updateStrategy={"maxUnavailable": 50})
        await renew(lab, pool)
        await lab.until(lambda: lab.is_even(pool, 150) and up_to_date(lab, pool))
        assert generations(lab) == {"2": 150}


async def test_on_replenish_only_new_vms_follow_the_template() -> None:
    async with Lab() as lab:
        pool = await filled(lab, updateStrategy={"type": "OnReplenish"})
        await renew(lab, pool)
        await lab.until(lambda: lab.condition(pool, "UpToDate") == ("False", "OlderKept"))
        await lab.always(lambda: lab.posts() == 10, seconds=30)
        claim = lab.claim(count=4)
        await lab.until(lambda: lab.bound(claim) and lab.status(pool)["claimed"] == 4)
        await lab.until(lambda: lab.status(pool)["ready"] == 10)
        assert generations(lab) == {"1": 10, "2": 4}
        assert lab.status(pool)["updated"] == 4


async def test_recreate_replaces_all_at_once_but_the_claimed() -> None:
    async with Lab() as lab:
        pool = await filled(lab, updateStrategy={"type": "Recreate"})
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim) and len(lab.free()) == 10)
        await renew(lab, pool)
        await lab.until(lambda: not lab.free(), within=5)
        await lab.until(lambda: up_to_date(lab, pool) and len(lab.free()) == 10)
        await lab.until(lambda: generations(lab) == {"1": 2, "2": 10})


async def test_a_template_that_changes_while_the_pool_fills_names_no_vm_wrongly() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=10, template=OLD, maxConcurrent=4)
        await lab.until(lambda: len(lab.servers()) >= 4)
        await renew(lab, pool)
        await lab.until(lambda: lab.is_even(pool, 10) and up_to_date(lab, pool))
        assert generations(lab) == {"2": 10}


async def test_a_template_whose_image_is_missing_costs_the_pool_no_vm() -> None:
    async with Lab() as lab:
        pool = await filled(lab)
        await renew(lab, pool, image="nonesuch")
        await lab.until(lambda: lab.condition(pool, "DependenciesResolved")[0] == "False")
        await lab.always(lambda: len(lab.free()) == 10, seconds=60)
        assert lab.condition(pool, "UpToDate") == ("False", "RollingOut")
        await renew(lab, pool)
        await lab.until(lambda: lab.is_even(pool, 10) and up_to_date(lab, pool), within=90)


async def test_a_template_whose_servers_fail_costs_the_pool_no_more_than_its_budget() -> None:
    async with Lab() as lab:
        pool = await filled(lab, updateStrategy={"maxUnavailable": 2})
        off = lab.arm(SpawnFault(effect="abort"))
        await renew(lab, pool)
        await lab.until(lambda: len(lab.free()) == 8)
        await lab.always(lambda: len(lab.free()) >= 8, seconds=120)
        off()
        await lab.until(lambda: lab.is_even(pool, 10) and up_to_date(lab, pool), within=400)


async def test_a_leader_that_dies_in_the_middle_leaves_the_next_one_to_finish() -> None:
    async with Lab() as lab:
        pool = await filled(lab)
        await renew(lab, pool)
        await lab.until(lambda: len(generations(lab)) == 2)
        await lab.restart()
        await lab.until(lambda: lab.is_even(pool, 10) and up_to_date(lab, pool))
        assert generations(lab) == {"2": 10}


async def test_a_recycled_vm_of_an_older_template_is_replaced() -> None:
    async with Lab() as lab:
        spec = {"reclaimPolicy": "Recycle", "updateStrategy": {"type": "OnReplenish"}}
        pool = await filled(lab, 1, **spec)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim) and len(lab.free()) == 1)
        (used,) = (vm for _, vm in lab.vms() if "claimRef" in vm["spec"])
        server = lab.server_of(used).id
        await renew(lab, pool)
        await lab.change(pool, replicas=2)
        await lab.until(lambda: len(lab.free()) == 2)
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: server not in {s.id for s in lab.servers()})
        await lab.until(lambda: lab.is_even(pool, 2))


async def test_vms_are_replaced_when_they_are_too_old_and_not_all_together() -> None:
    async with Lab() as lab:
        pool = await filled(lab, expireAfter="4m", updateStrategy={"maxUnavailable": 2})
        first = {server.id for server in lab.servers()}
        await lab.always(lambda: len(lab.free()) == 10, seconds=240 * 0.9 - 10)
        assert {server.id for server in lab.servers()} == first
        fewest = 10

        def renewed() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(lab.free()))
            return not first & {server.id for server in lab.servers()}

        await lab.until(renewed, within=60)
        assert fewest >= 8
        await lab.until(lambda: lab.is_even(pool, 10))
        assert lab.posts() == 20


async def test_claimed_vms_do_not_expire() -> None:
    async with Lab() as lab:
        await filled(lab, 1, expireAfter="1m")
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        (mine,) = (vm for _, vm in lab.vms() if "claimRef" in vm["spec"])
        server = lab.server_of(mine).id
        await lab.always(lambda: server in {s.id for s in lab.servers()}, seconds=100)
