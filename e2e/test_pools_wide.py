"""Pools over all hypervisors of a cloud, and what its operators do: on the simulator and others."""

from collections import Counter

from harness.sandbox import Sandbox

from warmpool.api.names import Kind

WIDE = 60
EVENLY = [{"domain": "rack", "maxSkew": 1}, {"domain": "hypervisor", "maxSkew": 1}]


def test_sixty_vms_lie_evenly_and_a_dead_hypervisor_s_are_given_to_nobody(sandbox: Sandbox) -> None:
    health = {"period": "5m", "probe": sandbox.cloud.probe() or {"none": {}}}
    pool = sandbox.pool("wide", WIDE, maxConcurrent=20, spread=EVENLY, health=health)
    sandbox.await_ready(pool, WIDE, seconds=300)
    vms = sandbox.table("wvm")
    racks, hypervisors = (Counter(vm[what] for vm in vms) for what in ("RACK", "HYPERVISOR"))
    for counts in (racks, hypervisors):
        assert max(counts.values()) - min(counts.values()) <= 1, counts
    assert sandbox.condition(pool, "Balanced")["reason"] == "SpreadKept"
    assert len(sandbox.servers()) == WIDE
    victim, lost = hypervisors.most_common()[-1]
    sandbox.cloud.kill_compute(victim)
    sandbox.await_status(pool, "ready", WIDE - lost, seconds=120)
    sick = [vm for vm in sandbox.table("wvm") if vm["PHASE"] == "Failed"]
    assert {vm["HYPERVISOR"] for vm in sick} == {victim}
    assert len(sick) == lost
    assert f"{WIDE - lost} " in sandbox.refused("all", {pool: WIDE})["message"]
    sandbox.cloud.revive_computes()
    sandbox.await_ready(pool, WIDE, seconds=240)  # a nova-compute takes its time to come back
    assert {vm["NAME"] for vm in sandbox.table("wvm")} == {vm["NAME"] for vm in vms}


def test_a_quota_that_is_reached_and_then_raised(sandbox: Sandbox) -> None:
    there = sandbox.cloud.used()
    sandbox.cloud.allow(there + 2)
    pool = sandbox.pool("data", 4)
    sandbox.wait(f"warmpool/{pool}", "condition=CapacityAvailable=False")
    told = sandbox.condition(pool, "CapacityAvailable")
    assert told["reason"] == "QuotaExceeded"
    assert str(there + 2) in told["message"]
    sandbox.await_status(pool, "ready", 2)
    assert sandbox.status(pool)["lastFailure"]["reason"] == "QuotaExceeded"
    sandbox.cloud.allow(there + 10)
    sandbox.await_ready(pool, 4)
    assert sandbox.condition(pool, "CapacityAvailable")["status"] == "True"
    assert "lastFailure" not in sandbox.status(pool)
    assert len(sandbox.servers()) == 4


def test_a_server_group_keeps_vms_apart_claimed_ones_too(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("brain", 3, template={"groupHint": "brain"})
    assert sandbox.status(pool)["serverGroup"]
    sandbox.bound("cluster", {pool: 2})
    sandbox.await_ready(pool, 3)
    hypervisors = [vm["HYPERVISOR"] for vm in sandbox.table("wvm")]
    assert len(hypervisors) == len(set(hypervisors)) == 5
    sandbox.kubectl("delete", "vmclaim", "cluster")
    sandbox.until(lambda: len(sandbox.names(Kind.WARM_VM)) == 3, "the claim's VMs are gone")
    assert len(sandbox.servers()) == 3


def test_a_pool_that_is_deleted_while_it_builds_leaves_nothing(sandbox: Sandbox) -> None:
    pool = sandbox.pool("data", 12, maxConcurrent=6)
    sandbox.until(sandbox.servers, "the first server")
    sandbox.kubectl("delete", "warmpool", pool, "--timeout=90s", seconds=100)
    assert sandbox.names(Kind.WARM_VM) == []
    assert sandbox.servers() == []
