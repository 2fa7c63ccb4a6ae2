"""Who may pass whom. A later claim may pass one that waits, if it takes nothing that one could use.

What a waiting claim could use is kept from all claims behind it:

- for its requests without limits, as many VMs as they ask for, whichever they are;
- for those within limits, in each domain of each limited level, as many as they may have there.
  More than that in one domain they can never use, so the rest is free for others.

So a large claim is not starved by small ones that come after it, and small ones are not starved by
a large one that waits for a sixth rack while one rack is full of VMs. How long it may hold what it
holds, its `timeout` bounds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from warmpool.domain.claims import Ask, Demand, Domain, Limit, Stock
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.stock import Shelf

LEVELS = (Domain.HYPERVISOR, Domain.RACK, Domain.ZONE)
"""The finest first: what is kept there counts for the coarser levels too."""


class Line:
    """Demands that wait, in their order, and what they leave to whoever comes behind them.

    What those before have left is kept, so that a pass over a line of thousands works it out once
    for each of them, and not for each of them and each before it.
    """

    def __init__(self) -> None:
        self._asking: defaultdict[Ref, list[Demand]] = defaultdict(list)
        self._left: dict[Ref, _Left] = {}

    def add(self, demand: Demand) -> None:
        """One more waits, behind all others."""
        for pool in {ask.pool for ask in demand.asks}:
            self._asking[pool].append(demand)

    def left(self, pool: Ref, stock: Stock, version: object) -> Stock:
        """A pool's stock without what those could use that wait.

        Args:
            pool: whose stock it is.
            stock: what there is.
            version: another one whenever the counts are others.
        """
        asking = self._asking[pool]
        basis = (version, stock.reserve)
        known = self._left.get(pool)
        if known is None or known.basis != basis:
            known = _Left(basis, 0, stock)
        left = known.left
        for demand in asking[known.told :]:
            left = without(left, demand, pool)
        self._left[pool] = _Left(basis, len(asking), left)
        return left


@dataclass(frozen=True, slots=True)
class _Left:
    """What the first so many that ask a pool have left of it."""

    basis: object
    told: int
    left: Stock


def without(stock: Stock, demand: Demand, pool: Ref) -> Stock:
    """A pool's stock without what a demand that waits could use."""
    total = stock.counts.total if isinstance(stock.counts, Shelf) else sum(stock.counts.values())
    there = max(0, total - stock.reserve)
    if not there:
        return stock  # nobody behind gets anything: all that could be kept is kept
    asks = [ask for ask in demand.asks if ask.pool == pool]
    limited = [ask for ask in asks if any(ask.name in limit.asks for limit in demand.limits)]
    anywhere = sum(ask.count for ask in asks) - sum(ask.count for ask in limited)
    reserved = replace(stock, reserve=stock.reserve + min(anywhere, there))
    if not limited:
        return reserved
    kept = _kept(stock.counts, demand.limits, limited)
    rest = {place: count - kept[place] for place, count in stock.counts.items()}
    return replace(reserved, counts={place: count for place, count in rest.items() if count})


def _kept(counts: Mapping[Place, int], limits: Iterable[Limit], asks: list[Ask]) -> Counter[Place]:
    """How many VMs to keep at each place."""
    kept: Counter[Place] = Counter()
    names = {ask.name for ask in asks}
    for level in LEVELS:
        here = [limit for limit in limits if limit.domain is level and limit.asks & names]
        if here:
            _keep(counts, level, _Caps(_most(here, asks), _unlimited(here, asks)), kept)
    return kept


@dataclass(frozen=True, slots=True)
class _Caps:
    """How many VMs a demand could use at most: in one domain, and in none that is known."""

    known: int
    unknown: int


def _most(limits: Iterable[Limit], asks: Iterable[Ask]) -> int:
    """An upper bound on the asks' VMs in one domain of a level. Each limit bounds its own asks."""
    bounded = [limit for limit in limits if limit.max_per_domain is not None]
    alone: dict[str, int] = {}
    for ask in asks:
        alone[ask.name] = _lowest(ask.count, (li for li in bounded if ask.name in li.asks))
    total = sum(alone.values())
    together = (
        _lowest(total, [limit]) + sum(n for name, n in alone.items() if name not in limit.asks)
        for limit in bounded
    )
    return min([total, *together])


def _lowest(count: int, limits: Iterable[Limit]) -> int:
    return min([count, *(li.max_per_domain for li in limits if li.max_per_domain is not None)])


def _unlimited(limits: Iterable[Limit], asks: Iterable[Ask]) -> int:
    """VMs of asks that may stand where the domain of this level is not known."""
    bound = frozenset().union(*(limit.asks for limit in limits))
    return sum(ask.count for ask in asks if ask.name not in bound)


def _keep(counts: Mapping[Place, int], level: Domain, caps: _Caps, kept: Counter[Place]) -> None:
    domains: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for place in sorted(counts):
        name = getattr(place, level.value)
        domains[(place.region, name) if name else ("", "")].append(place)
    for (_, name), places in domains.items():
        missing = (caps.known if name else caps.unknown) - sum(kept[place] for place in places)
        for place in sorted(places, key=lambda p: (-counts[p], p)):
            more = max(0, min(counts[place] - kept[place], missing))
            kept[place] += more
            missing -= more
