"""The next step of one VM. ACTIVE is not Ready, 204 is not gone, and a claim's VM is left alone."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.base import seconds
from warmpool.api.v1alpha1.pool import WarmPoolSpec
from warmpool.domain.actions import (
    Action,
    Build,
    ConfirmLost,
    Discard,
    Fail,
    InspectFault,
    MakeReady,
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
from warmpool.domain.pools import VmView

SHOW_BUILDING_AFTER: Final = timedelta(seconds=5)
"""A build older than this is shown with its server. Quicker ones are Ready before anyone looks,
and every write spared is a claim bound sooner."""


LISTED_AGAIN: Final = timedelta(seconds=1)
"""By then a listing that began after a rebuild has come in, as a rule."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with a VM now, or when to look again."""

    action: Action | None = None
    look_again: datetime | None = None


WAIT: Final = Step()
"""Nothing to do until something changes."""


def next_step(view: VmView, spec: WarmPoolSpec, now: datetime, *, may_build: bool) -> Step:
    """Decide the next step of one VM.

    Args:
        view: the VM and its server.
        spec: of its pool.
        now: the time.
        may_build: whether a server may be POSTed now (no hold, cloud listed, not paused).
    """
    if view.busy or view.settling or (view.leaving and not view.vm.deleting):
        return WAIT
    if view.not_before is not None and view.not_before > now:
        return Step(look_again=view.not_before)
    vm = view.vm
    if vm.deleting:
        return Step(Terminate(vm)) if vm.finalized else WAIT
    if vm.retained or vm.claim is not None:
        return _held(view)
    return _unclaimed(view, spec, now, may_build=may_build)


def _unclaimed(view: VmView, spec: WarmPoolSpec, now: datetime, *, may_build: bool) -> Step:
    vm = view.vm
    match vm.phase:
        case Phase.PENDING | Phase.BUILDING:
            return _building(view, spec, now, may_build=may_build)
        case Phase.READY:
            return Step(ConfirmLost(vm)) if view.server_missing else _moved(view)
        case Phase.FAILED:
            return Step(Discard(vm, Reason.BUILD_FAULT))
        case Phase.TERMINATING:  # pragma: no branch - there is no other phase
            return WAIT


def _held(view: VmView) -> Step:
    """A VM that is kept for somebody: a claim's, or one that outlived its claim."""
    if view.vm.retained:
        return _moved(view)
    return Step(Release(view.vm)) if view.claim_gone else _claimed(view)


def _claimed(view: VmView) -> Step:
    """A claim's VM is watched and told of, never replaced or touched."""
    vm, server = view.vm, view.server
    if view.server_missing:
        return Step(ConfirmLost(vm)) if vm.phase is not Phase.FAILED else WAIT
    if server is None or server.busy:
        return WAIT
    sick = _SICK.get(server.state)
    if sick is not None and vm.phase is Phase.READY:
        return Step(Sicken(vm, sick, f"Nova says {server.status}"))
    if server.state is ServerState.ACTIVE and vm.phase is Phase.FAILED:
        return Step(Recover(vm, server))
    return _moved(view)


_SICK: Final = {
    ServerState.ERROR: Reason.SERVER_ERROR,
    ServerState.STOPPED: Reason.SERVER_STOPPED,
}


def _moved(view: VmView) -> Step:
    """Migration and evacuation change the place under a VM that goes on working."""
    vm, server, place = view.vm, view.server, view.place
    if server is None or place is None or server.busy or not server.host_id:
        return WAIT
    return WAIT if place == vm.place else Step(Relocate(vm, server, place))


def _building(view: VmView, spec: WarmPoolSpec, now: datetime, *, may_build: bool) -> Step:
    vm, server = view.vm, view.server
    if server is None:
        if view.server_missing:
            return Step(ConfirmLost(vm))
        return Step(Build(vm)) if may_build and not spec.paused else WAIT
    if vm.dirty and view.rebuilt_at is None:
        return Step(Rebuild(vm, server)) if may_build else WAIT
    if vm.dirty and not view.seen_since_rebuild:
        return Step(look_again=now + LISTED_AGAIN)
    if server.state in (ServerState.ERROR, ServerState.DELETED):
        return Step(InspectFault(vm, server))
    started = view.rebuilt_at if vm.dirty else server.created
    return _launching(vm, server, spec, started or vm.created, now)


def _launching(
    vm: Vm, server: Server, spec: WarmPoolSpec, started: datetime, now: datetime
) -> Step:
    """A server that is on its way, within its launch timeout."""
    deadline = started + seconds(spec.health.launch_timeout)
    if now >= deadline:
        text = f"not ready after {spec.health.launch_timeout}; Nova says {server.status}"
        return Step(Fail(vm, Reason.LAUNCH_TIMEOUT, text))
    if is_up(server, spec):
        return Step(MakeReady(vm, server), look_again=deadline)
    if vm.phase is Phase.BUILDING:
        return Step(look_again=deadline)
    show_at = vm.created + SHOW_BUILDING_AFTER
    if now < show_at:
        return Step(look_again=show_at)
    return Step(ReportBuilding(vm, server), look_again=deadline)


def is_up(server: Server, spec: WarmPoolSpec) -> bool:
    """ACTIVE with no task in progress, placed, and with an address if it has networks."""
    wants_address = spec.template.networks != []
    return (
        server.state is ServerState.ACTIVE
        and not server.busy
        and bool(server.host_id)
        and (bool(server.addresses) or not wants_address)
    )
