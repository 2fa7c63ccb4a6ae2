"""Ready VMs that work no more: out of the claimable set, back, or replaced; never all at once."""

import asyncio

import pytest

from lab import Lab
from warmpool.api.names import ANNOTATION_PRESERVE, Kind, Reason
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body
from warmpool.sim.faults import OutageFault, SpawnFault
from warmpool.sim.world import Server

pytestmark = pytest.mark.looptime

PROBED = {"period": "10s", "probe": {"tcpSocket": {"port": 22}}}


async def filled(lab: Lab, replicas: int, **health: object) -> Ref:
    pool = lab.pool(replicas=replicas, health=PROBED | health)
    await lab.until(lambda: lab.is_even(pool, replicas))
    return pool


def sick(lab: Lab) -> dict[str, Body]:
    return {ref.name: vm for ref, vm in lab.vms() if vm["status"]["phase"] == "Failed"}


def kept(lab: Lab) -> dict[str, Body]:
    return {ref.name: vm for ref, vm in lab.vms() if vm["spec"].get("keepUntil")}


async def annotate(lab: Lab, kind: Kind, ref: Ref, span: str) -> None:
    """Ask that what fails is kept."""
    value = {ANNOTATION_PRESERVE: span}
    ops = [{"op": "add", "path": "/metadata/annotations", "value": value}]
    await lab.cluster.patch(kind, ref, ops)


def alive(lab: Lab, server: Server) -> bool:
    return any(s.id == server.id for s in lab.servers())


async def test_a_vm_that_answers_no_more_is_not_claimed_and_replaced_after_the_threshold() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 5)
        victim = lab.servers()[0]
        lab.nova.set_reachable(victim, reachable=False)
        assert await lab.until(lambda: len(lab.free()) == 4, within=12) <= 12
        (vm,) = sick(lab).values()
        assert vm["status"]["fault"]["reason"] == Reason.PROBE_FAILED
        assert vm["status"]["readyAt"]
        assert lab.posts() == 5, "not replaced before it is given up"
        await lab.until(lambda: lab.condition(pool, "Healthy")[1] == "ReplacingUnhealthy")
        assert lab.condition(pool, "Healthy") == ("True", "ReplacingUnhealthy")
        assert await lab.until(lambda: not alive(lab, victim), within=30) >= 15
        await lab.until(lambda: lab.is_even(pool, 5))
        await lab.until(lambda: lab.condition(pool, "Healthy") == ("True", "AllHealthy"))
        assert lab.posts() == 6


async def test_a_vm_that_answers_again_is_claimable_again_and_none_is_built_for_it() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 5)
        (was,) = {vm["status"]["readyAt"] for vm in lab.free()[:1]}
        victim = lab.server_of(lab.free()[0])
        lab.nova.set_reachable(victim, reachable=False)
        await lab.until(lambda: len(lab.free()) == 4, within=12)
        lab.nova.set_reachable(victim, reachable=True)
        await lab.until(lambda: lab.is_even(pool, 5), within=12)
        assert lab.posts() == 5
        assert was in {vm["status"]["readyAt"] for vm in lab.free()}


async def test_a_vm_that_somebody_stops_is_not_claimed_until_it_is_started_again() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=5)
        await lab.until(lambda: lab.is_even(pool, 5))
        victim = lab.servers()[0]
        lab.nova.act(victim, "os-stop")
        await lab.until(lambda: len(lab.free()) == 4, within=15)
        (vm,) = sick(lab).values()
        assert vm["status"]["fault"]["reason"] in {Reason.SERVER_BUSY, Reason.SERVER_STOPPED}
        await lab.until(lambda: victim.vm_state == "stopped")
        lab.nova.act(victim, "os-start")
        await lab.until(lambda: lab.is_even(pool, 5), within=30)
        assert lab.posts() == 5


async def test_too_many_at_once_are_left_alone_until_they_are_few() -> None:
    """A network that is down between us and the VMs must not cost the pool its VMs."""
    async with Lab() as lab:
        pool = await filled(lab, 10)
        for server in lab.servers():
            lab.nova.set_reachable(server, reachable=False)
        await lab.until(lambda: not lab.free(), within=15)
        await lab.always(lambda: len(lab.servers()) == 10, seconds=120)
        assert lab.condition(pool, "Healthy") == ("False", "TooManyUnhealthy")
        assert lab.status(pool)["state"] == "TooManyUnhealthy"
        for server in lab.servers()[1:]:
            lab.nova.set_reachable(server, reachable=True)
        await lab.until(lambda: lab.is_even(pool, 10), within=60)
        assert lab.posts() == 11


async def test_the_vms_of_a_dead_host_leave_the_claimable_set_and_come_back_with_it() -> None:
    """Nova itself says of such servers that they are ACTIVE."""
    async with Lab() as lab:
        pool = lab.pool(replicas=16, health={"failureThreshold": 20})
        await lab.until(lambda: lab.is_even(pool, 16))
        host = lab.servers()[0].host
        there = sum(s.host == host for s in lab.servers())
        assert 0 < there < 16
        lab.nova.kill(host)
        await lab.until(lambda: len(lab.free()) == 16 - there, within=90)
        assert {vm["status"]["fault"]["reason"] for vm in sick(lab).values()} == {Reason.HOST_DOWN}
        assert {vm["status"]["hypervisor"] for vm in sick(lab).values()} == {host}
        lab.nova.revive(host)
        await lab.until(lambda: lab.is_even(pool, 16), within=60)
        assert lab.posts() == 16


@pytest.mark.parametrize("admin", [True, False], ids=["admin", "member-with-inventory"])
async def test_a_claim_hears_that_the_host_of_its_vm_is_dead(admin: bool) -> None:
    """A member's servers have no host of their own telling: nobody heard of it."""
    async with Lab(admin=admin) as lab:
        if not admin:
            lab.racks("clouds: {lab: {inventory: lab-admin}}")
        await filled(lab, 1)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        (mine,) = (vm for _, vm in lab.vms() if "claimRef" in vm["spec"])
        host = lab.server_of(mine).host
        lab.nova.kill(host)

        def told() -> tuple[str, str]:
            status = lab.cluster.peek(Kind.VM_CLAIM)[claim]["status"]
            return next(
                (c["status"], c["reason"]) for c in status["conditions"] if c["type"] == "Healthy"
            )

        await lab.until(lambda: told() == ("False", "VMsUnhealthy"), within=90)
        [vm] = (vm for _, vm in lab.vms() if "claimRef" in vm["spec"])
        assert vm["status"]["fault"]["message"] == f"Nova holds host {host} for dead"


async def test_a_claimed_vm_is_not_probed() -> None:
    """Whoever has claimed it may close its ports."""
    async with Lab() as lab:
        await filled(lab, 1)
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim))
        (mine,) = (vm for _, vm in lab.vms() if "claimRef" in vm["spec"])
        lab.nova.set_reachable(lab.server_of(mine), reachable=False)
        await lab.always(lambda: not sick(lab), seconds=60)


async def test_a_cloud_that_cannot_be_asked_condemns_nobody() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 5)
        lab.arm(OutageFault(effect="credentials", seconds=180))
        await lab.until(
            lambda: lab.condition(pool, "DependenciesResolved")[1] == "CredentialsRefused"
        )
        victim = lab.servers()[0]
        lab.nova.set_reachable(victim, reachable=False)
        await lab.until(lambda: len(lab.free()) == 4, within=15)
        await lab.always(lambda: alive(lab, victim), seconds=90)
        await lab.until(lambda: not alive(lab, victim), within=180)
        await lab.until(lambda: lab.is_even(pool, 5))


async def test_a_paused_pool_keeps_its_sick_and_gives_them_to_nobody() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 5)
        await lab.change(pool, paused=True)
        victim = lab.servers()[0]
        lab.nova.set_reachable(victim, reachable=False)
        await lab.until(lambda: len(lab.free()) == 4, within=15)
        await lab.always(lambda: alive(lab, victim), seconds=60)
        await lab.change(pool, paused=False)
        await lab.until(lambda: lab.is_even(pool, 5), within=60)


async def test_a_new_leader_counts_failures_anew_and_comes_to_the_same_end() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 5)
        victim = lab.servers()[0]
        lab.nova.set_reachable(victim, reachable=False)
        await lab.until(lambda: len(lab.free()) == 4, within=12)
        await lab.restart()
        assert await lab.until(lambda: not alive(lab, victim), within=60) >= 15
        await lab.until(lambda: lab.is_even(pool, 5))


async def test_a_build_that_never_answers_leaves_the_end_of_its_console_behind() -> None:
    async with Lab(build=1.0) as lab:
        lab.pool(replicas=1, health={"launchTimeout": "20s", "probe": {"tcpSocket": {"port": 22}}})
        await lab.until(lab.servers)
        lab.nova.set_reachable(lab.servers()[0], reachable=False)
        await lab.until(lambda: lab.notes("ProbeFailed"), within=30)
        states = (c.body["status"] for c in lab.cluster.history if c.kind is Kind.WARM_VM)
        fault = next(status["fault"] for status in states if "fault" in status)
        assert fault["reason"] == Reason.PROBE_FAILED
        assert "never answered its probe" in fault["message"]
        assert fault["console"].endswith("Kernel panic - not syncing: no init found.")
        assert "its console ends: [" in lab.notes("ProbeFailed")[0]


async def test_a_build_that_never_had_a_console_fails_all_the_same() -> None:
    async with Lab() as lab:
        lab.arm(SpawnFault(effect="abort", count=1))
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.notes("BuildFault"))
        assert "console" not in lab.notes("BuildFault")[0]
        await lab.until(lambda: lab.is_even(pool, 1))


# --- kept for looking at --------------------------------------------------------------------


async def test_a_sick_vm_that_is_to_be_preserved_is_replaced_and_kept_for_its_time() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 5)
        name, victim = next((ref, lab.server_of(vm)) for ref, vm in lab.vms())
        await annotate(lab, Kind.WARM_VM, name, "5m")
        lab.nova.set_reachable(victim, reachable=False)
        await lab.until(lambda: kept(lab), within=60)
        await lab.until(lambda: lab.is_even(pool, 5))
        assert list(kept(lab)) == [name.name]
        assert lab.notes("Preserved")
        assert lab.status(pool)["retained"] == 1
        lab.nova.set_reachable(victim, reachable=True)
        await asyncio.sleep(200)
        assert alive(lab, victim)
        assert len(lab.free()) == 5
        await lab.until(lambda: not alive(lab, victim) and not kept(lab), within=120)
        assert lab.is_even(pool, 5)
        assert lab.posts() == 6


async def test_failed_builds_of_a_pool_are_kept_but_never_more_than_a_few() -> None:
    async with Lab() as lab:
        off = lab.arm(SpawnFault(effect="abort", message="no such device"))
        pool = lab.pool(replicas=1)
        await annotate(lab, Kind.WARM_POOL, pool, "5m")
        await lab.until(lambda: len(kept(lab)) == 3, within=120)
        await asyncio.sleep(200)
        assert len(kept(lab)) == 3
        assert len(lab.servers()) <= 4
        for vm in kept(lab).values():
            assert vm["status"]["serverID"] in {server.id for server in lab.servers()}
            assert "no such device" in vm["status"]["fault"]["message"]
        off()
        await lab.until(lambda: len(lab.free()) == 1, within=620)
        await lab.until(lambda: not kept(lab) and len(lab.servers()) == 1, within=620)
        assert lab.is_even(pool, 1)


async def test_a_preserved_vm_that_is_deleted_goes_at_once() -> None:
    async with Lab() as lab:
        lab.arm(SpawnFault(effect="abort", count=1))
        pool = lab.pool(replicas=1)
        await annotate(lab, Kind.WARM_POOL, pool, "5m")
        await lab.until(lambda: kept(lab))
        (name,) = kept(lab)
        lab.delete(Kind.WARM_VM, Ref(pool.namespace, name))
        await lab.until(lambda: len(lab.servers()) == 1 and lab.is_even(pool, 1))
