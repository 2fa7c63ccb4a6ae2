"""Facts for tests: each builder makes one whose every field is plausible, and takes overrides.

What a test does not name does not matter to it. Names and uids count up from 1 where several are
made at once, so that a failure is read easily.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from warmpool.api.names import API_VERSION, VM_FINALIZER, Kind, Phase
from warmpool.api.v1alpha1.claim import VMClaimSpec, VMClaimStatus
from warmpool.api.v1alpha1.pool import ReclaimPolicy, WarmPoolSpec, WarmPoolStatus
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.cloud import Place, Server, ServerState
from warmpool.domain.facts import Claim, Pool, Vm
from warmpool.domain.ids import ClaimUid, PoolUid, Ref, ServerId, VmUid
from warmpool.domain.pools import PoolFacts, Site, Survey, VmView

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""The moment at which tests happen."""

POOL = Ref("search", "data")

REVISION = "of-now"
"""Of a pool's template, and of its VMs."""


def after(seconds: float) -> datetime:
    """A moment so long after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def a_place(number: int = 1, *, rack: str | None = None, zone: str = "az1") -> Place:
    """A hypervisor of its own for each number, in rack `r<number>` unless told otherwise."""
    return Place("RegionOne", zone, f"r{number}" if rack is None else rack, f"h{number}")


def a_site(
    number: int = 1, room: int | None = 10, *, rack: str | None = None, zone: str = "az1"
) -> Site:
    """The hypervisor of `a_place(number)`, with room for ten."""
    return Site(a_place(number, rack=rack, zone=zone), room)


def a_survey(*sites: Site, **fields: Any) -> Survey:
    """A cloud that was looked at, and shows these hypervisors."""
    return Survey(**({"sites": sites} | fields))


def a_pool_spec(**fields: Any) -> WarmPoolSpec:
    """Three VMs, no pace, no probe."""
    spec = {
        "replicas": 3,
        "cloud_ref": {"secretName": "lab-cloud", "cloud": "lab"},
        "template": {"flavor": "m1.micro", "image": "debian-13"},
    }
    return WarmPoolSpec.model_validate(spec | fields)


def a_pool(ref: Ref = POOL, **fields: Any) -> Pool:
    """A pool; fields of its facts, or else of its spec."""
    own = {k: fields.pop(k) for k in ("deleting", "finalized", "generation") if k in fields}
    facts: dict[str, Any] = {
        "uid": PoolUid(f"uid-of-{ref.name}"),
        "ref": ref,
        "version": 1,
        "generation": 1,
        "deleting": False,
        "finalized": True,
        "status": fields.pop("status", WarmPoolStatus()),
        "revision": fields.pop("revision", REVISION),
        "spec": a_pool_spec(**fields),
    }
    return Pool(**(facts | own))


def a_claim_ref(name: str = "logs") -> ClaimRef:
    return ClaimRef(namespace="search", name=name, uid=f"uid-of-{name}", request="data")


def a_vm(number: int = 1, phase: Phase = Phase.READY, **fields: Any) -> Vm:
    """A VM of `POOL`, ready at a place of its own."""
    ready = phase is Phase.READY
    facts: dict[str, Any] = {
        "uid": VmUid(f"vm-{number}"),
        "ref": Ref("search", f"data-{number}"),
        "version": number,
        "generation": 1,
        "pool": POOL,
        "revision": REVISION,
        "zone": "",
        "aim": "",
        "phase": phase,
        "claim": None,
        "reclaim": ReclaimPolicy.DELETE,
        "retained": False,
        "dirty": False,
        "last_claim": None,
        "deleting": False,
        "finalized": True,
        "created": NOW,
        "server": ServerId(f"server-{number}") if ready else None,
        "place": a_place(number) if ready else Place(),
        "hostname": f"data-{number}" if ready else "",
        "addresses": ("10.0.0.1",) if ready else (),
        "created_at": NOW if ready else None,
        "ready_at": NOW if ready else None,
        "fault": None,
    }
    return Vm(**(facts | fields))


def a_server(number: int = 1, state: ServerState = ServerState.ACTIVE, **fields: Any) -> Server:
    """The server of `a_vm(number)`, placed where that says."""
    facts: dict[str, Any] = {
        "id": ServerId(f"server-{number}"),
        "name": f"data-{number}",
        "state": state,
        "busy": False,
        "owner": VmUid(f"vm-{number}"),
        "zone": "az1",
        "host_id": f"hash-of-h{number}",
        "host": f"h{number}",
        "hypervisor": f"h{number}",
        "addresses": ("10.0.0.1",),
        "status": state.name,
        "created": NOW,
    }
    return Server(**(facts | fields))


def a_view(vm: Vm, server: Server | None = None, *, marked: bool = True, **fields: Any) -> VmView:
    """A VM with nothing of note about it; taken if its claimRef says so.

    With `marked`, its server says whose it is, too, if it says nothing else.
    """
    if marked and server is not None and vm.claim is not None and server.marks.claim is None:
        server = replace(server, marks=replace(server.marks, claim=vm.claim))
    facts: dict[str, Any] = {
        "vm": vm,
        "server": server,
        "server_missing": False,
        "taken": vm.claim is not None,
        "settling": False,
        "claim_gone": False,
        "busy": False,
        "posted_at": server.created if server is not None else None,
        "recycling": vm.dirty,
    }
    return VmView(**(facts | fields))


def ready(number: int = 1, **fields: Any) -> VmView:
    """A ready VM with its server; fields of the view."""
    return a_view(a_vm(number), a_server(number), **fields)


def building(number: int = 1, **fields: Any) -> VmView:
    """A VM whose server is being built; fields of the view."""
    server = a_server(number, ServerState.BUILDING, host_id="", host=None, addresses=())
    return a_view(a_vm(number, Phase.BUILDING), server, **fields)


def claimed(number: int = 1, **fields: Any) -> VmView:
    """A VM that belongs to the claim `logs`; fields of the view."""
    return a_view(a_vm(number, claim=a_claim_ref()), a_server(number), **fields)


def some_facts(*vms: VmView, pool: Pool | None = None, **fields: Any) -> PoolFacts:
    """What a pool decides on; fields of the facts, or else of the pool and its spec."""
    known = PoolFacts.__dataclass_fields__.keys()
    own = {k: fields.pop(k) for k in list(fields) if k in known}
    return PoolFacts(**({"pool": pool or a_pool(**fields), "now": NOW, "vms": vms} | own))


def a_claim(name: str = "logs", count: int = 1, **fields: Any) -> Claim:
    """A claim for VMs of `POOL`; fields of its facts, or else of its spec."""
    own = {k: fields.pop(k) for k in Claim.__dataclass_fields__ if k in fields}
    spec = {"requests": [{"name": "data", "pool": {"name": POOL.name}, "count": count}]}
    facts: dict[str, Any] = {
        "uid": ClaimUid(f"uid-of-{name}"),
        "ref": Ref("search", name),
        "version": 1,
        "generation": 1,
        "created": NOW,
        "deleting": False,
        "spec": VMClaimSpec.model_validate(spec | fields),
        "status": VMClaimStatus(),
    }
    return Claim(**(facts | own))


# --- objects of the API server, as JSON -----------------------------------------------------


def _meta(ref: Ref, uid: str, version: int, **fields: Any) -> dict[str, Any]:
    meta = {
        "namespace": ref.namespace,
        "name": ref.name,
        "uid": uid,
        "resourceVersion": str(version),
        "generation": 1,
        "creationTimestamp": NOW.isoformat(),
    }
    return meta | fields


def a_vm_body(  # noqa: PLR0913 - each is what some test is about
    number: int = 1,
    *,
    version: int = 1,
    uid: str | None = None,
    phase: str = "Ready",
    place: Place | None = None,
    claim: str | None = None,
    meta: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A WarmVM of `POOL`."""
    where = a_place(number) if place is None else place
    ref = Ref(POOL.namespace, f"data-{number}")
    extra = {"finalizers": [VM_FINALIZER], **(meta or {})}
    owner = {} if claim is None else {"claimRef": a_claim_ref(claim).model_dump()}
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.WARM_VM.value,
        "metadata": _meta(ref, uid or f"vm-{number}", version, **extra),
        "spec": {
            "poolRef": {"name": POOL.name, "uid": f"uid-of-{POOL.name}"},
            "providerID": f"openstack:///{where.region}/server-{number}",
            **owner,
            **spec,
        },
        "status": {
            "phase": phase,
            "serverID": f"server-{number}",
            "zone": where.zone,
            "rack": where.rack,
            "hypervisor": where.hypervisor,
            "readyAt": NOW.isoformat(),
        },
    }


def a_claim_body(
    name: str = "logs", *, version: int = 1, uid: str | None = None, **parts: Any
) -> dict[str, Any]:
    """A VMClaim for one VM of `POOL`; `parts` are its spec's fields, `status` and `meta`."""
    status, meta = parts.pop("status", {}), parts.pop("meta", {})
    requests = [{"name": "data", "pool": {"name": POOL.name}, "count": parts.pop("count", 1)}]
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.VM_CLAIM.value,
        "metadata": _meta(Ref("search", name), uid or f"uid-of-{name}", version, **meta),
        "spec": {"requests": requests} | parts,
        "status": status,
    }


def a_pool_body(ref: Ref = POOL, *, version: int = 1, **parts: Any) -> dict[str, Any]:
    """A WarmPool; `parts` are its spec's fields in camelCase, `status` and `meta`."""
    status, meta = parts.pop("status", {}), parts.pop("meta", {})
    uid = parts.pop("uid", f"uid-of-{ref.name}")
    spec = {
        "replicas": 3,
        "cloudRef": {"secretName": "lab-cloud", "cloud": "lab"},
        "template": {"flavor": "m1.micro", "image": "debian-13"},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.WARM_POOL.value,
        "metadata": _meta(ref, uid, version, **meta),
        "spec": spec | parts,
        "status": status,
    }
