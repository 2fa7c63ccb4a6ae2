"""What one decision about a pool rests on: a frozen snapshot."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from warmpool.api.names import Phase, Reason
from warmpool.domain.actions import Action
from warmpool.domain.cloud import Place, Server
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import VmUid


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is built until then, and why."""

    until: datetime
    reason: Reason
    message: str
    count: int = 1
    """How often in a row."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that the pool depends on and has not. `field` is its path in the spec."""

    reason: Reason
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """How the checks of a ready VM went so far."""

    at: datetime
    """When it was checked last; if it never was, from when on it is to be checked."""
    failures: int = 0
    """Checks that it has failed in a row, as far as this leader knows."""
    ever: bool = True
    """It was checked at all."""


@dataclass(frozen=True, slots=True)
class VmView:
    """One VM with all that is known of it."""

    vm: Vm
    server: Server | None
    """As the last listing shows it."""
    server_missing: bool
    """It has a server by its own word, and a complete listing taken since lacks it."""
    taken: bool
    """It is somebody's: by its claimRef, or by a binding that is committed."""
    settling: bool
    """A binding is committed and not yet written on it: hands off."""
    claim_gone: bool
    """The claim that its claimRef names is not there, as far as we know."""
    busy: bool
    """An action of ours is under way on it."""
    leaving: bool = False
    """We give it up: it counts no more, although no watch shows it deleted yet."""
    place: Place | None = None
    """Where its server stands now, if that is known."""
    recycling: bool = False
    """This leader has ended its claim's hold on it, so it knows of every rebuild that was asked."""
    rebuilt_at: datetime | None = None
    """When this leader had its server built anew; None: not in this term."""
    seen_since_rebuild: bool = False
    """A listing that began after that has shown its server."""
    not_before: datetime | None = None
    """An action on it failed: leave it alone until then."""
    host_down: bool = False
    """Nova holds the host of its server for dead."""
    checked: Checked | None = None
    """How its checks went. None: it is none of those that are checked."""


Mark = tuple[str, ...]
"""Something that a VM counts as: `("unclaimed",)`, `("zone", "az1")`, `("rack", "r1", "ready")`."""

UNDER_WAY = (Phase.PENDING, Phase.BUILDING)


def is_sick(vm: Vm) -> bool:
    """It was ready, and fails its checks now. A build that has failed never was."""
    return vm.phase is Phase.FAILED and vm.ready_at is not None


def counts_for_size(view: VmView) -> bool:
    """Unclaimed, and ready or on its way to be: what `replicas` speaks of.

    A sick one counts until it is given up, since most come back: else each short trouble would
    have a VM built that nobody needs afterwards.
    """
    vm = view.vm
    if vm.deleting or view.leaving or view.taken:
        return False
    return vm.phase in (*UNDER_WAY, Phase.READY) or is_sick(vm)


def marks(view: VmView, zones: Sequence[str]) -> Iterator[Mark]:
    """All that one VM counts as. `zones` are those that the pool builds in."""
    vm = view.vm
    yield ("vm",)
    yield ("retained",) if vm.retained else ("server",)
    if vm.deleting:
        yield ("deleting",)
    if vm.phase is Phase.FAILED:
        yield ("failed",)
    if view.taken and not vm.retained:
        yield ("claimed",)
        yield ("rack", vm.place.rack, "claimed")
    if counts_for_size(view):
        yield ("unclaimed",)
        yield ("revision", vm.revision)
        yield ("zone", vm.zone if vm.zone in zones else vm.place.zone)
        if vm.phase is Phase.READY:
            yield ("ready",)
            yield ("rack", vm.place.rack, "ready")
        elif is_sick(vm):
            yield ("unhealthy",)
        else:
            yield ("under way",)
            if vm.place.rack:
                yield ("rack", vm.place.rack, "building")


@dataclass(frozen=True)
class PoolFacts:
    """One pool at one moment."""

    pool: Pool
    now: datetime
    vms: tuple[VmView, ...]
    """Its VMs, but for those at rest."""
    rest: Mapping[Mark, int] = field(default_factory=dict)
    """What the VMs at rest count as, all together: those of which nothing is to be decided. A pool
    of thousands is looked at many times a second, and nearly all of it is at rest."""
    creating: Mapping[str, int] = field(default_factory=dict)
    """WarmVMs whose creation is under way and that are not in `vms` yet, per zone."""
    cloud_ready: bool = True
    """The cloud was listed completely since we lead, and the template is resolved."""
    problem: Problem | None = None
    """What is missing, if anything is."""
    holds: Mapping[str, Hold] = field(default_factory=dict)
    """Zones in which nothing is built for now; the empty zone holds the whole pool."""
    tokens: int | None = None
    """Builds that the pace allows now. None: no pace."""
    next_token: datetime | None = None
    wanted: int = 0
    """Unclaimed VMs that waiting claims have the pool build; what exceeds `replicas` is a surge."""

    @cached_property
    def tally(self) -> Counter[Mark]:
        """What the VMs of the pool count as, those being created included."""
        counted = Counter(self.rest)
        for view in self.vms:
            counted.update(marks(view, self.zones))
        for zone, number in self.creating.items():
            counted.update({("zone", zone): number})
            for mark in ("server", "unclaimed", "under way"):
                counted.update({(mark,): number})
            counted.update({("revision", self.pool.revision): number})
        return counted

    @property
    def zones(self) -> Sequence[str]:
        """Zones that the pool builds in; the empty one stands for Nova's choice."""
        return self.pool.spec.availability_zones or [""]

    @property
    def target(self) -> int:
        """Unclaimed VMs that the pool shall have now."""
        return max(self.pool.spec.replicas, self.wanted)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again if nothing happens before."""

    actions: tuple[Action, ...]
    wake_at: datetime | None = None
    restless: frozenset[VmUid] = frozenset()
    """VMs of which something is decided, or will be at a known time."""
    alarms: Mapping[VmUid, datetime] = field(default_factory=dict)
    """When VMs that are at rest are to be looked at again."""
