"""What we know of the objects, slim: the store holds thousands of these.

They are frozen and share nothing with the watch's bodies, so a decision can keep them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from warmpool.api.names import ClaimPhase, Phase
from warmpool.api.v1alpha1.claim import VMClaimSpec, VMClaimStatus
from warmpool.api.v1alpha1.pool import ReclaimPolicy, WarmPoolSpec, WarmPoolStatus
from warmpool.api.v1alpha1.vm import ClaimRef, Fault
from warmpool.domain.cloud import Place
from warmpool.domain.ids import ClaimUid, PoolUid, Ref, ServerId, VmUid


@dataclass(frozen=True, slots=True)
class Vm:
    """A WarmVM."""

    uid: VmUid
    ref: Ref
    version: int
    generation: int
    pool: Ref
    revision: str
    """Of the template that it was built from."""
    zone: str
    """The zone asked of Nova; empty: Nova's choice."""
    aim: str
    """The hypervisor asked of Nova; empty: Nova's choice."""
    phase: Phase
    claim: ClaimRef | None
    reclaim: ReclaimPolicy
    retained: bool
    """Kept after its claim ended, or since it has failed, outside the pool's account."""
    dirty: bool
    """Used by a claim that has ended: built anew before it is ready again."""
    last_claim: ClaimUid | None
    """The claim that has it, or has used it and whose mark may still stand on its server."""
    deleting: bool
    finalized: bool
    """Our finalizer is on it: it stays until we take that off."""
    created: datetime
    server: ServerId | None
    """From spec.providerID, or else from the status."""
    place: Place
    hostname: str
    addresses: tuple[str, ...]
    created_at: datetime | None
    ready_at: datetime | None
    fault: Fault | None
    """Why it failed, where it did."""
    keep_until: datetime | None = None
    """One that has failed is kept until then."""
    preserve: timedelta | None = None
    """If it fails, it is to be kept for so long. None: as its pool has it."""
    held: bool = False
    """It was retained since Nova said that somebody else has it. Whoever takes `retained` off has
    decided that this is not so."""
    held_told: bool = False
    """Its status says why it is held."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A VMClaim."""

    uid: ClaimUid
    ref: Ref
    version: int
    generation: int
    created: datetime
    deleting: bool
    spec: VMClaimSpec
    status: VMClaimStatus

    @property
    def phase(self) -> ClaimPhase:
        return self.status.phase


@dataclass(frozen=True, slots=True)
class Pool:
    """A WarmPool."""

    uid: PoolUid
    ref: Ref
    version: int
    generation: int
    deleting: bool
    finalized: bool
    spec: WarmPoolSpec
    status: WarmPoolStatus
    revision: str
    """Of its template."""
    preserve: timedelta | None = None
    """VMs of it that fail are to be kept for so long."""
