"""How many VMs a pool starts or gives up now, and where. Counts only."""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from warmpool.api.names import Phase
from warmpool.domain.facts import Vm
from warmpool.domain.pools import UNDER_WAY, PoolFacts, counts_for_size, is_sick


def unclaimed(facts: PoolFacts) -> int:
    """Unclaimed VMs, those being created included."""
    return facts.tally["unclaimed",]


def under_way(facts: PoolFacts) -> int:
    """Builds in flight."""
    return facts.tally["under way",]


def servers(facts: PoolFacts) -> int:
    """Servers of the pool, whatever their state: what `maxSize` bounds. Retained ones are out."""
    return facts.tally["server",]


def excess(facts: PoolFacts) -> int:
    """How many unclaimed VMs there are beyond the target."""
    return max(0, unclaimed(facts) - facts.target)


def to_create(facts: PoolFacts) -> int:
    """How many builds to start now.

    Terminating and claimed VMs hold servers, so they count against `maxSize`; what is being
    created counts everywhere: a slow watch never builds twice.
    """
    spec = facts.pool.spec
    bounds = [
        facts.target - unclaimed(facts),
        spec.max_concurrent - under_way(facts),
    ]
    if spec.max_size is not None:
        bounds.append(spec.max_size - servers(facts))
    if facts.tokens is not None:
        bounds.append(facts.tokens)
    return max(0, min(bounds))


def zones_for(facts: PoolFacts, number: int) -> list[str]:
    """Where to build: evenly over the zones that are not held, the emptiest first."""
    usable = [zone for zone in facts.zones if zone not in facts.holds]
    if not usable or "" in facts.holds:
        return []
    present = {zone: facts.tally["zone", zone] for zone in usable}
    chosen: list[str] = []
    for _ in range(number):
        zone = min(usable, key=lambda z: (present[z], usable.index(z)))
        present[zone] += 1
        chosen.append(zone)
    return chosen


def surplus(facts: PoolFacts) -> list[Vm]:
    """Which VMs to give up because there are more than the target.

    Those that fail their checks go first, then builds, the youngest first; then ready ones out of
    the most crowded rack and hypervisor, so that what stays is spread. One whose turn it is, and
    that an action of ours is under way on, has to wait for that: no other goes in its stead.
    """
    number = unclaimed(facts) - facts.target
    if number <= 0:
        return []
    counted = [v.vm for v in facts.vms if counts_for_size(v)]
    sick = sorted((vm for vm in counted if is_sick(vm)), key=lambda vm: vm.ref)
    young = [vm for vm in counted if vm.phase in UNDER_WAY]
    building = sorted(young, key=lambda vm: (vm.created, vm.ref), reverse=True)
    chosen = (sick + building)[:number]
    ready = [vm for vm in counted if vm.phase is Phase.READY]
    chosen += most_crowded(ready, number - len(chosen))
    busy = {v.vm.uid for v in facts.vms if v.busy}
    return [vm for vm in chosen if vm.uid not in busy]


def most_crowded(vms: Iterable[Vm], number: int) -> list[Vm]:
    """Pick VMs one by one out of the fullest rack, in it the fullest hypervisor, oldest first."""
    racks: dict[_Name, dict[_Name, list[Vm]]] = {}
    for vm in sorted(vms, key=lambda vm: (vm.ready_at or vm.created, vm.ref), reverse=True):
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


_Name = tuple[str, str]


def _size(hypervisors: Mapping[_Name, Sequence[Vm]]) -> int:
    return sum(map(len, hypervisors.values()))
