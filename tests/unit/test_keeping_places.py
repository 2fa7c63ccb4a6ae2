"""A bound claim whose VMs were moved says so where what it asked for holds no more."""

from typing import Any

import pytest

from builders import NOW, a_claim, a_claim_ref, a_place, a_vm, after
from warmpool.api.names import ClaimPhase, Reason
from warmpool.api.v1alpha1.base import Condition
from warmpool.api.v1alpha1.claim import AllocatedVM, Allocation, VMClaimStatus
from warmpool.domain.ids import VmUid
from warmpool.planning.keeping import kept


def health(racks: str, **spec: Any) -> Condition:
    """What a claim says whose VMs stand in these racks now: "r1 r1 r2"."""
    places = [a_place(n, rack=rack.strip("-")) for n, rack in enumerate(racks.split())]
    vms = [a_vm(n, claim=a_claim_ref(), place=place) for n, place in enumerate(places)]
    entries = [
        AllocatedVM(
            name=vm.ref.name,
            namespace="search",
            uid=vm.uid,
            request="data",
            server_id=f"server-{vm.uid}",
        )
        for vm in vms
    ]
    allocation = Allocation(bound_at=NOW, vms=entries)
    bound = VMClaimStatus(phase=ClaimPhase.BOUND, allocation=allocation)
    claim = a_claim(count=len(vms), status=bound, **spec)
    status = kept(claim, {VmUid(vm.uid): vm for vm in vms}, None, after(60))
    return next(c for c in status.conditions if c.type == "Healthy")


def test_vms_that_came_together_are_named_with_where_and_how_many_may_be_there() -> None:
    told = health("r1 r2 r2", mode="RackAware")
    assert (told.status.value, told.reason) == ("False", Reason.CONSTRAINTS_UNSATISFIED)
    assert "rack r2 has 2 of them (data-1, data-2), at most 1 may be there" in told.message


BROKEN = {
    "at most": ("r1 r1 r1 r2", {"maxPerDomain": 2}, "at most 2 may be there"),
    "at least": ("r1 r1 r2 r2", {"minDomains": 3}, "they use 2 racks, 3 are asked"),
    "skew": ("r1 r1 r1 r2", {"maxSkew": 1}, "another rack 1: at most 1 apart is asked"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_each_kind_of_limit_is_held_against_where_the_vms_are(kind: str) -> None:
    racks, limit, said = BROKEN[kind]
    told = health(racks, constraints=[{"domain": "rack", **limit}])
    assert told.status.value == "False"
    assert said in told.message


@pytest.mark.parametrize(
    ("racks", "spec"),
    [
        ("r1 r2 r3", {"mode": "RackAware"}),
        ("r1 r1 r1", {}),
        ("r1 r1 r2", {"constraints": [{"domain": "rack", "maxSkew": 1, "minDomains": 2}]}),
        ("- - r2", {"mode": "RackAware"}),
        ("- -", {"mode": "RackAware"}),
    ],
    ids=["kept", "not asked", "within", "two not known", "none known"],
)
def test_a_move_within_what_was_asked_is_none_of_its_business(racks: str, spec: Any) -> None:
    assert health(racks, **spec).reason == Reason.ALL_VMS_HEALTHY
