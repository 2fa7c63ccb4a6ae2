"""The next step of one VM. ACTIVE is not Ready, 204 is not gone, and a claim's VM is left alone."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.base import seconds
from warmpool.api.v1alpha1.pool import Health, WarmPoolSpec
from warmpool.domain.actions import (
    Action,
    Build,
    Check,
    ConfirmLost,
    Discard,
    Fail,
    InspectFault,
    Keep,
    MakeReady,
    MarkClaimed,
    Preserve,
    Rebuild,
    Recover,
    Release,
    Relocate,
    ReportBuilding,
    Sicken,
    Terminate,
)
from warmpool.domain.cloud import Server, ServerState
from warmpool.domain.facts import Vm
from warmpool.domain.pools import VmView, is_asked, is_contradicted, is_sick, is_up
from warmpool.planning.health import due, is_hopeless, trouble
from warmpool.planning.turnover import expires_at

SHOW_BUILDING_AFTER: Final = timedelta(seconds=5)
"""A build older than this is shown with its server. Quicker ones are Ready before anyone looks,
and every write spared is a claim bound sooner."""


ADOPTED: Final = timedelta(minutes=5)
"""A server that is older than its WarmVM by more than clocks differ was there before it."""

LISTED_AGAIN: Final = timedelta(seconds=1)
"""By then a listing that began after a rebuild has come in, as a rule."""


MARKABLE: Final = (ServerState.ACTIVE, ServerState.STOPPED)
"""States in which Nova lets metadata be written."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with a VM now, or when to look again."""

    action: Action | None = None
    look_again: datetime | None = None
    at_rest: bool = False
    """Until it is time to look again, nothing is to be decided about it."""


WAIT: Final = Step(at_rest=True)
"""Nothing to do until something changes."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a step rests on besides the VM itself."""

    spec: WarmPoolSpec
    now: datetime
    revision: str
    """Of the pool's template as it is now."""
    may_build: bool = True
    """Whether a server may be POSTed now (no hold, cloud listed, not paused)."""
    may_give_up: bool = True
    """Whether a VM may be deleted because it fails its checks."""
    preserve: timedelta | None = None
    """How long VMs that fail are kept, unless they say otherwise themselves."""


def next_step(view: VmView, rules: Rules) -> Step:
    """Decide the next step of one VM."""
    leaving = view.leaving and not view.vm.deleting
    if view.busy or view.settling or view.unread or leaving:
        return WAIT
    if view.not_before is not None and view.not_before > rules.now:
        return Step(look_again=view.not_before, at_rest=view.vm.phase is Phase.TERMINATING)
    vm = view.vm
    if vm.deleting:
        return Step(Terminate(vm)) if vm.finalized else WAIT
    if vm.retained or vm.claim is not None or is_contradicted(vm, view.server):
        return _held(view, rules.now)
    return _unclaimed(view, rules)


def _unclaimed(view: VmView, rules: Rules) -> Step:
    vm = view.vm
    match vm.phase:
        case Phase.PENDING | Phase.BUILDING:
            return _building(view, rules)
        case Phase.READY:
            return _ready(view, rules)
        case Phase.FAILED:
            return _sick(view, rules) if is_sick(vm) else Step(Discard(vm, Reason.BUILD_FAULT))
        case Phase.TERMINATING:  # pragma: no branch - there is no other phase
            return WAIT


def _ready(view: VmView, rules: Rules) -> Step:
    """What Nova says is heard at once; the VM itself is asked once a period."""
    vm, server = view.vm, view.server
    if view.server_missing:
        return Step(ConfirmLost(vm))
    found = trouble(view)
    if server is not None and found is not None:
        return Step(Check(vm, server, found))
    moved = _moved(view)
    if moved.action is not None or server is None:
        return moved
    check_at = _check_at(view, rules.spec.health)
    if check_at is not None and check_at <= rules.now:
        return Step(Check(vm, server, None))
    return _resting(check_at, expires_at(vm, rules.spec), rules.now)


def _check_at(view: VmView, health: Health) -> datetime | None:
    if view.checked is None or not is_asked(health):
        return None
    return due(view.vm.uid, view.checked, health)


def _resting(check_at: datetime | None, old_at: datetime | None, now: datetime) -> Step:
    """Nothing is to be done about a ready VM until one of these times."""
    if old_at is not None and old_at <= now:
        return Step(look_again=check_at)
    times = [when for when in (check_at, old_at) if when is not None]
    return Step(look_again=min(times), at_rest=True) if times else WAIT


def _sick(view: VmView, rules: Rules) -> Step:
    """It fails its checks: see whether it still does, until it has to be given up."""
    vm, server, health = view.vm, view.server, rules.spec.health
    if view.server_missing:
        return Step(ConfirmLost(vm))
    if rules.may_give_up and is_hopeless(view, health, rules.now):
        until = keep_until(vm, rules.preserve, rules.now)
        return Step(Preserve(vm, until) if until else Discard(vm, Reason.UNHEALTHY))
    if server is None or view.checked is None:
        return WAIT
    found, asked = trouble(view), Reason.PROBE_FAILED
    when = due(vm.uid, view.checked, health)
    if found is None and vm.fault is not None and vm.fault.reason != asked:
        when = rules.now  # what Nova had against it is over
    if when > rules.now:
        return Step(look_again=when)
    return Step(Check(vm, server, found))


def keep_until(vm: Vm, preserve: timedelta | None, now: datetime) -> datetime | None:
    """Until when a VM is kept that has failed now. None: it is not."""
    span = vm.preserve if vm.preserve is not None else preserve
    return now + span if span else None


def _held(view: VmView, now: datetime) -> Step:
    """A VM that is kept for somebody: a claim's, or one that outlived its claim, or failed."""
    vm, server = view.vm, view.server
    if vm.keep_until is not None:
        over = vm.keep_until <= now
        return Step(Discard(vm, Reason.PRESERVED)) if over else _resting(vm.keep_until, None, now)
    if vm.retained and vm.held and not vm.held_told and server is not None:
        return Step(Keep(vm, server))  # it was begun, and who did is gone
    if vm.retained:
        return _moved(view)
    if server is not None and is_contradicted(vm, server):
        return Step(Keep(vm, server))
    return Step(Release(vm)) if view.claim_gone else _claimed(view)


def _claimed(view: VmView) -> Step:
    """A claim's VM is watched and told of, never replaced or touched."""
    vm, server = view.vm, view.server
    if view.server_missing:
        return Step(ConfirmLost(vm)) if vm.phase is not Phase.FAILED else WAIT
    if server is None or server.busy:
        return WAIT
    found = trouble(view)
    if found is not None and found.reason is not Reason.SERVER_BUSY and vm.phase is Phase.READY:
        return Step(Sicken(vm, found.reason, found.message))
    if found is None and (vm.phase is Phase.FAILED or vm.held_told):
        return Step(Recover(vm, server))
    if server.state in MARKABLE and _is_to_be_marked(vm, server):
        return Step(MarkClaimed(vm, server))
    return _moved(view)


def _is_to_be_marked(vm: Vm, server: Server) -> bool:
    """Its mark is missing, or names another claim than the one that a person has left it to."""
    marked = server.marks.claim
    return marked is None or (vm.claim is not None and marked.uid != vm.claim.uid)


def _moved(view: VmView) -> Step:
    """Migration and evacuation change the place under a VM that goes on working."""
    vm, server, place = view.vm, view.server, view.place
    if server is None or place is None or server.busy or not server.host_id:
        return WAIT
    return WAIT if place == vm.place else Step(Relocate(vm, server, place))


def _building(view: VmView, rules: Rules) -> Step:
    vm, server = view.vm, view.server
    if vm.dirty and (step := _recycling(view, rules)) is not None:
        return step
    if server is None:
        return _not_built(view, rules)
    if server.state in (ServerState.ERROR, ServerState.DELETED):
        return Step(InspectFault(vm, server))
    started = view.rebuilt_at if vm.dirty else view.posted_at
    if started is None or started < vm.created - ADOPTED:
        started = vm.created
    return _launching(view, server, rules, started)


def _recycling(view: VmView, rules: Rules) -> Step | None:
    """What comes before a used VM is as a new one; None: nothing."""
    vm, server = view.vm, view.server
    if not view.recycling:
        # A rebuild may be on its way to Nova that nobody waits for, to arrive when a claim has it.
        return Step(Discard(vm, Reason.RECYCLING))
    if server is None:
        return None
    if vm.revision != rules.revision:
        # Its server keeps user data and metadata of the template that it was built from.
        return Step(_outdated(vm))
    if view.rebuilt_at is None:
        return Step(Rebuild(vm, server)) if rules.may_build else WAIT
    return None if view.seen_since_rebuild else Step(look_again=rules.now + LISTED_AGAIN)


def _not_built(view: VmView, rules: Rules) -> Step:
    vm = view.vm
    if view.server_missing:
        return Step(ConfirmLost(vm))
    if not rules.may_build or rules.spec.paused:
        return WAIT
    # What is POSTed now is of the template as it is now.
    return Step(Build(vm) if vm.revision == rules.revision else _outdated(vm))


def _outdated(vm: Vm) -> Discard:
    return Discard(vm, Reason.OUTDATED)


def _launching(view: VmView, server: Server, rules: Rules, started: datetime) -> Step:
    """A server that is on its way. One that is up when its time is over is asked all the same.

    It may have come up in time, while nobody looked.
    """
    vm, spec, now = view.vm, rules.spec, rules.now
    deadline = started + seconds(spec.health.launch_timeout)
    silent = view.not_before is not None and is_asked(spec.health)
    if is_up(server, spec) and not (silent and now >= deadline):
        return Step(MakeReady(vm, server), look_again=deadline if now < deadline else None)
    if now >= deadline:
        return Step(_too_late(vm, server, spec))
    if vm.phase is Phase.BUILDING:
        return Step(look_again=deadline)
    show_at = vm.created + SHOW_BUILDING_AFTER
    if now < show_at:
        return Step(look_again=show_at)
    return Step(ReportBuilding(vm, server), look_again=deadline)


def _too_late(vm: Vm, server: Server, spec: WarmPoolSpec) -> Fail:
    spent = f"not ready after {spec.health.launch_timeout}"
    if is_up(server, spec) and is_asked(spec.health):
        text = f"{spent}; Nova says {server.status}, but the VM has never answered its probe"
        return Fail(vm, server, Reason.PROBE_FAILED, text)
    return Fail(vm, server, Reason.LAUNCH_TIMEOUT, f"{spent}; Nova says {server.status}")
