"""How many VMs a pool starts or gives up now, and where. Counts only."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from heapq import heapify, heappop, heapreplace
from typing import Final

from warmpool.api.names import Phase
from warmpool.api.v1alpha1.pool import ScaleDown
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import UNDER_WAY, PoolFacts, VmView, counts_for_size, is_sick
from warmpool.planning.crowd import Crowd
from warmpool.planning.layout import ready_layout

AT_ONCE: Final = 64
"""VMs that are given up in one pass where each has to be weighed against the spread."""


def unclaimed(facts: PoolFacts) -> int:
    """Unclaimed VMs, those being created included."""
    return facts.tally["unclaimed",]


def under_way(facts: PoolFacts) -> int:
    """VMs that are not Ready yet."""
    return facts.tally["under way",]


def in_flight(facts: PoolFacts) -> int:
    """Builds that Nova has not come to the end of: what `maxConcurrent` bounds."""
    return under_way(facts) - facts.landed


def servers(facts: PoolFacts) -> int:
    """Servers of the pool, whatever their state: what `maxSize` bounds. Retained ones are out."""
    return facts.tally["server",]


def members(facts: PoolFacts) -> int:
    """Servers that count in the pool's server group: all of them, retained ones too."""
    return servers(facts) + facts.tally["retained",]


def group_room(facts: PoolFacts) -> int | None:
    """Further members that the pool's server group may have. None: any number, or no group."""
    most = facts.survey.group_members
    if not facts.group or most is None:
        return None
    return max(0, most - members(facts))


def excess(facts: PoolFacts) -> int:
    """How many unclaimed VMs there are too many: beyond the target, or beyond `maxSize`."""
    wanted, most = facts.target + surge(facts), facts.pool.spec.max_size
    if most is not None:
        wanted = min(wanted, max(0, most - facts.tally["claimed",]))
    return max(0, unclaimed(facts) - wanted)


def room(facts: PoolFacts) -> int | None:
    """How many of the VMs that have no server may be given one now. None: all of them.

    There may be more VMs than `maxSize`: what a former leader was about to create and arrives late,
    nobody has counted. An object costs nothing, and goes as surplus; what `maxSize` bounds are
    servers, and those on their way out are there until Nova says that they are gone.
    """
    most = facts.pool.spec.max_size
    if most is None or servers(facts) <= most:
        return None
    return max(0, sum(map(is_bare, facts.vms)) - (servers(facts) - most))


def is_bare(view: VmView) -> bool:
    """Nobody's, without a server as far as is known, and nobody asks for one at this moment."""
    vm = view.vm
    known = view.server is not None or vm.server is not None
    hands_off = view.busy or view.unread
    return counts_for_size(view) and vm.phase in UNDER_WAY and not (known or hands_off)


def surge(facts: PoolFacts) -> int:
    """1 while one VM more than the target is being built, for the sake of the spread."""
    if not facts.pool.spec.spread or under_way(facts) != 1:
        return 0
    if unclaimed(facts) != facts.target + 1:
        return 0
    return int(ready_layout(facts).cost() > 0)


def to_create(facts: PoolFacts) -> int:
    """How many builds to start now.

    Terminating and claimed VMs hold servers, so they count against `maxSize`; what is being
    created counts everywhere: a slow watch never builds twice.
    """
    spec = facts.pool.spec
    bounds = [
        facts.target - unclaimed(facts),
        spec.max_concurrent - in_flight(facts),
    ]
    if spec.max_size is not None:
        bounds.append(spec.max_size - servers(facts))
    if (room := group_room(facts)) is not None:
        bounds.append(room)
    if facts.tokens is not None:
        bounds.append(facts.tokens)
    return max(0, min(bounds))


def surplus(facts: PoolFacts) -> list[Vm]:
    """Which VMs to give up because there are more than the target.

    Those that fail their checks go first, then builds, the youngest first; then ready ones, as
    `scaleDown` says. One whose turn it is, and that an action of ours is under way on, has to wait
    for that: no other goes in its stead. In that of one that cannot be read another does.
    """
    number = excess(facts)
    if not number:
        return []
    counted = [v.vm for v in facts.vms if counts_for_size(v) and not v.unread]
    sick = sorted((vm for vm in counted if is_sick(vm)), key=lambda vm: vm.ref)
    young = [vm for vm in counted if vm.phase in UNDER_WAY]
    building = sorted(young, key=lambda vm: (vm.created, vm.ref), reverse=True)
    chosen = (sick + building)[:number]
    ready = [vm for vm in counted if vm.phase is Phase.READY]
    chosen += leavers(facts, ready, number - len(chosen), facts.pool.spec.scale_down)
    busy = {v.vm.uid for v in facts.vms if v.busy}
    return [vm for vm in chosen if vm.uid not in busy]


def leavers(
    facts: PoolFacts,
    ready: Sequence[Vm],
    number: int,
    policy: ScaleDown = ScaleDown.MOST_CROWDED_DOMAIN,
) -> list[Vm]:
    """Which ready VMs to give up, so that what stays keeps to the rules of `spread`."""
    if facts.pool.spec.spread:
        layout = ready_layout(facts)
        return list(Crowd(layout, ready, policy).leave(min(number, AT_ONCE)))
    if policy is ScaleDown.MOST_CROWDED_DOMAIN:
        return most_crowded(ready, number)
    return sorted(ready, key=_age, reverse=policy is ScaleDown.NEWEST)[:number]


def most_crowded(vms: Iterable[Vm], number: int) -> list[Vm]:
    """Pick VMs one by one out of the fullest rack, in it the fullest hypervisor, oldest first."""
    racks: dict[_Name, dict[_Name, list[Vm]]] = {}
    for vm in sorted(vms, key=_age, reverse=True):
        hypervisors = racks.setdefault((vm.place.region, vm.place.rack), {})
        hypervisors.setdefault((vm.place.region, vm.place.hypervisor), []).append(vm)
    fullest = [(-_size(hypervisors), rack) for rack, hypervisors in racks.items()]
    heapify(fullest)
    chosen: list[Vm] = []
    while fullest and len(chosen) < number:
        size, rack = fullest[0]
        hypervisors = racks[rack]
        home = min(hypervisors, key=lambda name: (-len(hypervisors[name]), name))
        chosen.append(hypervisors[home].pop())
        if size == -1:
            heappop(fullest)
        else:
            heapreplace(fullest, (size + 1, rack))
    return chosen


def _age(vm: Vm) -> tuple[datetime, Ref]:
    return (vm.ready_at or vm.created, vm.ref)


_Name = tuple[str, str]


def _size(hypervisors: Mapping[_Name, Sequence[Vm]]) -> int:
    return sum(map(len, hypervisors.values()))
