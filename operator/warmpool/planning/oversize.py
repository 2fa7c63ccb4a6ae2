"""More VMs than `maxSize` allows: those go that have no server, before they get one. Pure.

What a leader may build it counts before it creates an object. But a leader that stalls with a
creation on the wire is replaced, and what arrives then the next one has not counted. An object
costs nothing; what `maxSize` bounds are servers, and these are asked for afterwards.
"""

from warmpool.domain.facts import Vm
from warmpool.domain.pools import UNDER_WAY, PoolFacts, VmView, counts_for_size
from warmpool.planning.sizing import servers, unclaimed


def oversize(facts: PoolFacts) -> int:
    """How many VMs the pool has too many, without unclaimed ones that are going already."""
    most = facts.pool.spec.max_size
    if most is None:
        return 0
    return max(0, unclaimed(facts) + facts.tally["claimed",] - most)


def oversized(facts: PoolFacts) -> list[Vm]:
    """Which VMs without a server go because there are too many in all, the youngest first."""
    bare = [v.vm for v in facts.vms if is_bare(v)]
    return sorted(bare, key=lambda vm: (vm.created, vm.ref), reverse=True)[: oversize(facts)]


def room(facts: PoolFacts) -> int | None:
    """How many of the VMs that have no server may be given one now. None: all of them.

    Servers that are on their way out are there until Nova says that they are gone.
    """
    most = facts.pool.spec.max_size
    if most is None or servers(facts) <= most:
        return None
    return max(0, sum(map(is_bare, facts.vms)) - (servers(facts) - most))


def is_bare(view: VmView) -> bool:
    """Nobody's, without a server as far as is known, and nobody asks for one at this moment."""
    vm = view.vm
    known = view.server is not None or vm.server is not None
    return counts_for_size(view) and vm.phase in UNDER_WAY and not (known or view.busy)
