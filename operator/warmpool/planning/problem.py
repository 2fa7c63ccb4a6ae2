"""A demand made ready for the solvers: asks that differ in nothing are one group, limits are tight.

All solvers share these types. Which VMs of a group go to which of its asks does not matter to any
limit, so it is settled last, by `picks_of`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

from warmpool.domain.claims import Ask, Demand, Domain, Limit, Pick
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.stock import LEVEL, Leaf, Shelf

DomainKey = tuple[str, str]
"""Region and name: what makes a domain the same."""

Layout = list[list[tuple[Leaf, int]]]
"""Per group: so many VMs from each place."""


@dataclass(frozen=True, slots=True)
class Group:
    """Asks for VMs of one pool that are named by the same limits."""

    pool: Ref
    asks: tuple[Ask, ...]
    count: int
    shelf: Shelf
    """The pool's VMs that may serve the group: their domains are known where they are limited."""
    store: Shelf
    """All of the pool's VMs."""
    levels: frozenset[Domain]
    """Where the group is limited."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What is left of a limit once all that holds by itself is dropped."""

    domain: Domain
    groups: frozenset[int]
    most: int | None
    """VMs in one domain at most."""
    least: int
    """Domains used at least. 0: any number."""
    skew: int | None

    @property
    def counted(self) -> bool:
        """It says more than how many VMs a domain may hold: that is no flow."""
        return self.least > 0 or self.skew is not None

    def key(self, leaf: Leaf) -> DomainKey:
        """The domain that a place counts for."""
        return (leaf.names[0], leaf.names[LEVEL[self.domain]])


@dataclass(frozen=True, slots=True)
class Problem:
    """VMs for all groups within all bounds. Every pool has VMs enough, reserve included."""

    groups: tuple[Group, ...]
    bounds: tuple[Bound, ...]
    levels: frozenset[Domain]
    """Levels that any limit names, even if nothing of it is left."""

    @property
    def count(self) -> int:
        return sum(group.count for group in self.groups)


def problem_of(demand: Demand, shelves: Mapping[Ref, Shelf]) -> Problem:
    """Make it ready. The demand does not contradict itself and all its pools exist."""
    asks = sorted((ask for ask in demand.asks if ask.count > 0), key=lambda ask: ask.name)
    named: dict[tuple[Ref, tuple[bool, ...]], list[Ask]] = {}
    for ask in asks:
        key = (ask.pool, tuple([ask.name in limit.asks for limit in demand.limits]))
        named.setdefault(key, []).append(ask)
    groups = tuple(
        _group(pool, members, shelves[pool], compress(demand.limits, mask))
        for (pool, mask), members in named.items()
    )
    masks = [mask for _, mask in named]
    limits = (
        (limit, frozenset(g for g, mask in enumerate(masks) if mask[index]))
        for index, limit in enumerate(demand.limits)
    )
    levels = frozenset(limit.domain for limit in demand.limits if limit.asks)
    return Problem(groups, _bounds(limits, groups), levels)


def _group(pool: Ref, asks: list[Ask], shelf: Shelf, limits: Iterable[Limit]) -> Group:
    levels = frozenset(limit.domain for limit in limits)
    count = sum(ask.count for ask in asks)
    return Group(pool, tuple(asks), count, shelf.known(levels), shelf, levels)


def _bounds(
    limits: Iterable[tuple[Limit, frozenset[int]]], groups: Sequence[Group]
) -> tuple[Bound, ...]:
    """One bound for each level and set of groups, in an order that does not hang on the demand's.

    None for those that say nothing.
    """
    merged: dict[tuple[Domain, frozenset[int]], Bound] = {}
    for limit, members in limits:
        key = (limit.domain, members)
        bound = Bound(*key, limit.max_per_domain, limit.min_domains or 0, limit.max_skew)
        merged[key] = _both(merged[key], bound) if key in merged else bound
    tight = [_tight(b, sum(groups[g].count for g in b.groups)) for b in merged.values() if b.groups]
    telling = [bound for bound in tight if bound.most is not None or bound.counted]
    return tuple(sorted(telling, key=lambda b: (LEVEL[b.domain], len(b.groups), sorted(b.groups))))


def _both(one: Bound, other: Bound) -> Bound:
    return Bound(
        one.domain,
        one.groups,
        min((m for m in (one.most, other.most) if m is not None), default=None),
        max(one.least, other.least),
        min((s for s in (one.skew, other.skew) if s is not None), default=None),
    )


def _tight(bound: Bound, total: int) -> Bound:
    """The same bound without what follows from the rest of it."""
    most, least, skew = bound.most, bound.least, bound.skew
    if least == total > 1:
        most = 1
    if most is not None and most >= total:
        most = None
    largest = total if most is None else most
    if least <= 1 or -(-total // largest) >= least:
        least = 0
    if skew is not None and skew >= largest - 1:
        skew = None
    return Bound(bound.domain, bound.groups, most, least, skew)


def holds(bound: Bound, layout: Layout) -> bool:
    """Whether the layout keeps within the bound."""
    loads: Counter[DomainKey] = Counter()
    for g in bound.groups:
        for leaf, count in layout[g]:
            loads[bound.key(leaf)] += count
    fullest, emptiest = max(loads.values(), default=0), min(loads.values(), default=0)
    return (
        (bound.most is None or fullest <= bound.most)
        and len(loads) >= bound.least
        and (bound.skew is None or fullest - emptiest <= bound.skew)
    )


def picks_of(problem: Problem, layout: Layout) -> tuple[Pick, ...]:
    """Deal the VMs of each group to its asks. In the order of asks and places."""
    picks: dict[tuple[str, Place], int] = {}
    for group, leaves in zip(problem.groups, layout, strict=True):
        for name, place, count in _dealt(group, leaves):
            key = (name, place)
            picks[key] = picks.get(key, 0) + count
    made = [Pick(name, place, count) for (name, place), count in picks.items()]
    if len(made) > 1:
        made.sort(key=_by_ask_and_place)
    return tuple(made)


def _by_ask_and_place(pick: Pick) -> tuple[str, str, str, str, str]:
    place = pick.place
    return (pick.ask, place.region, place.zone, place.rack, place.hypervisor)


def _dealt(group: Group, leaves: list[tuple[Leaf, int]]) -> Iterable[tuple[str, Place, int]]:
    if len(group.asks) == 1:
        name = group.asks[0].name
        yield from [(name, leaf.place, count) for leaf, count in leaves]
        return
    rest = iter([leaf.place for leaf, count in leaves for _ in range(count)])
    for ask in group.asks:
        yield from [(ask.name, next(rest), 1) for _ in range(ask.count)]
