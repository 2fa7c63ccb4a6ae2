"""What a bound claim says of its VMs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from builders import NOW, a_claim, a_claim_ref, a_place, a_vm, after
from warmpool.api.names import ClaimPhase, Phase, Reason
from warmpool.api.v1alpha1.base import Condition
from warmpool.api.v1alpha1.claim import AllocatedVM, Allocation, VMClaimStatus
from warmpool.api.v1alpha1.vm import Fault
from warmpool.domain.facts import Claim, Vm
from warmpool.planning.keeping import is_lost, kept, worked_out


def bound(number: int = 2) -> Claim:
    """A claim that has so many VMs since NOW."""
    vms = [
        AllocatedVM(
            name=f"data-{n}",
            namespace="search",
            uid=f"vm-{n}",
            request="data",
            server_id=f"server-{n}",
        )
        for n in range(number)
    ]
    allocation = Allocation(bound_at=NOW, vms=vms)
    return a_claim(
        count=number, status=VMClaimStatus(phase=ClaimPhase.BOUND, allocation=allocation)
    )


def own(number: int = 2, **fields: object) -> dict[str, Vm]:
    vms = [a_vm(n, claim=a_claim_ref(), **fields) for n in range(number)]
    return {vm.uid: vm for vm in vms}


def a_fault(reason: Reason) -> Fault:
    return Fault(reason=reason, message="Nova says SHUTOFF", time=NOW)


def now(
    claim: Claim, vms: dict[str, Vm], keep: timedelta | None = None, at: float = 60
) -> VMClaimStatus:
    return kept(claim, vms, keep, after(at))  # type: ignore[arg-type]


def healthy(status: VMClaimStatus) -> Condition:
    return next(c for c in status.conditions if c.type == "Healthy")


def lost(status: VMClaimStatus) -> list[str]:
    assert status.allocation is not None
    return [vm.name for vm in status.allocation.vms if vm.lost]


def test_a_claim_whose_vms_all_work_is_healthy() -> None:
    found = healthy(now(bound(), own()))
    assert (found.status.value, found.reason) == ("True", "AllVMsHealthy")
    assert found.message == "2 VMs in good health"


def test_one_vm_is_one_vm() -> None:
    assert healthy(now(bound(1), own(1))).message == "1 VM in good health"


def test_a_vm_that_was_lost_and_has_a_substitute_is_no_news() -> None:
    known = bound(2).status
    assert known.allocation is not None
    first, second = known.allocation.vms
    vms = [first.model_copy(update={"lost": True}), second]
    allocation = known.allocation.model_copy(update={"vms": vms})
    claim = a_claim(count=1, status=known.model_copy(update={"allocation": allocation}))
    there = {"vm-1": own()["vm-1"]}
    said = now(claim, there)
    assert healthy(said).status.value == "True"
    assert now(replace(claim, status=said), there) is said


def test_a_vm_that_is_not_there_any_more_is_lost() -> None:
    status = now(bound(), own(1))
    assert lost(status) == ["data-1"]
    assert healthy(status).reason == Reason.VMS_LOST
    assert healthy(status).message == "1 of 2 VMs are there: data-1 is lost"


def test_what_is_lost_stays_lost_though_something_of_its_name_comes_back() -> None:
    claim = bound()
    before = now(claim, own(1))
    again = a_claim(count=2, status=before)
    assert lost(now(again, own(2))) == ["data-1"]


def test_a_vm_without_its_server_or_on_its_way_out_is_lost() -> None:
    assert is_lost(None)
    assert is_lost(a_vm(deleting=True))
    assert is_lost(a_vm(1, Phase.FAILED, fault=a_fault(Reason.SERVER_LOST)))
    assert not is_lost(a_vm(1, Phase.FAILED, fault=a_fault(Reason.SERVER_STOPPED)))


def test_a_vm_that_does_not_work_is_told_of_and_kept() -> None:
    vms = own(1) | {"vm-1": a_vm(1, Phase.FAILED, fault=a_fault(Reason.SERVER_STOPPED))}
    status = now(bound(), vms)
    assert lost(status) == []
    assert healthy(status).reason == Reason.VMS_UNHEALTHY
    assert healthy(status).message == "1 of 2 VMs do not work: data-1: Nova says SHUTOFF"


def test_a_vm_that_is_not_ready_and_names_no_fault_is_told_by_its_phase() -> None:
    vms = own(1) | {"vm-1": a_vm(1, Phase.BUILDING)}
    assert healthy(now(bound(), vms)).message.endswith("data-1: Building")


def test_a_message_names_five_vms_and_counts_the_rest() -> None:
    message = healthy(now(bound(8), {})).message
    assert message.startswith("0 of 8 VMs are there: data-0 is lost; ")
    assert message.endswith("data-4 is lost; and 3 more")


def test_an_allocation_follows_its_vms_where_they_go() -> None:
    status = now(bound(1), own(1, place=a_place(7), hostname="new", addresses=("10.9.9.9",)))
    assert status.allocation is not None
    (entry,) = status.allocation.vms
    assert (entry.rack, entry.hypervisor, entry.zone) == ("r7", "h7", "az1")
    assert (entry.hostname, entry.addresses) == ("new", ["10.9.9.9"])


def test_a_claim_with_a_lifetime_says_when_it_ends() -> None:
    status = now(bound(), own(), timedelta(hours=1))
    assert status.allocation is not None
    assert status.allocation.expires_at == after(3600)
    assert status.phase is ClaimPhase.BOUND


def test_a_claim_whose_lifetime_is_over_is_released() -> None:
    status = now(bound(), own(), timedelta(seconds=60), at=60)
    assert status.phase is ClaimPhase.RELEASED
    ended = next(c for c in status.conditions if c.type == "Bound")
    assert (ended.status.value, ended.reason) == ("False", "Expired")


def test_health_that_stays_as_it_is_keeps_its_time() -> None:
    claim = bound()
    first = now(claim, own())
    again = a_claim(count=2, status=first)
    assert now(again, own(), at=120) == first
    assert healthy(now(again, own(1), at=120)).last_transition_time == after(120)


def test_a_claim_without_an_allocation_is_left_as_it_is() -> None:
    assert now(a_claim(), {}) == VMClaimStatus()


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "place": st.sampled_from([a_place(0), a_place(1), a_place(2)]),
        "hostname": st.sampled_from(["", "es-0"]),
        "addresses": st.sampled_from([(), ("10.0.0.1",), ("10.0.0.1", "10.0.0.2")]),
        "phase": st.sampled_from([Phase.READY, Phase.FAILED]),
        "fault": st.sampled_from([None, a_fault(Reason.SERVER_LOST)]),
        "deleting": st.booleans(),
    },
)
"""What may be the matter with a VM."""

SEEN = st.lists(st.none() | FIELDS, min_size=2, max_size=2)
"""Two VMs; None: it is not there."""

KEPT_FOR = st.sampled_from([None, timedelta(hours=1)])


def seen(fields: list[dict[str, Any] | None]) -> dict[str, Vm]:
    vms = [a_vm(n, claim=a_claim_ref(), **f) for n, f in enumerate(fields) if f is not None]
    return {vm.uid: vm for vm in vms}


@given(SEEN, SEEN, KEPT_FOR, KEPT_FOR)
def test_the_quick_answer_is_the_one_that_is_worked_out(
    before: list[dict[str, Any] | None],
    after_it: list[dict[str, Any] | None],
    kept_before: timedelta | None,
    kept_now: timedelta | None,
) -> None:
    claim = a_claim(count=2, status=now(bound(), seen(before), kept_before))
    allocation = claim.status.allocation
    assert allocation is not None
    ends = NOW + kept_now if kept_now is not None else None
    long_way = worked_out(claim, allocation, seen(after_it), ends, after(120))  # type: ignore[arg-type]
    assert now(claim, seen(after_it), kept_now, at=120) == long_way
