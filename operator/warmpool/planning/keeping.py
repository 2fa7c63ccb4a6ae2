"""What a bound claim should say: which of its VMs work, where they are, when it ends. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from warmpool.api.names import ClaimCondition, ClaimPhase, Phase, Reason
from warmpool.api.v1alpha1.base import Condition, ConditionStatus
from warmpool.api.v1alpha1.claim import AllocatedVM, Allocation, VMClaimStatus
from warmpool.domain.claims import Limit
from warmpool.domain.facts import Claim, Vm
from warmpool.domain.ids import VmUid
from warmpool.planning.claims import demand_of
from warmpool.planning.condition import condition

MAX_NAMED = 5
"""VMs that a message names; the rest it counts."""


def kept(
    claim: Claim, vms: Mapping[VmUid, Vm], kept_for: timedelta | None, now: datetime
) -> VMClaimStatus:
    """The status of a claim that is Bound.

    Args:
        claim: the claim; its allocation is set.
        vms: those of its VMs that are there and its own. What is not in it is lost.
        kept_for: its lifetime; None: until it is deleted.
        now: the time.
    """
    allocation = claim.status.allocation
    if allocation is None:
        return claim.status
    ends = allocation.bound_at + kept_for if kept_for is not None else None
    over = ends is not None and ends <= now
    if not over and _says_it_all(claim, allocation, vms, ends):
        return claim.status
    return worked_out(claim, allocation, vms, ends, now)


def worked_out(
    claim: Claim,
    allocation: Allocation,
    vms: Mapping[VmUid, Vm],
    ends: datetime | None,
    now: datetime,
) -> VMClaimStatus:
    """What `kept` answers, whatever stands there already."""
    entries = [_entry(entry, vms.get(VmUid(entry.uid))) for entry in allocation.vms]
    told = allocation.model_copy(update={"vms": entries, "expires_at": ends})
    status = claim.status.model_copy(update={"allocation": told})
    if ends is not None and ends <= now:
        return _ended(claim, status, now)
    return _with(status, _healthy(claim, entries, vms, now))


def _says_it_all(
    claim: Claim, allocation: Allocation, vms: Mapping[VmUid, Vm], ends: datetime | None
) -> bool:
    """Nothing is to be written: so it is nearly always, and far quicker seen than worked out.

    Where this does not hold there may be nothing to be written all the same.
    """
    healthy = next((c for c in claim.status.conditions if c.type == ClaimCondition.HEALTHY), None)
    return (
        healthy is not None
        and healthy.status is ConditionStatus.TRUE
        and healthy.observed_generation == claim.status.observed_generation == claim.generation
        and allocation.expires_at == ends
        and all(_is_as_written(entry, vms.get(VmUid(entry.uid))) for entry in allocation.vms)
    )


def _is_as_written(entry: AllocatedVM, vm: Vm | None) -> bool:
    """The VM is in good health, and where the entry says; or it is known to be lost."""
    if entry.lost:
        return True
    return (
        vm is not None
        and vm.phase is Phase.READY
        and not is_lost(vm)
        and vm.place.hypervisor == entry.hypervisor
        and vm.place.rack == entry.rack
        and vm.place.zone == entry.zone
        and vm.hostname == entry.hostname
        and list(vm.addresses) == entry.addresses
    )


def is_lost(vm: Vm | None) -> bool:
    """Whether a claimed VM is gone for good: it, or its server."""
    if vm is None or vm.deleting:
        return True
    return vm.fault is not None and vm.fault.reason == Reason.SERVER_LOST


def _entry(entry: AllocatedVM, vm: Vm | None) -> AllocatedVM:
    """The entry as things are: lost, or where the VM is now."""
    if entry.lost or vm is None or is_lost(vm):
        return entry.model_copy(update={"lost": True})
    return entry.model_copy(
        update={
            "zone": vm.place.zone,
            "rack": vm.place.rack,
            "hypervisor": vm.place.hypervisor,
            "hostname": vm.hostname,
            "addresses": list(vm.addresses),
        }
    )


def _healthy(
    claim: Claim, entries: list[AllocatedVM], vms: Mapping[VmUid, Vm], now: datetime
) -> Condition:
    asked = sum(request.count for request in claim.spec.requests)
    present = [entry for entry in entries if not entry.lost]
    troubles = [
        f"{vm.ref.name}: {vm.fault.message if vm.fault is not None else vm.phase.value}"
        for vm in (vms[VmUid(entry.uid)] for entry in present)
        if vm.phase is not Phase.READY
    ]
    lost = [f"{entry.name} is lost" for entry in entries if entry.lost]
    if len(present) < asked:
        text = _listing(f"{len(present)} of {asked} VMs are there", lost + troubles)
        return _condition(claim, False, Reason.VMS_LOST, text, now)
    if troubles:
        text = _listing(f"{len(troubles)} of {asked} VMs do not work", troubles)
        return _condition(claim, False, Reason.VMS_UNHEALTHY, text, now)
    broken = [text for text in (_broken(lim, present) for lim in demand_of(claim).limits) if text]
    if broken:
        text = _listing("VMs have moved out of what was asked", broken)
        return _condition(claim, False, Reason.CONSTRAINTS_UNSATISFIED, text, now)
    text = f"{asked} {'VM' if asked == 1 else 'VMs'} in good health"
    return _condition(claim, True, Reason.ALL_VMS_HEALTHY, text, now)


def _broken(limit: Limit, entries: list[AllocatedVM]) -> str:
    """What a limit says against where the VMs are now; empty: nothing.

    VMs whose domain is not known now are not held against it.
    """
    level = limit.domain.value
    domains: dict[str, list[str]] = {}
    for entry in entries:
        if entry.request in limit.asks and (name := getattr(entry, level)):
            domains.setdefault(name, []).append(entry.name)
    if not domains:
        return ""
    fullest = max(domains, key=lambda name: (len(domains[name]), name))
    most, least = len(domains[fullest]), min(map(len, domains.values()))
    there = f"{level} {fullest} has {most} of them ({', '.join(domains[fullest][:MAX_NAMED])})"
    if limit.max_per_domain is not None and most > limit.max_per_domain:
        return f"{there}, at most {limit.max_per_domain} may be there"
    if limit.min_domains is not None and len(domains) < limit.min_domains:
        return f"they use {len(domains)} {level}s, {limit.min_domains} are asked"
    if limit.max_skew is not None and most - least > limit.max_skew:
        return f"{there}, another {level} {least}: at most {limit.max_skew} apart is asked"
    return ""


def _listing(summary: str, items: list[str]) -> str:
    more = f"; and {len(items) - MAX_NAMED} more" if len(items) > MAX_NAMED else ""
    return f"{summary}: " + "; ".join(items[:MAX_NAMED]) + more


def _condition(claim: Claim, holds: bool, reason: Reason, message: str, now: datetime) -> Condition:
    return condition(
        ClaimCondition.HEALTHY,
        holds=holds,
        reason=reason,
        message=message,
        now=now,
        generation=claim.generation,
        before=claim.status.conditions,
    )


def _with(status: VMClaimStatus, condition: Condition) -> VMClaimStatus:
    others = [c for c in status.conditions if c.type != condition.type]
    conditions = sorted([*others, condition], key=lambda c: c.type)
    generation = condition.observed_generation
    return status.model_copy(update={"conditions": conditions, "observed_generation": generation})


def _ended(claim: Claim, status: VMClaimStatus, now: datetime) -> VMClaimStatus:
    text = "its lifetime is over: its VMs are released"
    ended = condition(
        ClaimCondition.BOUND,
        holds=False,
        reason=Reason.EXPIRED,
        message=text,
        now=now,
        generation=claim.generation,
        before=claim.status.conditions,
    )
    return _with(status, ended).model_copy(update={"phase": ClaimPhase.RELEASED})
