"""Pools whose spec is changed, or that are deleted, while something else is going on."""

import asyncio

import pytest

from lab import SPACE, Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.sim.faults import ApiFault

pytestmark = pytest.mark.looptime


async def filled(lab: Lab, replicas: int, **spec: object) -> Ref:
    pool = lab.pool(replicas=replicas, **spec)
    await lab.until(lambda: lab.is_even(pool, replicas))
    return pool


def gone(lab: Lab) -> bool:
    """Nothing is left of any pool."""
    lab.nova.settle()
    return not (lab.cluster.peek(Kind.WARM_POOL) or list(lab.vms()) or lab.servers())


@pytest.mark.parametrize(("policy", "survivors"), [("Oldest", "second"), ("Newest", "first")])
async def test_a_pool_that_shrinks_gives_up_by_age_where_it_is_told_to(
    policy: str, survivors: str
) -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3, scaleDown=policy)
        first = {vm["metadata"]["name"] for vm in lab.free()}
        await asyncio.sleep(30)
        await lab.change(pool, replicas=6)
        await lab.until(lambda: lab.is_even(pool, 6))
        second = {vm["metadata"]["name"] for vm in lab.free()} - first
        await lab.change(pool, replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        left = {vm["metadata"]["name"] for vm in lab.free()}
        assert left == {"first": first, "second": second}[survivors]


async def test_a_max_size_below_what_is_there_costs_free_vms_and_no_claimed_one() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 4)
        claim = lab.claim(count=3)
        await lab.until(lambda: lab.bound(claim) and len(lab.free()) == 4)
        await lab.change(pool, maxSize=5)
        await lab.until(lambda: len(lab.servers()) == 5 and len(lab.free()) == 2)
        await lab.until(lambda: lab.condition(pool, "Ready") == ("False", "MaxSizeReached"))
        posts = lab.posts()
        await lab.always(lambda: lab.bound(claim) and len(lab.free()) == 2, 60)
        assert lab.posts() == posts
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: lab.is_even(pool, 4))


async def test_a_pool_that_is_deleted_while_it_builds_leaves_nothing_and_builds_no_more() -> None:
    async with Lab(build=5.0) as lab:
        pool = lab.pool(replicas=6, maxConcurrent=3)
        await lab.until(lambda: len(lab.servers()) == 3)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: gone(lab))
        await lab.always(lambda: gone(lab), 30)
        assert lab.posts() == 3


async def test_a_pool_that_is_deleted_before_its_first_server_was_answered_leaves_none() -> None:
    async with Lab() as lab:
        lab.arm(ApiFault(method="POST", path="/servers$", effect="slow", delay=(20, 20)))
        pool = lab.pool(replicas=2)
        await lab.until(lambda: len(list(lab.vms())) == 2)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: gone(lab), within=180)
        await lab.always(lambda: gone(lab), 120)


async def test_a_pool_that_is_deleted_while_nova_is_down_waits_and_goes_by_itself() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3)
        mend = lab.arm(ApiFault(effect="status", status=503))
        lab.delete(Kind.WARM_POOL, pool)
        await lab.always(lambda: lab.cluster.peek(Kind.WARM_POOL) and len(lab.servers()) == 3, 90)
        mend()
        await lab.until(lambda: gone(lab), within=120)


async def test_a_pool_that_is_deleted_and_made_anew_under_its_name_is_another_one() -> None:
    async with Lab() as lab:
        old = await filled(lab, 2)
        before = {server.id for server in lab.servers()}
        lab.delete(Kind.WARM_POOL, old)
        await lab.until(lambda: Ref(SPACE, "data") not in lab.cluster.peek(Kind.WARM_POOL))
        await filled(lab, 2)
        assert not before & {server.id for server in lab.servers()}
