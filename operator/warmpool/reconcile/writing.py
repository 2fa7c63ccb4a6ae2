"""What we write, as JSON: bodies, patches and statuses. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from warmpool.api.names import (
    LABEL_CLAIM,
    LABEL_CLAIM_UID,
    LABEL_HELD,
    LABEL_HYPERVISOR,
    LABEL_RACK,
    LABEL_ZONE,
    ClaimCondition,
    ClaimPhase,
    Reason,
)
from warmpool.api.v1alpha1.base import Condition, Model
from warmpool.api.v1alpha1.claim import AllocatedVM, Allocation, Shortfall, VMClaimStatus
from warmpool.api.v1alpha1.ledger import LedgerEntry
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.cloud import Place
from warmpool.domain.facts import Claim, Vm
from warmpool.domain.ids import VmUid
from warmpool.planning.condition import MAX_MESSAGE, condition
from warmpool.ports.cluster import Body, PatchOp

MAX_LABEL: Final = 63
"""Characters of a label value."""


def dump(model: Model) -> dict[str, Any]:
    """A model as it stands in the API: camelCase, nothing unset."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def label_value(text: str) -> str:
    """A name as a label value: other characters become dashes, and it is cut to its length."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in text)
    return safe[:MAX_LABEL].strip("-_.")


def pointer(*parts: str) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + p.replace("~", "~0").replace("/", "~1") for p in parts)


def same_uid(uid: str) -> PatchOp:
    """The operation that lets a patch fail on another object of the same name."""
    return {"op": "test", "path": "/metadata/uid", "value": uid}


def same_version(version: int) -> PatchOp:
    """The operation that lets a patch fail on an object that has changed since it was read.

    A patch that was decided on an older state, and arrives late, must not undo a newer one.
    """
    return {"op": "test", "path": "/metadata/resourceVersion", "value": str(version)}


def set_labels(labels: Mapping[str, str]) -> list[PatchOp]:
    """Operations that set labels on an object that has some already."""
    return [
        {"op": "add", "path": pointer("metadata", "labels", key), "value": label_value(value)}
        for key, value in labels.items()
    ]


def place_labels(place: Place) -> dict[str, str]:
    """Labels that answer `kubectl get wvm -l`: where."""
    named = {LABEL_ZONE: place.zone, LABEL_RACK: place.rack, LABEL_HYPERVISOR: place.hypervisor}
    return {key: value for key, value in named.items() if value}


def put_status(
    uid: str, status: Model, *, phase: str | None = None, version: int | None = None
) -> list[PatchOp]:
    """The patch of the status subresource that replaces the whole status.

    With `phase`, only if that is the phase it has; with `version`, only if nothing has changed.
    """
    test: list[PatchOp] = [{"op": "test", "path": "/status/phase", "value": phase}]
    return [
        same_uid(uid),
        *(test if phase is not None else []),
        *([same_version(version)] if version is not None else []),
        {"op": "add", "path": "/status", "value": dump(status)},
    ]


def add_condition(body: Body, new: Condition) -> list[PatchOp]:
    """The patch of a status that has one condition more, or another of that type."""
    there = body.get("status", {}).get("conditions", [])
    others = [c for c in there if c["type"] != new.type]
    return [
        same_uid(body["metadata"]["uid"]),
        same_version(int(body["metadata"]["resourceVersion"])),
        {"op": "add", "path": "/status/conditions", "value": [*others, dump(new)]},
    ]


HELD: Final = {LABEL_HELD: "true"}
"""The label of what is kept since Nova knows more of it."""


def claim_labels(claim: ClaimRef | None) -> dict[str, str]:
    """Labels that answer `kubectl get wvm -l`: whose."""
    return {LABEL_CLAIM: claim.name, LABEL_CLAIM_UID: claim.uid} if claim is not None else {}


def bind_vm(vm: Vm, claim: ClaimRef) -> list[PatchOp]:
    """The patch that settles a binding on its VM, unless its spec has changed since.

    One that arrives when the claim is long over must not take the VM from another.
    """
    return [
        same_uid(vm.uid),
        {"op": "test", "path": "/metadata/generation", "value": vm.generation},
        {"op": "add", "path": "/spec/claimRef", "value": dump(claim)},
        *set_labels(claim_labels(claim)),
    ]


def keep_vm(vm: Vm, claim: ClaimRef, provider: str) -> list[PatchOp]:
    """The patch that keeps a VM for a claim that has it by Nova's word.

    The API server lets no VM go from one claim to another: one that has a claim keeps its name.
    """
    whose: list[PatchOp] = [
        {"op": "add", "path": "/spec/claimRef", "value": dump(claim)},
        *set_labels(claim_labels(claim)),
    ]
    return [
        same_uid(vm.uid),
        same_version(vm.version),
        {"op": "add", "path": "/spec/retained", "value": True},
        *set_labels(HELD),
        *(
            []
            if vm.place.region
            else [{"op": "add", "path": "/spec/providerID", "value": provider}]
        ),
        *(whose if vm.claim is None else []),
    ]


def retain_vm(vm: Vm) -> list[PatchOp]:
    """The patch that takes a VM out of its pool's account and keeps it."""
    return [
        same_uid(vm.uid),
        same_version(vm.version),
        {"op": "add", "path": "/spec/retained", "value": True},
    ]


def preserve_vm(vm: Vm, until: datetime) -> list[PatchOp]:
    """The patch that takes a VM that has failed out of its pool's account for a while."""
    value = until.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return [*retain_vm(vm), {"op": "add", "path": "/spec/keepUntil", "value": value}]


def recycle_vm(vm: Vm) -> list[PatchOp]:
    """The patch that ends a claim's hold on a VM and has it built anew before it is ready.

    Whose it was stays on it until then, since so does the mark on its server.
    """
    return [
        same_uid(vm.uid),
        same_version(vm.version),
        {"op": "remove", "path": "/spec/claimRef"},
        {"op": "add", "path": "/spec/dirty", "value": True},
        {"op": "remove", "path": pointer("metadata", "labels", LABEL_CLAIM)},
    ]


def forget_user(vm: Vm) -> list[PatchOp]:
    """Operations that take off a VM whose it was, and that it was kept for somebody."""
    known = {LABEL_CLAIM_UID: vm.last_claim is not None, LABEL_HELD: vm.held}
    return [
        {"op": "remove", "path": pointer("metadata", "labels", label)}
        for label, there in known.items()
        if there
    ]


def bound_status(
    claim: Claim, entry: LedgerEntry, vms: Mapping[VmUid, Vm], kept_for: timedelta | None
) -> VMClaimStatus:
    """The status of a claim whose binding is committed, and is to end after `kept_for`.

    A claim that is bound already keeps what it has: the entry's VMs are substitutes.
    """
    before = claim.status.allocation
    had = {vm.uid: vm for vm in before.vms} if before is not None else {}
    new = {v.uid: _allocated(v.namespace, v.name, v.uid, v.request, vms) for v in entry.vms}
    allocated = sorted((new | had).values(), key=lambda vm: (vm.request, vm.name))
    bound_at = before.bound_at if before is not None else entry.bound_at
    placed = _placed(vm for vm in allocated if not vm.lost)
    condition_ = condition(
        ClaimCondition.BOUND,
        holds=True,
        reason=Reason.BOUND,
        message=placed,
        now=bound_at,
        generation=claim.generation,
        before=claim.status.conditions,
    )
    # A substitute's server has no metadata yet: the claim's is to be written again.
    renewed = (ClaimCondition.BOUND, ClaimCondition.METADATA_WRITTEN)
    others = [c for c in claim.status.conditions if c.type not in renewed]
    return VMClaimStatus(
        observed_generation=claim.generation,
        phase=ClaimPhase.BOUND,
        allocation=Allocation(
            bound_at=bound_at,
            vms=allocated,
            expires_at=bound_at + kept_for if kept_for is not None else None,
        ),
        placed=placed,
        conditions=[condition_, *(others if before is not None else [_healthy(claim, entry)])],
    )


def _healthy(claim: Claim, entry: LedgerEntry) -> Condition:
    """Only ready VMs are bound, so a new binding begins in good health."""
    return condition(
        ClaimCondition.HEALTHY,
        holds=True,
        reason=Reason.ALL_VMS_HEALTHY,
        message=f"{_count(len(entry.vms), 'VM')} in good health",
        now=entry.bound_at,
        generation=claim.generation,
    )


def waiting_status(claim: Claim, reason: Reason, message: str, now: datetime) -> VMClaimStatus:
    """The status of a claim that waits."""
    refused = refused_status(claim, reason, message, now)
    return refused.model_copy(update={"phase": ClaimPhase.PENDING})


def refused_status(claim: Claim, reason: Reason, message: str, now: datetime) -> VMClaimStatus:
    """The status of a claim that cannot be satisfied."""
    return VMClaimStatus(
        observed_generation=claim.generation,
        phase=ClaimPhase.FAILED,
        shortfall=Shortfall(reason=reason.value, message=message[:MAX_MESSAGE]),
        conditions=[
            condition(
                ClaimCondition.BOUND,
                holds=False,
                reason=reason,
                message=message,
                now=now,
                generation=claim.generation,
                before=claim.status.conditions,
            )
        ],
    )


def _allocated(
    namespace: str, name: str, uid: str, request: str, vms: Mapping[VmUid, Vm]
) -> AllocatedVM:
    vm = vms.get(VmUid(uid))
    if vm is None:  # deleted by force in these milliseconds: the claim still learns its name
        return AllocatedVM(name=name, namespace=namespace, uid=uid, request=request, server_id="")
    return AllocatedVM(
        name=name,
        namespace=namespace,
        uid=uid,
        request=request,
        server_id=vm.server or "",
        hostname=vm.hostname,
        addresses=list(vm.addresses),
        zone=vm.place.zone,
        rack=vm.place.rack,
        hypervisor=vm.place.hypervisor,
    )


def _placed(vms: Iterable[AllocatedVM]) -> str:
    """`6 VMs, 3 racks, 6 hypervisors`: one glance at an allocation."""
    listed = list(vms)
    racks = len({vm.rack for vm in listed if vm.rack})
    hypervisors = len({vm.hypervisor for vm in listed if vm.hypervisor})
    parts = [_count(len(listed), "VM"), _count(racks, "rack"), _count(hypervisors, "hypervisor")]
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
