"""The rules of the original system, each under its old name: the table in docs/pools.md."""

import base64
from collections import Counter

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref

pytestmark = pytest.mark.looptime


def phase(lab: Lab, claim: Ref) -> str:
    status = lab.cluster.peek(Kind.VM_CLAIM)[claim].get("status", {})
    return str(status.get("phase", ""))


async def test_total_instances() -> None:
    """So many are ready and unclaimed: what a claim takes is built again, up to maxSize."""
    async with Lab() as lab:
        pool = lab.pool(replicas=3, maxSize=5)
        await lab.until(lambda: lab.is_even(pool, 3))
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim))
        await lab.until(lambda: lab.is_even(pool, 3))
        more = lab.claim("more", count=2)
        await lab.until(lambda: lab.bound(more))
        await lab.until(lambda: lab.is_even(pool, 1))
        await lab.until(lambda: lab.condition(pool, "CapacityAvailable")[1] == "MaxSizeReached")
        await lab.always(lambda: len(lab.servers()) <= 5, 60)


async def test_max_instance_per_cycle_and_the_cycle() -> None:
    """Ten every fifteen minutes: ten at once, then one every minute and a half."""
    async with Lab() as lab:
        pool = lab.pool(replicas=14, refill={"maxPerCycle": 10, "cycle": "15m"})
        await lab.until(lambda: len(lab.free()) == 10, within=10)
        await lab.always(lambda: lab.posts() == 10, 75)
        for ready in range(11, 15):
            took = await lab.until(lambda ready=ready: len(lab.free()) == ready, within=95)
            assert ready == 11 or took > 80
        await lab.until(lambda: lab.is_even(pool, 14))


async def test_min_fault_domain() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=4, spread=[{"domain": "rack", "minDomains": 4}])
        await lab.until(lambda: lab.is_even(pool, 4))
        racks = Counter(vm["status"]["rack"] for vm in lab.free())
        assert racks == Counter(r1=1, r2=1, r3=1, r4=1)
        assert lab.condition(pool, "Balanced")[0] == "True"


async def test_reserve_cap() -> None:
    """The last ones are not for everybody."""
    async with Lab() as lab:
        pool = lab.pool(replicas=4, reserve=2, maxSize=4)
        await lab.until(lambda: lab.is_even(pool, 4))
        assert lab.status(pool)["claimable"]["any"] == 2
        greedy = lab.claim("greedy", count=3)
        await lab.until(lambda: phase(lab, greedy) == "Failed")
        modest = lab.claim("modest", count=2)
        await lab.until(lambda: lab.bound(modest))
        refused, urgent = lab.claim("refused"), lab.claim("urgent", count=2, priority=1000)
        await lab.until(lambda: phase(lab, refused) == "Failed" and lab.bound(urgent))


async def test_user_data() -> None:
    """Straight from the template, or from a Secret; a changed Secret is taken by new builds."""
    async with Lab() as lab:
        script = base64.b64encode(b"#!/bin/sh\n").decode()
        template = {"flavor": "m1.micro", "image": "debian-13", "networks": []}
        plain = lab.pool("plain", replicas=1, template=template | {"userData": script})
        where = {"name": "boot", "key": "script"}
        lab.cluster.secrets[Ref(plain.namespace, "boot")] = {"script": b"#!/bin/sh\n"}
        lab.pool("secret", replicas=1, template=template | {"userDataSecretRef": where})
        await lab.until(lambda: len(lab.free()) == 2)
        assert {server.user_data for server in lab.servers()} == {script}


async def test_zones_are_worked_in_parallel() -> None:
    """Each with builds of its own under way, and as many: twelve take as long as one."""
    async with Lab() as lab:
        pool = lab.pool(replicas=12, availabilityZones=["az1", "az2"])
        took = await lab.until(lambda: lab.is_even(pool, 12))
        assert took < 4
        assert Counter(vm["status"]["zone"] for vm in lab.free()) == Counter(az1=6, az2=6)


async def test_group_hint() -> None:
    """VMs of one hint are members of one server group: no two of them on a hypervisor."""
    async with Lab() as lab:
        template = {"flavor": "m1.micro", "image": "debian-13", "groupHint": "es-brain"}
        pool = lab.pool(replicas=6, template=template)
        await lab.until(lambda: lab.is_even(pool, 6))
        assert len({server.host for server in lab.servers()}) == 6
        [group] = lab.nova.world.groups.values()
        assert group.policy == "anti-affinity"
        assert sorted(group.members) == sorted(server.id for server in lab.servers())
