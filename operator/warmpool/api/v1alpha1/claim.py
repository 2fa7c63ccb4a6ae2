"""VMClaim: a request for VMs out of one or more pools, with placement."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from warmpool.api.names import ClaimPhase, Kind
from warmpool.api.v1alpha1.base import Condition, DomainName, Duration, Metadata, Model, Time
from warmpool.api.v1alpha1.pool import NamespaceName, PoolName

RequestName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63),
]


class Mode(StrEnum):
    """The short form of placement, over all VMs of the claim."""

    BEST_EFFORT = "BestEffort"
    RACK_AWARE = "RackAware"
    HYPERVISOR_AWARE = "HypervisorAware"


class OnUnsatisfied(StrEnum):
    """What becomes of a claim that cannot be satisfied now."""

    FAIL = "Fail"
    WAIT = "Wait"
    BUILD = "Build"


class PoolRef(Model):
    """A pool."""

    name: PoolName
    """Name of the WarmPool."""
    namespace: NamespaceName | None = None
    """Namespace of the WarmPool, which must allow the claim's. Unset: the claim's own."""


class Request(Model):
    """So many VMs out of one pool."""

    name: RequestName
    """Name of the request, unique in the claim; it stands beside each VM in the allocation."""
    pool: PoolRef
    """Where the VMs come from."""
    count: int = Field(ge=1, le=500)
    """How many VMs."""


class Constraint(Model):
    """A bound on how VMs of the claim lie over the domains of one level. All that is set holds."""

    domain: DomainName
    """The level: zone, rack or hypervisor."""
    requests: list[RequestName] = Field(default_factory=list, max_length=16)
    """Names of the requests whose VMs are counted together. Empty: all requests."""
    max_per_domain: int | None = Field(default=None, ge=1, le=500)
    """At most so many of these VMs in one domain."""
    min_domains: int | None = Field(default=None, ge=1, le=500)
    """These VMs use at least so many domains."""
    max_skew: int | None = Field(default=None, ge=0, le=500)
    """Among the domains that these VMs use, the fullest and the emptiest differ by at most so
    much."""


class VMClaimSpec(Model):
    """What is asked for. It cannot be changed later, but for `lifetime`."""

    requests: list[Request] = Field(min_length=1, max_length=16)
    """All of them are satisfied, or none."""
    mode: Mode = Mode.BEST_EFFORT
    """BestEffort: anywhere, different hypervisors preferred. RackAware: every VM of the claim on a
    rack of its own. HypervisorAware: every VM on a hypervisor of its own."""
    constraints: list[Constraint] = Field(default_factory=list, max_length=16)
    """The long form of placement. What it says and what `mode` says must all hold."""
    on_unsatisfied: OnUnsatisfied = OnUnsatisfied.FAIL
    """Fail: at once, with what is short. Wait: until it can be satisfied. Build: have the pools
    build what is missing, and wait for it."""
    timeout: Duration = "5m"
    """How long Wait and Build go on, from the creation of the claim."""
    lifetime: Duration | None = None
    """How long the VMs are kept, from the binding on. `0s`: until the claim is deleted. Unset: the
    pools' `claims.defaultLifetime`. Never longer than their `claims.maxLifetime`."""
    priority: int = Field(default=0, ge=-1000000, le=1000000)
    """Among waiting claims the higher is served first. From 1000 on the pools' `reserve` may be
    taken."""
    replace_lost: bool = False
    """Bind a substitute for a VM that is lost later, within the same placement."""
    metadata: dict[str, Annotated[str, StringConstraints(max_length=255)]] = Field(
        default_factory=dict, max_length=20
    )
    """Metadata written on the servers in Nova once they are bound."""


class AllocatedVM(Model):
    """One VM that the claim got: all that a client needs, without rights on WarmVMs."""

    name: str = Field(max_length=253)
    """Name of the WarmVM, and of the server in Nova."""
    namespace: str = Field(max_length=63)
    """Namespace of the WarmVM: the pool's."""
    uid: str = Field(max_length=63)
    """UID of the WarmVM."""
    request: str = Field(max_length=63)
    """Which request it serves."""
    server_id: str = Field(max_length=63, alias="serverID")
    """Nova's id of the server."""
    hostname: str = Field(default="", max_length=255)
    """Host name inside the VM, as Nova gave it."""
    addresses: list[str] = Field(default_factory=list, max_length=32)
    """IP addresses, the probed one first."""
    zone: str = Field(default="", max_length=255)
    """Availability zone."""
    rack: str = Field(default="", max_length=255)
    """Rack. Empty: not known."""
    hypervisor: str = Field(default="", max_length=255)
    """Hypervisor, or its stand-in per project where the credentials cannot see hosts."""
    lost: bool = False
    """The VM is gone. With `replaceLost` another entry stands in for it."""


class Allocation(Model):
    """What the claim got, whole and at once."""

    bound_at: Time
    """When it was decided."""
    vms: list[AllocatedVM] = Field(max_length=1000)
    """The VMs, by request and name. Set once; later only lost ones are marked and substitutes
    added."""
    expires_at: Time | None = None
    """When the VMs are released, if the claim is not deleted before."""


class Shortfall(Model):
    """What was missing."""

    reason: str = Field(max_length=63)
    """Why, as one word."""
    message: str = Field(max_length=1024)
    """Why, in numbers."""


class VMClaimStatus(Model):
    """What has become of the claim."""

    observed_generation: int = Field(default=0, ge=0)
    """The `metadata.generation` that this status was computed from."""
    phase: ClaimPhase = ClaimPhase.PENDING
    """Pending, Bound, Failed or Released. For printing: conditions are the contract."""
    allocation: Allocation | None = None
    """The VMs. Set once; later only lost ones are marked and substitutes added."""
    expires_at: Time | None = None
    """When the VMs are released, if the claim is not deleted before."""
    placed: str = Field(default="", max_length=63)
    """VMs, racks and hypervisors of the allocation, for `kubectl get`."""
    shortfall: Shortfall | None = None
    """Why the claim is not bound."""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """Bound, Healthy."""


class VMClaim(Model):
    """A request for VMs, all or nothing. Deleting it releases them."""

    kind: ClassVar[Kind] = Kind.VM_CLAIM

    metadata: Metadata
    spec: VMClaimSpec
    """What is asked for."""
    status: VMClaimStatus = Field(default_factory=VMClaimStatus)
    """What has become of it. Written by the operator."""
