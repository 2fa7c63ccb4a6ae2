"""Claims: all or nothing, over racks and hypervisors, refused with the numbers, released."""

import pytest
from harness.sandbox import Sandbox

from warmpool.api.names import Kind

MODES = {
    "RackAware": ("rack", "distinctRacks"),
    "HypervisorAware": ("hypervisor", "distinctHypervisors"),
}


def test_kubectl_shows_who_has_what(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 4)
    vms = sandbox.bound("logs-7", {pool: 2})
    [claim] = sandbox.table("vmc", "logs-7")
    assert (claim["MODE"], claim["PHASE"], claim["REASON"]) == ("BestEffort", "Bound", "")
    assert claim["PLACED"].startswith("2 VMs")
    sandbox.await_status(pool, "claimed", 2)
    owned = {row["NAME"] for row in sandbox.table("wvm") if row["CLAIM"] == "logs-7"}
    assert owned == {vm["name"] for vm in vms}
    by_label = sandbox.kubectl("get", "wvm", "-l", "warmpool.dev/claim=logs-7", "-o", "name")
    assert len(by_label.splitlines()) == 2


def test_the_allocation_is_all_that_a_client_needs(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    [vm] = sandbox.bound("one", {pool: 1})
    server = sandbox.get(Kind.WARM_VM, vm["name"])
    status = server["status"]
    assert vm["uid"] == server["metadata"]["uid"]
    assert vm["namespace"] == sandbox.namespace
    assert vm["request"] == "r0"
    for key in ("serverID", "hostname", "zone", "rack", "hypervisor"):
        assert vm[key] == status[key] != "", key
    assert vm.get("addresses", []) == status.get("addresses", [])
    assert bool(vm.get("addresses")) == (sandbox.cloud.template().get("networks") != [])


@pytest.mark.parametrize("mode", MODES)
def test_each_vm_in_a_domain_of_its_own_and_not_one_more(sandbox: Sandbox, mode: str) -> None:
    domain, count = MODES[mode]
    pool = sandbox.full_pool("data", 6)
    most = sandbox.status(pool)["claimable"][count]
    ready = sandbox.status(pool)["ready"]
    assert 1 < most <= ready
    short = sandbox.refused("too-many", {pool: most + 1}, mode=mode)
    assert short["reason"] in {f"NotEnough{domain.capitalize()}s", "NotEnoughReady"}
    assert str(most) in short["message"]
    assert str(most + 1) in short["message"]
    sandbox.kubectl("delete", "vmclaim", "too-many")
    vms = sandbox.bound("all-of-them", {pool: most}, mode=mode)
    assert len({vm[domain] for vm in vms}) == len(vms) == most


def test_too_few_ready_is_told_in_numbers(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    short = sandbox.refused("big", {pool: 5})
    assert short["reason"] == "NotEnoughReady"
    assert "2" in short["message"]
    assert "5" in short["message"]
    [row] = sandbox.table("vmc", "big")
    assert (row["PHASE"], row["REASON"]) == ("Failed", "NotEnoughReady")
    assert sandbox.status(pool)["ready"] == 2


@pytest.mark.parametrize("mode", ["BestEffort", *MODES])
def test_one_claim_over_two_pools(sandbox: Sandbox, mode: str) -> None:
    data, master = sandbox.pool("data", 4), sandbox.pool("master", 2)
    sandbox.await_ready(data, 4)
    sandbox.await_ready(master, 2)
    vms = sandbox.bound("cluster", {data: 1, master: 1}, mode=mode)
    assert [vm["request"] for vm in vms] == ["r0", "r1"]
    assert [vm["name"].startswith(f"{pool}-") for vm, pool in zip(vms, (data, master), strict=True)]
    if mode in MODES:
        assert len({vm[MODES[mode][0]] for vm in vms}) == 2


def test_a_claim_over_two_pools_is_all_or_nothing(sandbox: Sandbox) -> None:
    data, master = sandbox.pool("data", 3), sandbox.pool("master", 1)
    sandbox.await_ready(data, 3)
    sandbox.await_ready(master, 1)
    short = sandbox.refused("cluster", {data: 2, master: 2})
    assert short["reason"] == "NotEnoughReady"
    assert master in short["message"] or "r1" in short["message"]
    assert (sandbox.status(data)["ready"], sandbox.status(master)["ready"]) == (3, 1)
    assert all("claimRef" not in vm["spec"] for vm in sandbox.all(Kind.WARM_VM))


def test_a_claim_on_a_pool_that_is_not_there(sandbox: Sandbox) -> None:
    short = sandbox.refused("lost", {"no-such-pool": 1})
    assert short["reason"] == "PoolNotFound"
    assert "no-such-pool" in short["message"]


def test_deleting_a_claim_releases_its_vms_and_the_pool_refills(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 3)
    taken = {vm["name"] for vm in sandbox.bound("short-lived", {pool: 2})}
    sandbox.await_ready(pool, 3)
    assert len(sandbox.servers()) == 5
    sandbox.kubectl("delete", "vmclaim", "short-lived")
    sandbox.until(lambda: not taken & set(sandbox.servers()), "the servers are gone in Nova")
    sandbox.await_status(pool, "claimed", 0)
    sandbox.await_ready(pool, 3)
    assert len(sandbox.servers()) == 3


def test_a_claim_deleted_and_made_anew_under_its_name(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 3)
    first = {vm["uid"] for vm in sandbox.bound("again", {pool: 1})}
    sandbox.kubectl("delete", "vmclaim", "again")
    second = {vm["uid"] for vm in sandbox.bound("again", {pool: 1})}
    assert not first & second
    sandbox.await_ready(pool, 3)
    sandbox.until(lambda: len(sandbox.servers()) == 4, "only the second claim's VM is claimed")
