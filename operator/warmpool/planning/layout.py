"""How the unclaimed VMs of a pool lie over zones, racks and hypervisors, and what rules it breaks.

Counts, kept up to date as VMs are added and taken away in thought.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Final

from warmpool.api.v1alpha1.base import DomainName
from warmpool.api.v1alpha1.pool import Spread
from warmpool.domain.cloud import Place
from warmpool.domain.pools import UNDER_WAY, PoolFacts, Site, counts_for_size, heading_for

Levels = Mapping[DomainName, Counter[str]]

HERE: Final = "at"
"""First part of the marks that say where a VM stands."""


def domain_of(place: Place, level: DomainName) -> str:
    """The name of the domain that a place is in. Empty: not known."""
    match level:
        case DomainName.ZONE:
            return place.zone
        case DomainName.RACK:
            return place.rack
        case DomainName.HYPERVISOR:  # pragma: no branch - there is no other level
            return place.hypervisor


class Ruled:
    """The counts over the domains of one rule, and by how much they break it.

    What counts for the skew are domains that hold VMs or held them when counting began, and those
    that are known to have room. A VM whose domain is not known is nowhere.
    """

    def __init__(self, rule: Spread, counts: Mapping[str, int], room: Iterable[str]) -> None:
        self.rule = rule
        self.counts = Counter(dict.fromkeys(room, 0))
        self.counts.update({name: n for name, n in counts.items() if name and n > 0})
        self._cap = rule.max_per_domain or NO_CAP
        self._heights = Counter(self.counts.values())
        self._over = sum(max(n - self._cap, 0) for n in self.counts.values())

    def copied(self) -> "Ruled":
        return Ruled(self.rule, self.counts, self.counts)

    @property
    def used(self) -> int:
        """Domains that hold VMs."""
        return len(self.counts) - self._heights[0]

    def cost(self) -> int:
        """VMs that have to stand elsewhere for the rule to be kept."""
        return self._price(self._heights, self.used, self._over, self.counts.total())

    def cost_after(self, name: str, step: int) -> int:
        """The cost with one VM more (1) or less (-1) in a domain."""
        if not name:
            return self.cost()
        old = self.counts[name]
        new = old + step
        used = self.used + (new > 0) - (old > 0)
        over = self._over + max(new - self._cap, 0) - max(old - self._cap, 0)
        heights = dict(self._heights)
        if name in self.counts:
            heights[old] -= 1
        heights[new] = heights.get(new, 0) + 1
        return self._price(heights, used, over, self.counts.total() + step)

    def shift(self, name: str, step: int) -> None:
        """One VM more (1) or less (-1) in a domain."""
        if not name:
            return
        old = self.counts[name]
        new = old + step
        self._over += max(new - self._cap, 0) - max(old - self._cap, 0)
        if name in self.counts:
            self._heights[old] -= 1
        self._heights[new] += 1
        self.counts[name] = new

    def full(self, name: str) -> bool:
        """The domain may not have another VM."""
        return bool(name) and self.counts[name] >= self._cap

    def short_of(self) -> int:
        """Domains that are lacking, as far as there are VMs for them."""
        return self._short(self.used, self.counts.total())

    def span(self) -> tuple[int, int]:
        """VMs in the emptiest and in the fullest domain."""
        return _span(self._heights)

    def _price(self, heights: Mapping[int, int], used: int, over: int, total: int) -> int:
        askew = 0 if self.rule.max_skew is None else moves(heights, self.rule.max_skew)
        return over + self._short(used, total) + askew

    def _short(self, used: int, total: int) -> int:
        return max(min(self.rule.min_domains or 0, total) - used, 0)


NO_CAP: Final = 1 << 30


def _span(heights: Mapping[int, int]) -> tuple[int, int]:
    there = [height for height, domains in heights.items() if domains > 0]
    return min(there, default=0), max(there, default=0)


def moves(heights: Mapping[int, int], skew: int) -> int:
    """The fewest VMs that have to go to another domain until no two differ by more than the skew.

    Args:
        heights: how many domains hold so many VMs.
        skew: what is allowed.
    """
    low, high = _span(heights)
    if high - low <= skew:
        return 0

    def out_of_line(floor: int) -> tuple[int, int]:
        """VMs below a floor that are missing, and VMs above its ceiling."""
        missing = sum(max(floor - h, 0) * n for h, n in heights.items())
        return missing, sum(max(h - floor - skew, 0) * n for h, n in heights.items())

    while low < high:  # a higher floor has more missing and fewer above
        floor = (low + high) // 2
        missing, above = out_of_line(floor)
        low, high = (low, floor) if missing >= above else (floor + 1, high)
    return min(max(out_of_line(low)), max(out_of_line(low - 1)))


class Layout:
    """Where the unclaimed VMs of a pool stand, those on their way included as far as is known."""

    def __init__(self, rules: Iterable[Spread], counts: Levels, sites: Iterable[Site]) -> None:
        roomy = [site.place for site in sites if site.room != 0]
        self.counts = counts
        self.ruled = tuple(
            Ruled(
                rule,
                counts[rule.domain],
                (name for place in roomy if (name := domain_of(place, rule.domain))),
            )
            for rule in rules
        )

    def copied(self) -> "Layout":
        """One to think with."""
        twin = copy(self)
        twin.counts = {level: counts.copy() for level, counts in self.counts.items()}
        twin.ruled = tuple(ruled.copied() for ruled in self.ruled)
        return twin

    def cost(self) -> int:
        """By how much the rules are broken, all together; 0: not at all."""
        return sum(ruled.cost() for ruled in self.ruled)

    def cost_after(self, place: Place, step: int) -> int:
        """The cost with one VM more (1) or less (-1) at a place."""
        return sum(r.cost_after(domain_of(place, r.rule.domain), step) for r in self.ruled)

    def shift(self, place: Place, step: int) -> None:
        """One VM more (1) or less (-1) at a place."""
        for level, counts in self.counts.items():
            counts[domain_of(place, level)] += step
        for ruled in self.ruled:
            ruled.shift(domain_of(place, ruled.rule.domain), step)

    def allows(self, place: Place) -> bool:
        """Another VM there breaks no `maxPerDomain`."""
        return not any(ruled.full(domain_of(place, ruled.rule.domain)) for ruled in self.ruled)


def layout_of(facts: PoolFacts) -> Layout:
    """The layout of a pool as it is."""
    counts: dict[DomainName, Counter[str]] = {level: Counter() for level in DomainName}
    for mark, number in facts.tally.items():
        if mark[0] == HERE and number > 0:
            for level, name in zip(DomainName, mark[1:], strict=True):
                counts[level][name] += number
    return Layout(facts.pool.spec.spread, counts, facts.survey.sites or ())


def ready_layout(facts: PoolFacts) -> Layout:
    """The layout without what is being built."""
    layout = layout_of(facts)
    for view in facts.vms:
        if counts_for_size(view) and view.vm.phase in UNDER_WAY:
            place = heading_for(view, facts.places)
            if place.zone or place.rack or place.hypervisor:
                layout.shift(place, -1)
    for hypervisor, number in facts.aiming.items():
        for _ in range(number if hypervisor in facts.places else 0):
            layout.shift(facts.places[hypervisor], -1)
    return layout
