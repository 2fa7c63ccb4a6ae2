"""VMs that move, and hosts whose rack changes: VM, density and claim are corrected."""

from typing import Any

import pytest

from lab import SPACE, Lab
from warmpool.domain.ids import Ref
from warmpool.sim.world import Server

pytestmark = pytest.mark.looptime

RACKED = "clouds: {lab: {sources: [{configMap: {name: racks}}, {aggregate: {}}]}}"
APART = "clouds: {lab: {inventory: lab-admin}}"
MAP = Ref(SPACE, "racks")


async def bound(lab: Lab, **spec: Any) -> tuple[Ref, Ref]:
    """A pool of 4 with a claim of two of them, rack by rack."""
    pool = lab.pool(replicas=4)
    await lab.until(lambda: lab.is_even(pool, 4))
    claim = lab.claim(count=2, mode="RackAware", **spec)
    await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 4))
    return pool, claim


def entries(lab: Lab, claim: Ref) -> list[tuple[str, str]]:
    """Rack and hypervisor of each VM of a claim, as the claim has them."""
    allocation = lab.claim_status(claim)["allocation"]
    return [(vm["rack"], vm["hypervisor"]) for vm in allocation["vms"]]


def healthy(lab: Lab, claim: Ref) -> tuple[str, str, str]:
    conditions = lab.claim_status(claim)["conditions"]
    found = next(c for c in conditions if c["type"] == "Healthy")
    return found["status"], found["reason"], found["message"]


def claimed(lab: Lab, pool: Ref) -> dict[str, int]:
    """Claimed VMs by rack, as the pool has them."""
    domains = lab.status(pool)["domains"]
    return {d["rack"]: d["claimed"] for d in domains if d["claimed"]}


def server_of(lab: Lab, claim: Ref, number: int) -> Server:
    vm = lab.claim_status(claim)["allocation"]["vms"][number]
    return next(s for s in lab.servers() if s.id == vm["serverID"])


@pytest.mark.parametrize("admin", [True, False], ids=["admin", "member-with-inventory"])
async def test_a_claimed_vm_that_moves_is_corrected_on_vm_pool_and_claim(admin: bool) -> None:
    async with Lab(admin=admin) as lab:
        if not admin:
            lab.racks(APART)
        pool, claim = await bound(lab)
        [first, (rack, _)] = entries(lab, claim)
        assert healthy(lab, claim)[0] == "True"
        other = entries(lab, claim)[1][1]
        there = next(h for h in lab.nova.world.hosts if h[:2] == rack and h != other)
        lab.nova.move(server_of(lab, claim, 0), there)
        await lab.until(lambda: entries(lab, claim)[0] == (rack, there), within=30)
        await lab.until(lambda: claimed(lab, pool) == {rack: 2})
        status, reason, text = healthy(lab, claim)
        assert (status, reason) == ("False", "ConstraintsUnsatisfied")
        assert f"rack {rack} has 2 of them" in text
        assert lab.status(pool)["ready"] == 4

        lab.nova.move(server_of(lab, claim, 0), first[1])
        await lab.until(lambda: healthy(lab, claim)[0] == "True", within=30)
        assert entries(lab, claim)[0] == first


async def test_a_rack_that_changes_in_its_source_is_corrected_on_the_claim_too() -> None:
    async with Lab() as lab:
        lab.racks(RACKED)
        lab.cluster.config_maps[MAP] = {}
        pool, claim = await bound(lab)
        [(_, host), (rack, _)] = entries(lab, claim)
        posts = lab.posts()
        lab.cluster.config_maps[MAP] = {host: rack}
        await lab.until(lambda: entries(lab, claim)[0] == (rack, host), within=40)
        await lab.until(lambda: claimed(lab, pool) == {rack: 2})
        assert healthy(lab, claim)[1] == "ConstraintsUnsatisfied"
        lab.cluster.config_maps[MAP] = {host: "r9"}
        await lab.until(lambda: healthy(lab, claim)[0] == "True", within=40)
        assert entries(lab, claim)[0] == ("r9", host)
        assert lab.posts() == posts


async def test_an_evacuated_vm_of_a_claim_is_told_where_it_is_though_it_is_stopped() -> None:
    """Nova leaves an evacuated server stopped (2.95)."""
    async with Lab() as lab:
        pool, claim = await bound(lab)
        server = server_of(lab, claim, 0)
        there = next(h for h in lab.nova.world.hosts if h[:2] not in dict(entries(lab, claim)))
        assert server.host is not None
        lab.nova.kill(server.host, power=True)
        lab.nova.move(server, there)
        lab.nova.act(server, "os-stop")
        await lab.until(lambda: entries(lab, claim)[0] == (there[:2], there), within=60)
        await lab.until(lambda: healthy(lab, claim)[1] == "VMsUnhealthy", within=30)
        await lab.until(lambda: there[:2] in claimed(lab, pool))
        lab.nova.act(server, "os-start")
        await lab.until(lambda: healthy(lab, claim)[0] == "True", within=60)
        assert entries(lab, claim)[0] == (there[:2], there)
