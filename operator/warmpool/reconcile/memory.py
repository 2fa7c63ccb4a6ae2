"""What a pool's worker remembers between decisions. Lost with the leader, and found again."""

from dataclasses import dataclass, field
from datetime import datetime

from warmpool.domain.actions import CreateVm
from warmpool.domain.ids import Ref, VmUid
from warmpool.domain.pools import Mending
from warmpool.planning import pace


@dataclass(slots=True)
class Memory:
    """Of one pool."""

    busy: set[VmUid] = field(default_factory=set)
    creating: dict[Ref, CreateVm] = field(default_factory=dict)
    """WarmVMs whose creation is under way. The watch may show one before the answer to its creation
    comes, so they are known by name."""
    mending: Mending = field(default_factory=Mending)
    retries: dict[VmUid, tuple[datetime, int]] = field(default_factory=dict)
    recycling: set[VmUid] = field(default_factory=set)
    """VMs whose claims have ended in this term, and that are to be built anew. One whose rebuild
    may or may not have happened is in it no more."""
    rebuilt: dict[VmUid, tuple[datetime, float]] = field(default_factory=dict)
    bucket: pace.Bucket | None = None
    status_at: datetime | None = None
    pause_until: datetime | None = None
    """The API server failed us: a plan would have the same made or deleted again at once."""
