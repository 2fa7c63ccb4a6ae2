"""Pools: they fill, show what they hold, follow their spec, and go when nothing is left."""

import pytest
from harness.clouds import Simulator
from harness.sandbox import Sandbox

from warmpool.api.names import Kind


def pool_is_there(sandbox: Sandbox, pool: str) -> bool:
    return pool in sandbox.names(Kind.WARM_POOL)


def test_a_pool_fills_and_shows_where_its_vms_stand(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 6)
    [row] = sandbox.table("wp", pool)
    assert row["AGE"]
    shown = {"DESIRED": "6", "READY": "6", "BUILDING": "0", "CLAIMED": "0", "STATE": "PoolFull"}
    assert row | shown == row
    vms = sandbox.table("wvm")
    assert len(vms) == 6
    assert {vm["POOL"] for vm in vms} == {pool}
    assert {vm["PHASE"] for vm in vms} == {"Ready"}
    assert {vm["CLAIM"] for vm in vms} == {""}
    assert {vm["ZONE"] for vm in vms} == set(sandbox.cloud.zones)
    racks, hypervisors = ({vm[name] for vm in vms} for name in ("RACK", "HYPERVISOR"))
    assert "" not in racks | hypervisors
    assert int(row["RACKS"]) == len(racks)
    assert int(row["HYPERVISORS"]) == len(hypervisors)
    assert sorted(vm["NAME"] for vm in vms) == sorted(sandbox.servers())


def test_the_density_of_racks_stands_in_the_status(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 5)
    sandbox.bound("taken", {pool: 2})
    sandbox.await_status(pool, "claimed", 2)
    sandbox.await_ready(pool, 5)
    racks = [vm["RACK"] for vm in sandbox.table("wvm")]
    domains = sandbox.status(pool)["domains"]
    assert {d["rack"]: d["ready"] + d["claimed"] for d in domains} == {
        rack: racks.count(rack) for rack in racks
    }
    assert sum(d["claimed"] for d in domains) == 2


def test_scaling_up_and_down_with_kubectl_scale(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    sandbox.scale(pool, 4)
    sandbox.await_ready(pool, 4)
    sandbox.scale(pool, 1)
    sandbox.await_status(pool, "replicas", 1)
    sandbox.until(lambda: len(sandbox.names(Kind.WARM_VM)) == 1, "three VMs fewer")
    assert sandbox.servers() == sandbox.names(Kind.WARM_VM)
    assert sandbox.status(pool)["ready"] == 1


def test_scaling_down_leaves_claimed_vms_alone(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 3)
    taken = {vm["name"] for vm in sandbox.bound("keep", {pool: 2})}
    sandbox.scale(pool, 0)
    sandbox.await_status(pool, "replicas", 0)
    sandbox.until(lambda: set(sandbox.servers()) == taken, "only the claimed servers are left")


def test_a_paused_pool_builds_nothing_and_serves_all_the_same(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 3)
    sandbox.change(pool, {"paused": True, "replicas": 4})
    sandbox.await_status(pool, "state", "Paused")
    before = set(sandbox.servers())
    taken = {vm["name"] for vm in sandbox.bound("served", {pool: 2})}
    sandbox.await_status(pool, "ready", 1)
    assert set(sandbox.servers()) == before
    sandbox.kubectl("delete", "vmclaim", "served")
    sandbox.until(lambda: set(sandbox.servers()) == before - taken, "the claimed ones are released")
    sandbox.change(pool, {"paused": False})
    sandbox.await_ready(pool, 4)


def test_a_vm_that_a_user_deletes_is_replaced(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    victim, other = sandbox.names(Kind.WARM_VM)
    sandbox.kubectl("delete", "warmvm", victim)
    assert victim not in sandbox.servers()
    sandbox.await_ready(pool, 2)
    assert other in sandbox.names(Kind.WARM_VM)


def test_a_pool_that_is_deleted_waits_for_its_claims(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 3)
    taken = {vm["name"] for vm in sandbox.bound("keep", {pool: 2})}
    sandbox.kubectl("delete", "warmpool", pool, "--wait=false")
    sandbox.until(lambda: set(sandbox.servers()) == taken, "the unclaimed servers are gone")
    sandbox.await_status(pool, "state", "Deleting")
    progressing = sandbox.condition(pool, "Progressing")
    assert progressing["reason"] == "WaitingForClaims"
    assert "2 VMs are claimed" in progressing["message"]
    sandbox.kubectl("delete", "vmclaim", "keep")
    sandbox.wait(f"warmpool/{pool}", "delete")
    assert sandbox.servers() == []
    assert sandbox.names(Kind.WARM_VM) == []


@pytest.mark.simulator
def test_a_pool_stays_until_nova_has_no_server_of_it(
    sandbox: Sandbox, simulator: Simulator
) -> None:
    """A delete that Nova has accepted is not yet one that it has done."""
    pool = sandbox.full_pool("data", 2)
    stuck = simulator.break_with(kind="delete", effect="hang", name=sandbox.mark)
    sandbox.kubectl("delete", "warmpool", pool, "--wait=false")

    def accepted() -> bool:
        return {server["task"] for server in simulator.records(sandbox.mark)} == {"deleting"}

    sandbox.until(accepted, "both deletes are accepted")
    vms = sandbox.all(Kind.WARM_VM)
    assert len(vms) == 2
    assert all(vm["metadata"]["finalizers"] == ["warmpool.dev/server"] for vm in vms)
    assert pool_is_there(sandbox, pool)
    simulator.disarm(stuck)
    for server in simulator.records(sandbox.mark):  # Nova ignores a second DELETE meanwhile
        simulator.do(do="server", server=server["id"], change="wipe")
    sandbox.wait(f"warmpool/{pool}", "delete")
    assert sandbox.servers() == []
