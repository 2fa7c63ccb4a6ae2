"""Which VMs work, when they are checked, and when one is given up. Pure."""

from datetime import datetime, timedelta
from typing import Final
from zlib import crc32

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.base import portion, seconds
from warmpool.api.v1alpha1.pool import Health
from warmpool.domain.actions import Trouble
from warmpool.domain.cloud import ServerState
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Checked, PoolFacts, VmView

TICK: Final = timedelta(seconds=1)
"""Checks begin at whole ticks, so that those of a large pool are planned many at a time."""

_NOT_ACTIVE: Final = {
    ServerState.ERROR: Reason.SERVER_ERROR,
    ServerState.STOPPED: Reason.SERVER_STOPPED,
    ServerState.DELETED: Reason.SERVER_LOST,
}


def trouble(view: VmView) -> Trouble | None:
    """What Nova says against a VM that should work. None: nothing, or it was not seen."""
    server = view.server
    if server is None:
        return None
    if server.busy or server.state in (ServerState.OTHER, ServerState.BUILDING):
        return Trouble(Reason.SERVER_BUSY, f"Nova says {server.status}")
    reason = _NOT_ACTIVE.get(server.state)
    if reason is not None:
        return Trouble(reason, f"Nova says {server.status}")
    if view.host_down:
        host = server.host or (view.place.hypervisor if view.place is not None else "")
        return Trouble(Reason.HOST_DOWN, f"Nova holds host {host} for dead")
    return None


def due(uid: VmUid, checked: Checked, health: Health) -> datetime:
    """When a VM is to be checked next. First checks are spread over the period, by uid."""
    period = seconds(health.period)
    share = 1.0 if checked.ever else crc32(uid.encode()) / 2**32
    moment = checked.at + period * share
    whole = moment.replace(microsecond=0)
    return whole if whole == moment else whole + TICK


def is_hopeless(view: VmView, health: Health, now: datetime) -> bool:
    """Whether a sick VM has failed so often, and for so long, that it is to be given up.

    A task that Nova carries out may take as long as a launch may.
    """
    fault, checked = view.vm.fault, view.checked
    if fault is None or checked is None or checked.failures < health.failure_threshold:
        return False
    if fault.reason != Reason.SERVER_BUSY:
        return True
    return now >= fault.time + seconds(health.launch_timeout)


def unhealthy(facts: PoolFacts) -> int:
    """Unclaimed VMs that were ready and fail their checks now."""
    return facts.tally["unhealthy",]


def tolerated(facts: PoolFacts) -> int:
    """How many may be unhealthy at once for any of them to be given up."""
    checked = facts.tally["ready",] + unhealthy(facts)
    return portion(facts.pool.spec.health.max_unhealthy, checked)


def may_give_up(facts: PoolFacts) -> bool:
    """Whether sick VMs may be deleted: not if so many are sick that the cause may lie elsewhere.

    Nor while nothing can be built in their place, or the cloud cannot be asked about them.
    """
    seen = facts.cloud_ready and facts.problem is None
    return seen and not facts.pool.spec.paused and unhealthy(facts) <= tolerated(facts)
