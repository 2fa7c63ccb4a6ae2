"""Counts of one pool's ready VMs, kept in the order in which claims take them.

A `Shelf` is a `Mapping[Place, int]`, so it stands where `Stock.counts` stands. Kept up to date by
`add` and `take`, a few microseconds each, it spares `allocate` sorting hundreds of places for every
claim. Built from a plain mapping it gives the same answers.

Its keeper has one for each pool: `add` when a VM becomes ready, `take` when it no longer is, and
`take` for every pick of a fit before the next claim is decided; `add` gives a tentative take back.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from warmpool.domain.claims import Domain
from warmpool.domain.cloud import Place

Names = tuple[str, str, str, str]
"""A place as (region, zone, rack, hypervisor): compares in C, where `Place` compares in Python."""

LEVEL: Final[Mapping[Domain, int]] = {Domain.ZONE: 1, Domain.RACK: 2, Domain.HYPERVISOR: 3}
"""Where the name of a domain stands in `Names`."""


class Leaf:
    """One place that holds VMs of the pool."""

    __slots__ = ("left", "names", "place", "rack")

    def __init__(self, place: Place, names: Names, rack: "Rack") -> None:
        self.place = place
        self.names = names
        self.rack = rack
        self.left = 0

    def rank(self) -> "LeafRank":
        """Smaller is taken first: no hypervisor's last VM, the fullest hypervisor, the first name.

        VMs of unknown hypervisors leave no hypervisor empty and come after those of full ones.
        """
        if not self.names[3]:
            return (False, 0, self.names, self)
        return (self.left == 1, -self.left, self.names, self)


LeafRank = tuple[bool, int, Names, Leaf]


class Rack:
    """The places of one rack, best first. All of a region whose rack is not known make one too."""

    __slots__ = ("known", "leaves", "left", "rank", "zones")

    def __init__(self, *, known: bool) -> None:
        self.known = known
        self.left = 0
        self.leaves: list[LeafRank] = []
        self.zones: dict[str, int] = {}
        self.rank: RackRank = (False, False, 0, 0, ("", "", "", ""), self)

    def ranked(self) -> "RackRank":
        """Smaller is taken first: as `Leaf.rank`, racks before hypervisors."""
        last_on_hypervisor, fullness, names, _ = self.leaves[0]
        if not self.known:
            return (False, last_on_hypervisor, 0, fullness, names, self)
        return (self.left == 1, last_on_hypervisor, -self.left, fullness, names, self)


RackRank = tuple[bool, bool, int, int, Names, Rack]


class Shelf(Mapping[Place, int]):
    """Ready VMs of one pool per place. Places without any are not in it."""

    __slots__ = ("_leaves", "_parts", "_racks", "_split", "homes", "order", "total", "unknown")

    def __init__(self, counts: Mapping[Place, int] | None = None) -> None:
        self._leaves: dict[Place, Leaf] = {}
        self._racks: dict[tuple[str, str], Rack] = {}
        self._parts: dict[frozenset[Domain], Shelf] = {}
        self._split = 0
        self.order: list[RackRank] = []
        """Racks, best first."""
        self.homes: dict[tuple[str, str], dict[Place, None]] = {}
        """Places of each known hypervisor: one, unless its VMs name different racks or zones."""
        self.total = 0
        self.unknown = dict.fromkeys(Domain, 0)
        """VMs whose domain is not known, per level."""
        for place, count in (counts or {}).items():
            if count > 0:
                self._add(place, count)
        self._sort()

    def __getitem__(self, place: Place) -> int:
        return self._leaves[place].left

    def __iter__(self) -> Iterator[Place]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def leaves(self) -> Collection[Leaf]:
        """The places, in no order."""
        return self._leaves.values()

    @property
    def racks(self) -> int:
        """How many known racks hold VMs."""
        return sum(1 for _, name in self._racks if name)

    @property
    def nested(self) -> bool:
        """Each hypervisor is in one rack and each rack in one zone, as far as these VMs tell."""
        return not self._split

    def facts(self) -> tuple[object, ...]:
        """All that a decision sees, comparable: shelves of the same VMs have the same."""
        racks = [
            (rank[:5], [leaf[:3] for leaf in rank[5].leaves], sorted(rank[5].zones.items()))
            for rank in self.order
        ]
        return (racks, self.homes, self.total, self.unknown, self.racks, self.nested)

    def count(self, place: Place) -> int:
        """VMs at the place, 0 if there are none."""
        leaf = self._leaves.get(place)
        return leaf.left if leaf else 0

    def add(self, place: Place, count: int = 1) -> None:
        """VMs became ready there, or a tentative take is taken back."""
        leaf = self._leaves.get(place)
        rack = leaf.rack if leaf else self._racks.get((place.region, place.rack))
        if rack:
            self._unrank(rack, leaf)
        leaf = self._add(place, count)
        insort(leaf.rack.leaves, leaf.rank())
        self._rank(leaf.rack)
        for levels, part in self._parts.items():
            if _named(leaf.names, levels):
                part.add(place, count)

    def take(self, place: Place, count: int = 1) -> None:
        """VMs left: claimed, gone or no longer ready.

        Raises:
            ValueError: there are fewer.
        """
        leaf = self._leaves.get(place)
        if leaf is None or leaf.left < count:
            raise ValueError(f"cannot take {count} of {self.count(place)} VMs at {place}")
        rack = leaf.rack
        self._unrank(rack, leaf)
        leaf.left -= count
        self._count(leaf, -count)
        if leaf.left:
            insort(rack.leaves, leaf.rank())
        else:
            self._forget(leaf)
        if rack.leaves:
            self._rank(rack)
        else:
            del self._racks[leaf.names[0], leaf.names[2]]
        for levels, part in self._parts.items():
            if _named(leaf.names, levels):
                part.take(place, count)

    def known(self, levels: Collection[Domain]) -> "Shelf":
        """The part whose domains at these levels are known. Itself, if that is all of it.

        It is kept up to date with the rest, so it is never to be changed itself.
        """
        if not any(self.unknown[level] for level in levels):
            return self
        key = frozenset(levels)
        if key not in self._parts:
            counts = {leaf.place: leaf.left for leaf in self.leaves if _named(leaf.names, key)}
            self._parts[key] = Shelf(counts)
        return self._parts[key]

    def _add(self, place: Place, count: int) -> Leaf:
        leaf = self._leaves.get(place) or self._meet(place)
        leaf.left += count
        self._count(leaf, count)
        return leaf

    def _count(self, leaf: Leaf, change: int) -> None:
        leaf.rack.left += change
        self.total += change
        for level, index in LEVEL.items():
            if not leaf.names[index]:
                self.unknown[level] += change

    def _meet(self, place: Place) -> Leaf:
        names = (place.region, place.zone, place.rack, place.hypervisor)
        key = (place.region, place.rack)
        rack = self._racks.get(key)
        if rack is None:
            rack = self._racks[key] = Rack(known=bool(place.rack))
        leaf = self._leaves[place] = Leaf(place, names, rack)
        if place.hypervisor:
            home = self.homes.setdefault((place.region, place.hypervisor), {})
            home[place] = None
            self._split += len(home) == 2  # noqa: PLR2004 - it just stopped being one
        zones = rack.zones
        zones[place.zone] = zones.get(place.zone, 0) + 1
        self._split += rack.known and zones[place.zone] == 1 and len(zones) == 2  # noqa: PLR2004
        return leaf

    def _forget(self, leaf: Leaf) -> None:
        place, rack = leaf.place, leaf.rack
        del self._leaves[place]
        if place.hypervisor:
            home = self.homes[place.region, place.hypervisor]
            del home[place]
            self._split -= len(home) == 1
            if not home:
                del self.homes[place.region, place.hypervisor]
        rack.zones[place.zone] -= 1
        if not rack.zones[place.zone]:
            del rack.zones[place.zone]
            self._split -= rack.known and len(rack.zones) == 1

    def _unrank(self, rack: Rack, leaf: Leaf | None) -> None:
        del self.order[bisect_left(self.order, rack.rank)]
        if leaf is not None:
            del rack.leaves[bisect_left(rack.leaves, leaf.rank())]

    def _rank(self, rack: Rack) -> None:
        rack.rank = rack.ranked()
        insort(self.order, rack.rank)

    def _sort(self) -> None:
        for leaf in self.leaves:
            leaf.rack.leaves.append(leaf.rank())
        for rack in self._racks.values():
            rack.leaves.sort()
            rack.rank = rack.ranked()
            self.order.append(rack.rank)
        self.order.sort()


def _named(names: Names, levels: Collection[Domain]) -> bool:
    return all(names[LEVEL[level]] for level in levels)


def shelf_of(counts: Mapping[Place, int]) -> Shelf:
    """The mapping as a shelf: itself, if it is one."""
    return counts if isinstance(counts, Shelf) else Shelf(counts)
