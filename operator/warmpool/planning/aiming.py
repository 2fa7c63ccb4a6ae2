"""Where to build: at the racks and hypervisors with the fewest, within the rules and the room."""

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heapreplace
from typing import Final

from warmpool.api.v1alpha1.base import DomainName
from warmpool.domain.actions import CreateVm
from warmpool.domain.cloud import Place
from warmpool.domain.pools import PoolFacts, Site
from warmpool.planning.grouping import apart
from warmpool.planning.layout import Layout

PLENTY: Final = 1 << 30
"""Stands for room that is not known: Nova will tell."""

Key = tuple[int, bool, int, int, int, str, str]


def usable_zones(facts: PoolFacts) -> list[str]:
    """The zones that the pool builds in and that are not held."""
    if "" in facts.holds:
        return []
    return [zone for zone in facts.zones if zone not in facts.holds]


def open_sites(facts: PoolFacts) -> list[Site]:
    """Hypervisors with room in the zones that are built in."""
    zones, anywhere = set(usable_zones(facts)), facts.zones == [""]
    sites = [
        site
        for site in facts.survey.sites or ()
        if site.room != 0 and (site.place.zone in zones or (anywhere and zones))
    ]
    return apart(facts, sites) if facts.group else sites


def builds(facts: PoolFacts, layout: Layout, number: int) -> list[CreateVm]:
    """The next builds, at most so many. The layout has them all afterwards."""
    if facts.survey.sites is None:
        return list(_by_zone(facts, layout, number))
    return [aimed_at(facts, place) for place in _racks(facts, layout).take(number)]


def candidates(facts: PoolFacts, layout: Layout) -> list[Place]:
    """Where one build more could go, the best of each rack: first the one that `builds` takes."""
    return _racks(facts, layout).heads()


def aimed_at(facts: PoolFacts, place: Place) -> CreateVm:
    """A build at a place."""
    return CreateVm(place.zone if facts.zones != [""] else "", place.hypervisor)


def _racks(facts: PoolFacts, layout: Layout) -> "_Racks":
    named = facts.zones != [""]
    zones = {zone: facts.tally["zone", zone] for zone in facts.zones} if named else {}
    return _Racks(open_sites(facts), layout, zones)


def _by_zone(facts: PoolFacts, layout: Layout, number: int) -> Iterator[CreateVm]:
    """Evenly over the zones that are not held, the emptiest first; in them Nova chooses."""
    usable = usable_zones(facts)
    present = {zone: facts.tally["zone", zone] for zone in usable}
    for _ in range(number):
        allowed = [zone for zone in usable if layout.allows(Place(zone=zone))]
        if not allowed:
            return
        zone = min(allowed, key=lambda z: (present[z], usable.index(z)))
        present[zone] += 1
        layout.shift(Place(zone=zone), 1)
        yield CreateVm(zone)


class _Racks:
    """The sites by rack, in each the emptiest hypervisor first.

    Adding to the emptiest hypervisor of a rack never costs more than adding to another one of it,
    so one of each rack is all that has to be weighed.
    """

    def __init__(self, sites: Iterable[Site], layout: Layout, zones: dict[str, int]) -> None:
        self._layout = layout
        self._zones = zones
        self._racks: dict[tuple[str, str], list[tuple[int, int, str, Place]]] = {}
        counts = layout.counts[DomainName.HYPERVISOR]
        for site in sites:
            room = PLENTY if site.room is None else site.room
            rank = (counts[site.place.hypervisor], -room, site.place.hypervisor, site.place)
            self._racks.setdefault((site.place.zone, site.place.rack), []).append(rank)
        for hosts in self._racks.values():
            heapify(hosts)

    def take(self, number: int) -> Iterator[Place]:
        """Places for so many VMs, one after the other, as long as there are any."""
        for _ in range(number):
            best = min(filter(None, map(self._key, self._racks)), default=None)
            if best is None:
                return
            yield self._place_in((best[-2], best[-1]))

    def heads(self) -> list[Place]:
        """The place that each rack has next, the best first."""
        keys = sorted(filter(None, map(self._key, self._racks)))
        return [self._racks[key[-2], key[-1]][0][-1] for key in keys]

    def _key(self, rack: tuple[str, str]) -> Key | None:
        """Smaller is built in first. None: no VM may be built there."""
        here, _, _, place = self._racks[rack][0]
        if not self._layout.allows(place):
            return None
        cost = self._layout.cost_after(place, 1)
        in_rack = self._layout.counts[DomainName.RACK][place.rack]
        in_zone = self._zones.get(place.zone, 0)
        return (cost, not place.rack, in_zone, in_rack, here, *rack)

    def _place_in(self, rack: tuple[str, str]) -> Place:
        hosts = self._racks[rack]
        here, room, name, place = hosts[0]
        self._layout.shift(place, 1)
        if place.zone in self._zones:
            self._zones[place.zone] += 1
        if room < -1:
            heapreplace(hosts, (here + 1, room + 1, name, place))
        else:
            heappop(hosts)
        if not hosts:
            del self._racks[rack]
        return place
