"""One group within nested bounds, VM by VM, always the one that is best to lose.

Why this is exact. With hypervisors inside racks inside zones, "at most so many per domain" bounds a
laminar family of sets, and every term of the preference (`allocation` lists them) is a convex
function of how many VMs are taken from one set of that family. Such a sum is M-natural-convex, and
for those, adding the cheapest next unit reaches the optimum for every number of units; so it also
stops short only if there is no answer. (K. Murota, Discrete Convex Analysis, 2003, sections 6.3
and 10.1.)
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from warmpool.domain.claims import Domain
from warmpool.planning.problem import Bound
from warmpool.planning.stock import Leaf, Names, Rack, Shelf

Offer = tuple[bool, bool, bool, bool, int, int, Names, "Cursor"]
"""Next VM of a rack. Smaller is better: hypervisor used by this claim, rack used, rack's last,
hypervisor's last, fullness of the rack and of the hypervisor, names."""


class Caps(NamedTuple):
    """VMs per domain at most. None: any number."""

    zone: int | None = None
    rack: int | None = None
    hypervisor: int | None = None


class Cursor:
    """What is left of one rack while a claim is decided. The shelf stays as it is."""

    __slots__ = ("again", "fresh", "left", "next", "rack", "spread", "used")

    def __init__(self, rack: Rack, *, spread: bool) -> None:
        self.rack = rack
        self.left = rack.left
        self.used = 0
        self.spread = spread
        self.fresh = rack.leaves
        self.next = 0
        self.again: list[tuple[bool, int, Names, int, Leaf]] = []

    def set_apart_unknown(self) -> None:
        """Offer VMs of unknown hypervisors last: they cannot be told to be on another one."""
        self.again = [(*rank[:3], 0, rank[3]) for rank in self.fresh if not rank[2][3]]
        self.fresh = [rank for rank in self.fresh if rank[2][3]]

    def offer(self) -> Offer | None:
        """The best VM of the rack now."""
        fresh = self.fresh[self.next] if self.next < len(self.fresh) else None
        again = self.again[0] if self.again else None
        if fresh is not None and (again is None or self.spread or fresh[:3] < again[:3]):
            return self._offer(fresh[0], fresh[1], fresh[2], used=False)
        if again is not None:
            return self._offer(again[0], again[1], again[2], used=True)
        return None

    def _offer(self, last: bool, fullness: int, names: Names, *, used: bool) -> Offer:
        rack_used = self.used > 0 or not self.rack.known
        return (
            self.spread and used,
            self.spread and rack_used,
            self.rack.known and self.left == 1,
            last,
            -self.left if self.rack.known else 0,
            fullness,
            names,
            self,
        )

    def take(self, names: Names, cap: int | None) -> Leaf:
        """Take the VM that was offered. The hypervisor is offered again below its cap."""
        self.left -= 1
        self.used += 1
        if self.again and self.again[0][2] is names:
            _, _, _, taken, leaf = heappop(self.again)
        else:
            leaf, taken = self.fresh[self.next][3], 0
            self.next += 1
        taken += 1
        left = leaf.left - taken
        if left and (cap is None or taken < cap):
            known = bool(names[3])
            heappush(self.again, (known and left == 1, -left if known else 0, names, taken, leaf))
        return leaf


def caps_of(bounds: Iterable[Bound], shelf: Shelf) -> Caps:
    """What the bounds say about each domain, for one group: all of it that `choose` can heed."""
    caps: dict[Domain, int] = {}
    for bound in bounds:
        level = bound.domain
        if bound.most is not None and (shelf.nested or level is Domain.RACK):
            caps[level] = min(bound.most, caps.get(level, bound.most))
    return Caps(caps.get(Domain.ZONE), caps.get(Domain.RACK), caps.get(Domain.HYPERVISOR))


def choose(shelf: Shelf, count: int, caps: Caps, *, spread: bool) -> list[tuple[Leaf, int]] | None:
    """Take so many, or None if there is no way.

    Only the first `count` racks matter: untouched ones are offered in the shelf's own order.

    `spread`: different hypervisors, then different racks, come before all other preferences.
    """
    everything = spread and (shelf.unknown[Domain.RACK] or shelf.unknown[Domain.HYPERVISOR])
    if everything or caps.zone is not None:
        heap = _all_offers(shelf, spread=spread)
    else:
        heap = [(False, False, *r[:5], Cursor(r[5], spread=spread)) for r in shelf.order[:count]]
    taken: dict[Leaf, int] = {}
    zones: dict[tuple[str, str], int] = {}
    while count and heap:
        *_, names, cursor = heappop(heap)
        if caps.zone is not None:
            zone = names[:2]
            if zones.get(zone, 0) == caps.zone:
                continue
            zones[zone] = zones.get(zone, 0) + 1
        leaf = cursor.take(names, caps.hypervisor)
        taken[leaf] = taken.get(leaf, 0) + 1
        count -= 1
        if caps.rack is None or cursor.used < caps.rack:
            following = cursor.offer()
            if following is not None:
                heappush(heap, following)
    return None if count else list(taken.items())


def _all_offers(shelf: Shelf, *, spread: bool) -> list[Offer]:
    """The first offer of every rack, as a heap."""
    cursors = [Cursor(rank[5], spread=spread) for rank in shelf.order]
    if spread and shelf.unknown[Domain.HYPERVISOR]:
        for cursor in cursors:
            cursor.set_apart_unknown()
    heap = [offer for cursor in cursors if (offer := cursor.offer()) is not None]
    heapify(heap)
    return heap
