"""WarmVM: one VM, its server, its place, its state, whose it is."""

from typing import ClassVar

from pydantic import Field

from warmpool.api.names import Kind, Phase
from warmpool.api.v1alpha1.base import Condition, Metadata, Model, Time
from warmpool.api.v1alpha1.pool import PoolName, ReclaimPolicy


class OwnerPool(Model):
    """The pool that a VM belongs to."""

    name: PoolName
    """Name of the WarmPool, in the same namespace."""
    uid: str = Field(max_length=63)
    """UID of the WarmPool."""


class ClaimRef(Model):
    """Whose the VM is."""

    namespace: str = Field(max_length=63)
    """Namespace of the VMClaim."""
    name: str = Field(max_length=253)
    """Name of the VMClaim."""
    uid: str = Field(max_length=63)
    """UID of the VMClaim."""
    request: str = Field(max_length=63)
    """Which of the claim's requests the VM serves."""


class WarmVMSpec(Model):
    """The facts about a VM that cannot be found again."""

    pool_ref: OwnerPool
    """The pool it belongs to."""
    revision: str = Field(default="", max_length=63)
    """Revision of the pool's template that it was built from."""
    zone: str = Field(default="", max_length=255)
    """Availability zone asked of Nova. Empty: Nova chose."""
    hypervisor: str = Field(default="", max_length=255)
    """Hypervisor asked of Nova. Empty: Nova chose. Where it stands now, the status says."""
    claim_ref: ClaimRef | None = None
    """Whose it is. Its presence alone means bound."""
    provider_id: str | None = Field(default=None, max_length=255, alias="providerID")
    """`openstack:///<region>/<server id>`, once there is a server."""
    reclaim_policy: ReclaimPolicy = ReclaimPolicy.DELETE
    """What becomes of it when its claim ends: the pool's policy when it was created. May be
    changed for this VM alone."""
    retained: bool = False
    """It is kept, outside the pool's account, since its claim has ended or it has failed. Delete it
    to be rid of it."""
    keep_until: Time | None = None
    """When a VM is deleted that has failed and is kept for looking at."""
    dirty: bool = False
    """A claim has used it: it is built anew before it is ready again."""


MAX_CONSOLE = 4000
"""Characters of a console that a WarmVM holds."""


class Fault(Model):
    """Why a build failed, or why a VM that was ready does not work."""

    reason: str = Field(max_length=63)
    """Why, as one word."""
    message: str = Field(max_length=1024)
    """Why, in Nova's words."""
    time: Time
    """When it was seen."""
    console: str = Field(default="", max_length=MAX_CONSOLE)
    """The last lines of the VM's console, where a build failed that had one."""


class WarmVMStatus(Model):
    """The state of the machine."""

    observed_generation: int = Field(default=0, ge=0)
    """The `metadata.generation` that this status was computed from."""
    phase: Phase = Phase.PENDING
    """Pending, Building, Ready, Failed or Terminating: the machine's state, not whose it is."""
    server_id: str = Field(default="", max_length=63, alias="serverID")
    """Nova's id of the server."""
    hostname: str = Field(default="", max_length=255)
    """Host name inside the VM, as Nova gave it."""
    addresses: list[str] = Field(default_factory=list, max_length=32)
    """IP addresses, the probed one first."""
    zone: str = Field(default="", max_length=255)
    """Availability zone it stands in."""
    rack: str = Field(default="", max_length=255)
    """Rack. Empty: not known."""
    hypervisor: str = Field(default="", max_length=255)
    """Hypervisor, or its stand-in per project where the credentials cannot see hosts."""
    created_at: Time | None = None
    """When Nova accepted the build."""
    ready_at: Time | None = None
    """When it became ready. Kept while it fails its checks."""
    fault: Fault | None = None
    """Why it failed."""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """Ready."""


class WarmVM(Model):
    """One VM of a pool."""

    kind: ClassVar[Kind] = Kind.WARM_VM

    metadata: Metadata
    spec: WarmVMSpec
    """The facts that cannot be found again."""
    status: WarmVMStatus = Field(default_factory=WarmVMStatus)
    """The state of the machine. Written by the operator."""
