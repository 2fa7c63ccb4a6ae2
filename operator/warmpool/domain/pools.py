"""What one decision about a pool rests on: a frozen snapshot."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final

from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.pool import Health, ResolvedTemplate, WarmPoolSpec
from warmpool.domain.actions import Action
from warmpool.domain.catalogue import NoEntry
from warmpool.domain.cloud import Place, Server, ServerState
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import VmUid
from warmpool.domain.racks import RackReport


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
    posted_at: datetime | None = None
    """When its server was asked for, by our own clock."""
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
    unread: bool = False
    """Its newest version cannot be read. Whatever was decided on an older one would be refused, so
    it is left alone, and counts as what was read of it."""


@dataclass(frozen=True, slots=True)
class Site:
    """A hypervisor that builds can be aimed at."""

    place: Place
    room: int | None
    """Further VMs of the pool that fit on it, those on their way taken off. None: not known."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """What the project's quota leaves for VMs of the pool."""

    left: int | None
    """Further VMs, those on their way taken off. None: without bound, or not known."""
    message: str = ""
    """What bounds it, in numbers."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the cloud has room for."""

    done: bool = True
    """It has been looked at lately, as far as it can be."""
    headroom: Headroom = Headroom(None)
    """What the quota leaves."""
    sites: tuple[Site, ...] | None = None
    """What builds can be aimed at. None: Nova chooses."""
    unaimed: str = ""
    """Why Nova chooses, for people."""
    for_now: bool = False
    """Nova chooses for a while only."""
    group_members: int | None = None
    """Servers that one server group may have. None: any number, or not known."""


@dataclass(frozen=True, slots=True)
class Mending:
    """Attempts to mend the spread that have been in vain so far."""

    tries: int = 0
    cost: int = 0
    """By how much the rules were broken at the last attempt."""
    until: datetime | None = None
    """Not another one until then."""


Mark = tuple[str, ...]
"""Something that a VM counts as: `("unclaimed",)`, `("zone", "az1")`, `("rack", "r1", "ready")`,
`("at", "az1", "r1", "h1")`, and of one that is not `unclaimed`, `("left at", "h1")`."""

PRESERVED_AT_MOST: Final = 3
"""VMs of a pool that have failed and are kept at a time: each holds quota, and a template that
never works would fill the project with wrecks."""

UNDER_WAY = (Phase.PENDING, Phase.BUILDING)


def is_sick(vm: Vm) -> bool:
    """It was ready, and fails its checks now. A build that has failed never was."""
    return vm.phase is Phase.FAILED and vm.ready_at is not None


def is_given_back(vm: Vm) -> bool:
    """Whether a person has decided that Nova is wrong about whose it is."""
    return vm.held and not vm.retained and (vm.claim is not None or vm.dirty)


def is_contradicted(vm: Vm, server: Server | None) -> bool:
    """Whether a server is a claim's by what stands on it, and not by what the API server knows.

    Each mark is written after the API server has heard of the claim, and is taken off before it is
    told that the VM is free again. So the API server has forgotten something: it was restored from
    a backup, or somebody has taken its claimRef off by hand. A person who has given back what was
    kept for that has decided: it is what the API server knows then.
    """
    marked = server.marks.claim if server is not None else None
    if marked is None or is_given_back(vm):
        return False
    known = vm.last_claim if vm.dirty else None
    return marked.uid != (vm.claim.uid if vm.claim is not None else known)


def counts_for_size(view: VmView) -> bool:
    """Unclaimed, and ready or on its way to be: what `replicas` speaks of.

    A sick one counts until it is given up, since most come back: else each short trouble would
    have a VM built that nobody needs afterwards.
    """
    vm = view.vm
    if vm.deleting or view.leaving or view.taken or vm.retained:
        return False
    return vm.phase in (*UNDER_WAY, Phase.READY) or is_sick(vm)


def is_up(server: Server, spec: WarmPoolSpec) -> bool:
    """ACTIVE with no task in progress, placed, and with an address if it has networks."""
    wants_address = spec.template.networks != []
    return (
        server.state is ServerState.ACTIVE
        and not server.busy
        and bool(server.host_id)
        and (bool(server.addresses) or not wants_address)
    )


def is_asked(health: Health) -> bool:
    """Whether VMs themselves are asked, and not Nova alone."""
    probe = health.probe
    return probe is not None and probe.none is None


def is_landed(view: VmView, spec: WarmPoolSpec, now: datetime) -> bool:
    """Nova has built it, and nothing is asked of the VM itself: it only has to be written down.

    A probe may be what tells that a template is no good, so a build lasts until it has passed.
    """
    vm = view.vm
    if vm.phase not in UNDER_WAY or not counts_for_size(view) or vm.dirty:
        return False
    waits = view.not_before is not None and view.not_before > now
    asked = is_asked(spec.health)
    return view.server is not None and is_up(view.server, spec) and not asked and not waits


def marks(
    view: VmView, zones: Sequence[str], sites: Mapping[str, Place] | None = None
) -> Iterator[Mark]:
    """All that one VM counts as.

    Args:
        view: the VM.
        zones: those that the pool builds in.
        sites: where each hypervisor stands that builds are aimed at.
    """
    vm = view.vm
    yield ("vm",)
    yield ("retained",) if vm.retained else ("server",)
    yield from _said_of(view)
    if vm.place.hypervisor and not counts_for_size(view):
        yield ("left at", vm.place.hypervisor)
    if view.taken and not vm.retained:
        yield ("claimed",)
        yield ("rack", vm.place.rack, "claimed")
    if counts_for_size(view):
        yield ("unclaimed",)
        place = heading_for(view, sites or {}) if vm.phase in UNDER_WAY else vm.place
        yield ("revision", vm.revision)
        yield ("zone", vm.zone if vm.zone in zones else place.zone)
        yield from _standing(place)
        if vm.phase is Phase.READY:
            yield ("ready",)
            yield ("rack", place.rack, "ready")
        elif is_sick(vm):
            yield ("unhealthy",)
        else:
            yield ("under way",)
            if place.rack:
                yield ("rack", place.rack, "building")


def _said_of(view: VmView) -> Iterator[Mark]:
    vm = view.vm
    states = {
        "unread": view.unread,
        "deleting": vm.deleting,
        "preserved": vm.keep_until is not None,
        "failed": vm.phase is Phase.FAILED,
    }
    yield from ((state,) for state, holds in states.items() if holds)


def heading_for(view: VmView, sites: Mapping[str, Place]) -> Place:
    """Where a VM that is being built stands or will stand, if that is known already."""
    if view.place is not None and view.place.hypervisor:
        return view.place
    return sites.get(view.vm.aim, view.vm.place)


def _standing(place: Place) -> Iterator[Mark]:
    if place.zone or place.rack or place.hypervisor:
        yield ("at", place.zone, place.rack, place.hypervisor)


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
    aiming: Mapping[str, int] = field(default_factory=dict)
    """Of these, those that are aimed at a hypervisor, per hypervisor."""
    survey: Survey = Survey()
    racks: RackReport = field(default_factory=RackReport)
    """How well the racks of its cloud are known."""
    mending: Mending = Mending()
    cloud_ready: bool = True
    """The cloud was listed completely since we lead, and the template is resolved."""
    problem: Problem | None = None
    """What is missing, if anything is."""
    resolved: ResolvedTemplate | None = None
    """What the catalogue's entry came to in this term."""
    stale: NoEntry | None = None
    """Why that may not be the newest. None: it is."""
    withdrawn: bool = False
    """What the entry came to before counts no more."""
    holds: Mapping[str, Hold] = field(default_factory=dict)
    """Zones in which nothing is built for now; the empty zone holds the whole pool."""
    tokens: int | None = None
    """Builds that the pace allows now. None: no pace."""
    next_token: datetime | None = None
    group: str = ""
    """Id of the server group that VMs are built in; empty: none."""
    wanted: int = 0
    """Unclaimed VMs that waiting claims have the pool build; what exceeds `replicas` is a surge."""

    @cached_property
    def tally(self) -> Counter[Mark]:
        """What the VMs of the pool count as, those being created included."""
        counted = Counter(self.rest)
        for view in self.vms:
            counted.update(marks(view, self.zones, self.places))
        for zone, number in self.creating.items():
            counted.update({("zone", zone): number})
            for mark in ("server", "unclaimed", "under way"):
                counted.update({(mark,): number})
            counted.update({("revision", self.pool.revision): number})
        for hypervisor, number in self.aiming.items():
            for at in _standing(self.places.get(hypervisor, Place())):
                counted.update({at: number})
        return counted

    @property
    def landed(self) -> int:
        """Builds that are over as far as Nova goes, and whose VMs are about to be Ready."""
        return sum(is_landed(view, self.pool.spec, self.now) for view in self.vms)

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Where each hypervisor stands that builds can be aimed at."""
        return {site.place.hypervisor: site.place for site in self.survey.sites or ()}

    @property
    def frozen(self) -> bool:
        """Whether nobody may ask the cloud: the credentials are refused, or there are none."""
        return self.problem is not None and self.problem.field.startswith("spec.cloudRef")

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
    mending: Mending = Mending()
    """With what is begun now."""
