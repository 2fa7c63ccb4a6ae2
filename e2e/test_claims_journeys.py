"""Claims that name constraints, wait, have VMs built, pass one another, or take the reserve."""

import time
from collections import Counter
from typing import Any

import pytest
from harness.clouds import Simulator
from harness.sandbox import Sandbox

from warmpool.api.names import Kind

Body = dict[str, Any]


def loads(vms: list[Body], domain: str, *requests: str) -> Counter[str]:
    """VMs of some requests, or of all, per domain."""
    return Counter(vm[domain] for vm in vms if not requests or vm["request"] in requests)


def phase(sandbox: Sandbox, claim: str) -> str:
    return str(sandbox.get(Kind.VM_CLAIM, claim)["status"]["phase"])


def await_phase(sandbox: Sandbox, claim: str, wanted: str, seconds: int = 60) -> Body:
    sandbox.wait(f"vmclaim/{claim}", f"jsonpath={{.status.phase}}={wanted}", seconds=seconds)
    status: Body = sandbox.get(Kind.VM_CLAIM, claim)["status"]
    return status


def await_short(sandbox: Sandbox, claim: str) -> Body:
    """What a claim that waits is told."""
    sandbox.wait(f"vmclaim/{claim}", "condition=Bound=False")
    status = sandbox.get(Kind.VM_CLAIM, claim)["status"]
    assert status["phase"] == "Pending"
    shortfall: Body = status["shortfall"]
    return shortfall


# -- constraints ------------------------------------------------------------------------------


def test_all_constraints_of_a_claim_hold_together(sandbox: Sandbox) -> None:
    data, master = sandbox.pool("data", 8), sandbox.pool("master", 3)
    sandbox.await_ready(data, 8)
    sandbox.await_ready(master, 3)
    constraints = [
        {"domain": "rack", "requests": ["r1"], "maxPerDomain": 1},
        {"domain": "rack", "requests": ["r0"], "minDomains": 2, "maxSkew": 2},
        {"domain": "hypervisor", "maxPerDomain": 2},
        {"domain": "zone", "minDomains": 2},
    ]
    vms = sandbox.bound("cluster", {data: 4, master: 2}, constraints=constraints)
    assert loads(vms, "request") == {"r0": 4, "r1": 2}
    assert max(loads(vms, "rack", "r1").values()) == 1
    racks = loads(vms, "rack", "r0").values()
    assert len(racks) >= 2
    assert max(racks) - min(racks) <= 2
    assert max(loads(vms, "hypervisor").values()) <= 2
    assert len(loads(vms, "zone")) == 2


def test_a_constraint_is_stricter_than_the_mode_beside_it(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 6)
    zones = [{"domain": "zone", "maxPerDomain": 1}]
    vms = sandbox.bound("both", {pool: 2}, mode="HypervisorAware", constraints=zones)
    assert len(loads(vms, "zone")) == len(loads(vms, "hypervisor")) == 2
    sandbox.await_ready(pool, 6)
    short = sandbox.refused("three", {pool: 3}, mode="HypervisorAware", constraints=zones)
    assert short["reason"] == "NotEnoughZones"
    assert "2" in short["message"]
    assert "3" in short["message"]


CONTRADICTIONS: dict[str, tuple[Body, str]] = {
    "names no request": ({"domain": "rack", "requests": ["no"], "maxPerDomain": 1}, "name"),
    "says nothing": ({"domain": "rack"}, "must say something"),
    "unknown domain": ({"domain": "planet", "maxPerDomain": 1}, "planet"),
    "below one": ({"domain": "rack", "maxPerDomain": 0}, "maxPerDomain"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_what_no_world_could_satisfy_is_refused_at_admission(sandbox: Sandbox, kind: str) -> None:
    constraint, said = CONTRADICTIONS[kind]
    manifest = sandbox.claim_manifest("never", {"data": 1}, constraints=[constraint])
    assert said in sandbox.refusal(manifest)


@pytest.mark.parametrize("patience", ["Fail", "Wait", "Build"])
def test_a_contradiction_is_refused_at_once_however_patient(
    sandbox: Sandbox, patience: str
) -> None:
    pool = sandbox.full_pool("data", 1)
    racks = [{"domain": "rack", "minDomains": 3}]
    claim = {"constraints": racks, "onUnsatisfied": patience, "timeout": "10m"}
    short = sandbox.refused("never", {pool: 2}, **claim)
    assert short["reason"] == "ConstraintsContradict"
    assert "2 VMs cannot use 3 racks" in short["message"]


# -- Wait and Build ---------------------------------------------------------------------------


def test_a_waiting_claim_is_served_when_vms_come(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    sandbox.claim("patient", {pool: 4}, onUnsatisfied="Wait", timeout="5m")
    short = await_short(sandbox, "patient")
    assert short["reason"] == "NotEnoughReady"
    assert sandbox.status(pool)["ready"] == 2
    sandbox.scale(pool, 4)
    status = await_phase(sandbox, "patient", "Bound")
    assert len(status["allocation"]["vms"]) == 4
    assert "shortfall" not in status


def test_a_waiting_claim_is_given_up_after_its_timeout(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    sandbox.claim("hasty", {pool: 3}, onUnsatisfied="Wait", timeout="3s")
    assert await_short(sandbox, "hasty")["reason"] == "NotEnoughReady"
    status = await_phase(sandbox, "hasty", "Failed")
    assert status["shortfall"]["reason"] == "TimedOut"
    assert "3s" in status["shortfall"]["message"]
    assert "2" in status["shortfall"]["message"]
    sandbox.scale(pool, 3)
    sandbox.await_ready(pool, 3)
    assert phase(sandbox, "hasty") == "Failed"


def test_a_pool_builds_for_a_claim_and_is_as_before_afterwards(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    sandbox.claim("grown", {pool: 5}, onUnsatisfied="Build", timeout="5m")
    status = await_phase(sandbox, "grown", "Bound", 120)
    assert len(status["allocation"]["vms"]) == 5
    sandbox.await_ready(pool, 2)
    sandbox.until(lambda: len(sandbox.servers()) == 7, "two ready beside five claimed")
    sandbox.kubectl("delete", "vmclaim", "grown")
    sandbox.until(lambda: len(sandbox.servers()) == 2, "only the pool's own are left")


@pytest.mark.simulator
def test_what_was_built_in_vain_goes_again(sandbox: Sandbox, simulator: Simulator) -> None:
    """Four racks are needed, and the cloud has three: a bounded surge, and none of it stays."""
    pool = sandbox.full_pool("data", 2)
    claim = {"mode": "RackAware", "onUnsatisfied": "Build", "timeout": "8s"}
    sandbox.claim("vain", {pool: 4}, **claim)
    most = 0
    while phase(sandbox, "vain") == "Pending":
        most = max(most, len(simulator.records(sandbox.mark)))
    status = sandbox.get(Kind.VM_CLAIM, "vain")["status"]
    assert status["shortfall"]["reason"] == "TimedOut"
    assert "3 racks" in status["shortfall"]["message"]
    assert 2 < most <= 2 + 2 * 4
    sandbox.await_ready(pool, 2)
    sandbox.until(lambda: len(sandbox.servers()) == 2, "the pool is as before")


@pytest.mark.simulator
def test_a_build_that_meets_the_quota_times_out_and_says_so(
    sandbox: Sandbox, simulator: Simulator
) -> None:
    pool = sandbox.full_pool("data", 2)
    simulator.do(do="quota", instances=len(simulator.records()) + 1)
    sandbox.claim("vain", {pool: 5}, onUnsatisfied="Build", timeout="6s")
    sandbox.until(
        lambda: sandbox.condition(pool, "CapacityAvailable").get("reason") == "QuotaExceeded",
        "the pool says what is in the way",
    )
    status = await_phase(sandbox, "vain", "Failed")
    assert status["shortfall"]["reason"] == "TimedOut"
    sandbox.await_status(pool, "ready", 2)
    sandbox.until(lambda: len(sandbox.servers()) == 2, "the pool is as before")


# -- who is first -----------------------------------------------------------------------------


def test_the_higher_priority_is_served_first(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2, maxSize=3)
    wait = {"onUnsatisfied": "Wait", "timeout": "5m"}
    sandbox.claim("low", {pool: 3}, **wait)
    await_short(sandbox, "low")
    sandbox.claim("high", {pool: 3}, priority=7, **wait)
    await_short(sandbox, "high")
    sandbox.scale(pool, 3)
    await_phase(sandbox, "high", "Bound")
    assert phase(sandbox, "low") == "Pending"
    sandbox.kubectl("delete", "vmclaim", "high")
    await_phase(sandbox, "low", "Bound")


def test_within_a_priority_the_first_is_served_first(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 1, maxSize=2)
    wait = {"onUnsatisfied": "Wait", "timeout": "5m"}
    sandbox.claim("z-first", {pool: 2}, **wait)
    later = time.monotonic() + 1.1  # creation times have no fractions
    sandbox.until(lambda: time.monotonic() > later, "the next second")
    sandbox.claim("a-second", {pool: 2}, **wait)
    await_short(sandbox, "a-second")
    sandbox.scale(pool, 2)
    await_phase(sandbox, "z-first", "Bound")
    assert phase(sandbox, "a-second") == "Pending"


def test_a_small_claim_takes_nothing_that_a_waiting_one_could_use(sandbox: Sandbox) -> None:
    pool, other = sandbox.pool("data", 3), sandbox.pool("other", 1)
    sandbox.await_ready(pool, 3)
    sandbox.await_ready(other, 1)
    sandbox.claim("large", {pool: 5}, onUnsatisfied="Wait", timeout="5m")
    await_short(sandbox, "large")
    short = sandbox.refused("small", {pool: 1})
    assert "kept for claims that wait before it" in short["message"]
    sandbox.bound("elsewhere", {other: 1})
    sandbox.bound("urgent", {pool: 1}, priority=1)
    sandbox.await_ready(pool, 3)
    sandbox.kubectl("delete", "vmclaim", "large")
    sandbox.bound("small-again", {pool: 1})


@pytest.mark.simulator
def test_a_small_claim_passes_where_it_takes_nothing_away(sandbox: Sandbox) -> None:
    """One waits for a fourth rack that there is not: one VM of each rack is all it could use."""
    pool = sandbox.full_pool("data", 8)
    sandbox.claim("large", {pool: 4}, mode="RackAware", onUnsatisfied="Wait", timeout="5m")
    assert await_short(sandbox, "large")["reason"] == "NotEnoughRacks"
    sandbox.bound("small", {pool: 5})
    assert phase(sandbox, "large") == "Pending"


def test_the_reserve_is_for_the_urgent(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 4, reserve=2, maxSize=4)
    assert sandbox.status(pool)["claimable"]["any"] == 2
    short = sandbox.refused("ordinary", {pool: 3}, priority=999)
    assert short["reason"] == "NotEnoughReady"
    assert "2" in short["message"]
    assert len(sandbox.bound("urgent", {pool: 3}, priority=1000)) == 3
    sandbox.await_status(pool, "claimable.any", 0)
    assert sandbox.refused("late", {pool: 1})["reason"] == "NotEnoughReady"
