"""Which VMs make room for newer ones: of an older template, or too old. Pure."""

from collections.abc import Container
from datetime import datetime
from typing import Final
from zlib import crc32

from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.base import portion, seconds
from warmpool.api.v1alpha1.pool import UpdateType, WarmPoolSpec
from warmpool.domain.actions import Discard
from warmpool.domain.facts import Vm
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import UNDER_WAY, PoolFacts, counts_for_size
from warmpool.planning.sizing import excess, group_room, leavers, servers, unclaimed

EARLIER: Final = 0.1
"""By up to this share of its age a VM expires sooner than it must: by its uid."""


def expires_at(vm: Vm, spec: WarmPoolSpec) -> datetime | None:
    """When a ready VM is too old. None: never."""
    if spec.expire_after is None or vm.ready_at is None:
        return None
    return vm.ready_at + seconds(spec.expire_after) * (1 - EARLIER * _chance(vm.uid))


def _chance(uid: VmUid) -> float:
    """A number in [0, 1) that is the same whoever asks."""
    return crc32(uid.encode()) / 2**32


def is_expired(vm: Vm, spec: WarmPoolSpec, now: datetime) -> bool:
    when = expires_at(vm, spec)
    return when is not None and when <= now


def outdated(facts: PoolFacts) -> int:
    """Unclaimed VMs of an older template."""
    return unclaimed(facts) - facts.tally["revision", facts.pool.revision]


def is_rolling(facts: PoolFacts) -> bool:
    """Whether VMs of an older template are being replaced, now or when they can be."""
    lasting = facts.pool.spec.update_strategy.type is UpdateType.ON_REPLENISH
    return outdated(facts) > 0 and not lasting


def is_stopped(facts: PoolFacts) -> bool:
    """Nothing is given up for a newer one that could not be built."""
    unseen = not facts.cloud_ready or facts.problem is not None
    return unseen or bool(facts.holds) or facts.pool.spec.paused or facts.pool.deleting


def budget(facts: PoolFacts) -> int:
    """How many ready VMs may go now: those that are missing already count, whyever they do."""
    if is_stopped(facts) or excess(facts):
        return 0
    whole = _attainable(facts)
    missing = max(0, whole - facts.tally["ready",])
    room = portion(facts.pool.spec.update_strategy.max_unavailable, whole) - missing
    if facts.tokens is not None:
        room = min(room, facts.tokens - max(0, whole - unclaimed(facts)))
    return max(0, room)


def _attainable(facts: PoolFacts) -> int:
    """How many VMs could be ready, with what is claimed within `maxSize` and the server group."""
    rooms = [] if (room := group_room(facts)) is None else [room]
    if (most := facts.pool.spec.max_size) is not None:
        rooms.append(most - servers(facts))
    return max(0, min([facts.target, *(room + unclaimed(facts) for room in rooms)]))


def wants_all(facts: PoolFacts) -> bool:
    """Whether VMs at rest have to be looked at, since some of them are to be given up."""
    if not is_rolling(facts) or is_stopped(facts):
        return False
    at_once = facts.pool.spec.update_strategy.type is UpdateType.RECREATE
    return at_once or budget(facts) > 0


def turnover(facts: PoolFacts, in_hand: Container[VmUid]) -> list[Discard]:
    """Which VMs go now for newer ones. What is not ready yet is no loss, so it goes at once."""
    if is_stopped(facts) or excess(facts):
        return []
    spec, rolling = facts.pool.spec, is_rolling(facts)
    at_once = spec.update_strategy.type is UpdateType.RECREATE
    going, slowly = [], []
    for vm in (v.vm for v in facts.vms if counts_for_size(v) and not (v.busy or v.unread)):
        old = rolling and vm.revision != facts.pool.revision
        if vm.uid in in_hand:
            continue
        if old and (at_once or vm.phase in UNDER_WAY):
            going.append(vm)
        elif vm.phase is Phase.READY and (old or is_expired(vm, spec, facts.now)):
            slowly.append(vm)
    lost = sum(vm.phase is Phase.READY for vm in going)
    going += leavers(facts, slowly, budget(facts) - lost)
    return [Discard(vm, _why(vm, facts)) for vm in going]


def _why(vm: Vm, facts: PoolFacts) -> Reason:
    return Reason.TOO_OLD if vm.revision == facts.pool.revision else Reason.OUTDATED
