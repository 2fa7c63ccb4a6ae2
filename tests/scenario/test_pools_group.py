"""Pools with `template.groupHint`: no two VMs on one hypervisor, in a Nova server group."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.sim.faults import ApiFault
from warmpool.sim.world import Group

pytestmark = pytest.mark.looptime

HINT = {"flavor": "m1.micro", "image": "debian-13", "groupHint": "es-brain"}


def groups(lab: Lab) -> list[Group]:
    return list(lab.nova.world.groups.values())


def hosts(lab: Lab) -> Counter[str | None]:
    """Hypervisors by how many servers they have."""
    return Counter(server.host for server in lab.servers())


def failed(lab: Lab) -> list[str]:
    """Builds that Nova has called failed."""
    return lab.notes("BuildFault") + lab.notes("NoValidHost")


async def grouped(lab: Lab, replicas: int, **spec: Any) -> Ref:
    pool = lab.pool(replicas=replicas, template=HINT, **spec)
    await lab.until(lambda: lab.is_even(pool, replicas), within=120)
    return pool


@pytest.mark.parametrize("admin", [True, False], ids=["aimed", "where Nova chooses"])
async def test_every_vm_gets_a_hypervisor_of_its_own_and_no_build_is_lost(admin: bool) -> None:
    """POSTs at the same time would race for hypervisors, and Nova sets the losers to ERROR."""
    async with Lab(admin=admin) as lab:
        pool = await grouped(lab, 8)
        assert set(hosts(lab).values()) == {1}
        assert lab.posts() == 8
        assert not failed(lab)
        [group] = groups(lab)
        assert group.policy == "anti-affinity"
        assert lab.status(pool)["serverGroup"] == group.id
        assert len(group.members) == 8


async def test_aimed_builds_of_a_group_go_side_by_side_and_others_one_by_one() -> None:
    """One by one until each has its place, which is long before it is up."""
    for admin, homeless in ((True, 4), (False, 1)):
        async with Lab(admin=admin, schedule=1.0) as lab:
            pool = lab.pool(replicas=4, template=HINT)
            most = 0
            while not lab.is_even(pool, 4):
                most = max(most, sum(server.host is None for server in lab.servers()))
                await asyncio.sleep(0.05)
            assert most == homeless


async def test_the_quota_of_members_bounds_the_pool_and_it_says_so() -> None:
    async with Lab() as lab:
        project = lab.nova.project()
        project.quota = project.quota.model_copy(update={"server_group_members": 3})
        pool = lab.pool(replicas=5, template=HINT)
        await lab.until(lambda: len(lab.free()) == 3)
        await lab.until(
            lambda: lab.condition(pool, "CapacityAvailable") == ("False", "QuotaExceeded")
        )
        [said] = [c["message"] for c in lab.status(pool)["conditions"]
                  if c["type"] == "CapacityAvailable"]  # fmt: skip
        assert "'es-brain' has 3 members, and may have 3" in said
        assert lab.posts() == 3
        project.quota = project.quota.model_copy(update={"server_group_members": 10})
        await lab.until(lambda: lab.is_even(pool, 5))
        assert not failed(lab)


async def test_a_pool_larger_than_the_cloud_is_wide_says_what_is_missing() -> None:
    async with Lab(racks=2) as lab:
        pool = lab.pool(replicas=6, template=HINT)
        await lab.until(lambda: len(lab.free()) == 4)
        await lab.until(
            lambda: lab.condition(pool, "CapacityAvailable") == ("False", "SpreadExhausted")
        )
        assert lab.posts() == 4


async def test_a_claimed_vm_keeps_its_hypervisor_to_itself() -> None:
    async with Lab(racks=2) as lab:
        pool = await grouped(lab, 3)
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim))
        await lab.until(lambda: len(lab.free()) == 2)
        await lab.always(lambda: set(hosts(lab).values()) == {1}, 60)
        assert lab.posts() == 4
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 3))
        assert set(hosts(lab).values()) == {1}
        assert not failed(lab)


async def test_a_full_cloud_is_rolled_out_one_hypervisor_after_the_other() -> None:
    async with Lab(racks=2) as lab:
        pool = await grouped(lab, 4)
        await lab.change(pool, template=HINT | {"metadata": {"v": "2"}})
        await lab.until(lambda: lab.status(pool)["updated"] == 4 and lab.is_even(pool, 4), 240)
        assert set(hosts(lab).values()) == {1}
        assert len(groups(lab)) == 1


@pytest.mark.parametrize("admin", [True, False], ids=["aimed", "where Nova chooses"])
async def test_the_next_leader_finds_the_group_and_its_builds_again(admin: bool) -> None:
    async with Lab(admin=admin) as lab:
        pool = lab.pool(replicas=6, template=HINT)
        await lab.until(lambda: len(lab.servers()) >= 2)
        await lab.restart()
        await lab.until(lambda: lab.is_even(pool, 6), within=120)
        assert len(groups(lab)) == 1
        assert set(hosts(lab).values()) == {1}
        assert not failed(lab)


async def test_a_group_whose_making_was_not_answered_is_found_by_its_name() -> None:
    async with Lab() as lab:
        lab.arm(ApiFault(method="POST", path="/os-server-groups", effect="lost", count=1))
        await grouped(lab, 2)
        assert len(groups(lab)) == 1


async def test_a_group_that_somebody_deletes_is_made_anew() -> None:
    async with Lab() as lab:
        pool = await grouped(lab, 2)
        lab.nova.world.groups.clear()
        await lab.change(pool, replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4), within=180)
        assert len(groups(lab)) == 1
        assert set(hosts(lab).values()) == {1}


async def test_another_hint_is_another_group_and_the_old_one_goes_when_it_is_empty() -> None:
    async with Lab() as lab:
        pool = await grouped(lab, 3)
        [old] = groups(lab)
        await lab.change(pool, template=HINT | {"groupHint": "other"})
        await lab.until(lambda: len(groups(lab)) == 1 and groups(lab)[0] is not old, within=700)
        assert lab.is_even(pool, 3)
        assert len(groups(lab)[0].members) == 3


async def test_a_pool_that_goes_takes_its_group_with_it_when_nova_is_there_again() -> None:
    async with Lab() as lab:
        pool = await grouped(lab, 2)
        mend = lab.arm(ApiFault(method="DELETE", path="/os-server-groups", effect="status"))
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: not lab.servers())
        await lab.always(lambda: lab.cluster.peek(Kind.WARM_POOL), 30)
        mend()
        await lab.until(lambda: not lab.cluster.peek(Kind.WARM_POOL))
        assert not groups(lab)


async def test_a_pool_that_goes_without_credentials_is_not_kept_by_its_group() -> None:
    async with Lab() as lab:
        pool = await grouped(lab, 0)
        lab.cluster.secrets.clear()
        await lab.until(lambda: lab.condition(pool, "DependenciesResolved")[0] == "False", 90)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: not lab.cluster.peek(Kind.WARM_POOL))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_pool_that_goes_is_not_kept_by_a_group_that_it_may_not_delete(method: str) -> None:
    async with Lab() as lab:
        pool = await grouped(lab, 1)
        lab.arm(ApiFault(method=method, path="/os-server-groups", effect="status", status=403))
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: not lab.cluster.peek(Kind.WARM_POOL))
        assert not lab.servers()
        assert len(groups(lab)) == 1
