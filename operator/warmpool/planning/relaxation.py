"""The part of a problem that is a flow, solved as one.

VMs flow from each group through the racks and places of its pool, then through the domains that
bounds count over several groups, each inside the next, to the sink. Bounds that do not nest so are
left out, and `least` and `skew` only make crowding dear. What comes out is thus an answer to a
weaker problem: none means that there is none to the whole; one may happen to keep within all
bounds; else somebody has to search.

Which bounds can be in it: one group's own bounds hang on the arcs of its own tree. The others have
nodes of their own behind that tree, and the sets of (group, place) that they count must be laminar.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from warmpool.domain.claims import Domain
from warmpool.domain.cloud import Place
from warmpool.planning.flow import FREE, Cost, Network
from warmpool.planning.problem import Bound, DomainKey, Group, Layout, Problem
from warmpool.planning.stock import LEVEL, Leaf, LeafRank, Rack, Shelf


@dataclass(frozen=True, slots=True)
class Relaxation:
    """What the flow found."""

    layout: Layout | None
    """None: proof that the problem has no answer."""
    left_out: frozenset[Bound]
    """Bounds that the flow did not see."""


@dataclass(frozen=True, slots=True)
class _Weights:
    """Price of each thing we would rather not do. Any sum of lesser ones is below one greater."""

    full: int
    """VMs in the fullest rack."""
    crowd_again: int
    crowd_steep: int
    hypervisor_again: int
    rack_again: int
    rack_last: int
    hypervisor_last: int
    rack_thin: int
    hypervisor_thin: int

    @classmethod
    def of(cls, problem: Problem) -> "_Weights":
        count = problem.count
        full = max((rank[5].left for g in problem.groups for rank in g.shelf.order), default=0)
        base = (count + 1) * (2 * max(full, count) + 3)
        powers = [base**power for power in range(7, -1, -1)]
        return cls(full, *powers)


def relax(problem: Problem, *, spread: bool) -> Relaxation:
    """Solve the flow. `spread`: VMs on different hypervisors, then racks, come before the rest."""
    nested = _nested(problem, spread=spread)
    bounds = _fitting(problem, nested=nested)
    left_out = frozenset(problem.bounds) - frozenset(bounds)
    if spread:
        everyone = frozenset(range(len(problem.groups)))
        levels = [Domain.HYPERVISOR, Domain.RACK] if nested else [Domain.HYPERVISOR]
        bounds = [Bound(level, everyone, None, 0, None) for level in levels]
    build = _Build(problem, bounds, nested=nested, spread=spread)
    return Relaxation(build.solve(), left_out)


def _nested(problem: Problem, *, spread: bool) -> bool:
    """Domains that are counted lie inside one another, over all pools. Racks alone always do."""
    levels = {bound.domain for bound in problem.bounds}
    if levels <= {Domain.RACK} and not spread:
        return True
    shelves = list({id(g.shelf): g.shelf for g in problem.groups}.values())
    if not all(shelf.nested for shelf in shelves):
        return False
    pairs = list(combinations(shelves, 2))
    if not all(_same_homes(one, other) for one, other in pairs):
        return False
    return Domain.ZONE not in levels or all(_same_zones(one, other) for one, other in pairs)


def _same_homes(one: Shelf, other: Shelf) -> bool:
    """Hypervisors that both know are in the same place for both."""
    homes = other.homes
    return all(homes.get(key, home) == home for key, home in one.homes.items())


def _same_zones(one: Shelf, other: Shelf) -> bool:
    """Racks that both know are in the same zone for both."""
    zones = {(leaf.names[0], leaf.names[2]): leaf.names[1] for leaf in one.leaves if leaf.names[2]}
    return all(
        zones.get((leaf.names[0], leaf.names[2]), leaf.names[1]) == leaf.names[1]
        for leaf in other.leaves
    )


def _fitting(problem: Problem, *, nested: bool) -> list[Bound]:
    """Bounds that can be in the flow together, the finest first."""
    chosen: list[Bound] = []
    for bound in sorted(problem.bounds, key=_finest_first):
        if _own(bound, nested=nested) or (
            _keeps_stock_whole(bound, problem.groups)
            and all(
                _own(inner, nested=nested) or _inside(inner, bound, nested=nested)
                for inner in chosen
            )
        ):
            chosen.append(bound)
    return chosen


def _finest_first(bound: Bound) -> tuple[int, int, list[int]]:
    return (-LEVEL[bound.domain], len(bound.groups), sorted(bound.groups))


def _own(bound: Bound, *, nested: bool) -> bool:
    """It can hang on its group's own tree of racks and places."""
    level = bound.domain
    return len(bound.groups) == 1 and (
        level is Domain.RACK or (level is Domain.HYPERVISOR and nested)
    )


def _inside(inner: Bound, outer: Bound, *, nested: bool) -> bool:
    if inner.groups.isdisjoint(outer.groups):
        return True
    return inner.groups <= outer.groups and (nested or inner.domain is outer.domain)


def _keeps_stock_whole(bound: Bound, groups: tuple[Group, ...]) -> bool:
    """No pool's VMs are wanted by groups inside and by groups outside the bound."""
    inside = {groups[g].pool for g in bound.groups}
    return all(g in bound.groups or group.pool not in inside for g, group in enumerate(groups))


class _Build:
    """One network, used once."""

    def __init__(
        self, problem: Problem, bounds: list[Bound], *, nested: bool, spread: bool
    ) -> None:
        self._problem = problem
        self._bounds = bounds
        self._nested = nested
        self._spread = spread
        self._weights = _Weights.of(problem)
        self._net = Network()
        self._source = self._net.node()
        self._sink = self._net.node()
        self._shared: dict[tuple[int, DomainKey], int] = {}
        self._stock: dict[tuple[object, Place], int] = {}
        self._arcs: list[list[tuple[int, Leaf]]] = []
        pools = [group.pool for group in problem.groups]
        self._several = {pool for pool in pools if pools.count(pool) > 1}

    def solve(self) -> Layout | None:
        for g, group in enumerate(self._problem.groups):
            self._arcs.append([])
            self._plant(g, group)
        count = self._problem.count
        if self._net.push(self._source, self._sink, count) < count:
            return None
        return [
            [(leaf, flow) for arc, leaf in arcs if (flow := self._net.flow(arc))]
            for arcs in self._arcs
        ]

    def _plant(self, g: int, group: Group) -> None:
        """The group's own tree, and what lies behind it."""
        own = {b.domain: b for b in self._bounds if g in b.groups and self._is_own(b)}
        chain = [i for i, b in enumerate(self._bounds) if g in b.groups and not self._is_own(b)]
        root = self._net.node()
        self._net.arc(self._source, root, group.count)
        for rack in self._racks(group):
            node = self._net.node()
            self._rack_arc(root, node, rack, own.get(Domain.RACK))
            for rank in self._leaves(g, group, rack):
                leaf = rank[3]
                behind = self._behind(group, chain, leaf)
                arc = self._leaf_arc(node, behind, leaf, own.get(Domain.HYPERVISOR))
                self._arcs[g].append((arc, leaf))

    def _is_own(self, bound: Bound) -> bool:
        return not self._spread and _own(bound, nested=self._nested)

    def _racks(self, group: Group) -> Iterable[Rack]:
        """Racks worth looking at.

        Beyond as many as the whole claim has VMs, a rack is never needed: one of those before it is
        unused and no worse. That argument needs domains that nest, and bounds that treat all unused
        racks alike, so none on zones.
        """
        order = group.shelf.order
        if self._all_matter(group) or any(b.domain is Domain.ZONE for b in self._bounds):
            return [rank[5] for rank in order]
        return [rank[5] for rank in order[: self._problem.count]]

    def _all_matter(self, group: Group) -> bool:
        """Unused ones are not alike: names are in several places, or missing where they matter."""
        unknown = group.shelf.unknown
        return not self._nested or (
            self._spread and bool(unknown[Domain.RACK] or unknown[Domain.HYPERVISOR])
        )

    def _leaves(self, g: int, group: Group, rack: Rack) -> list[LeafRank]:
        """Places worth looking at in a rack, by the same argument.

        Where the rack may give only so many, and the pool serves no other group, so many places
        are enough.
        """
        enough = self._problem.count
        mine = [b for b in self._bounds if g in b.groups]
        if self._all_matter(group):
            return rack.leaves
        if group.pool not in self._several and all(b.domain is Domain.RACK for b in mine):
            enough = min((b.most for b in mine if b.most is not None), default=enough)
        return rack.leaves[:enough]

    def _rack_arc(self, root: int, node: int, rack: Rack, bound: Bound | None) -> None:
        weights = self._weights
        again, steep = self._crowding(bound)
        cost = Cost(again, steep, always=2 * weights.rack_thin * weights.full)
        if rack.known:
            cost = Cost(again, steep, rack.left, weights.rack_last, weights.rack_thin, weights.full)
        most = rack.left if bound is None or bound.most is None else bound.most
        self._net.arc(root, node, min(most, rack.left), cost)

    def _leaf_arc(self, node: int, behind: int, leaf: Leaf, bound: Bound | None) -> int:
        weights = self._weights
        again, steep = self._crowding(bound)
        cost = Cost(again, steep, always=2 * weights.hypervisor_thin * weights.full)
        if leaf.names[3]:
            cost = Cost(
                again,
                steep,
                leaf.left,
                weights.hypervisor_last,
                weights.hypervisor_thin,
                weights.full,
            )
        most = leaf.left if bound is None or bound.most is None else bound.most
        return self._net.arc(node, behind, min(most, leaf.left), cost)

    def _crowding(self, bound: Bound | None) -> tuple[int, int]:
        """Bounds that count domains want many, each with few."""
        if bound is None or not bound.counted:
            return (0, 0)
        return (self._weights.crowd_again, self._weights.crowd_steep)

    def _behind(self, group: Group, chain: list[int], leaf: Leaf) -> int:
        """Where a VM flows once its place is chosen."""
        if group.pool not in self._several:
            return self._domain(chain, leaf)
        key = (group.pool, leaf.place)
        if key not in self._stock:
            self._stock[key] = self._net.node()
            self._net.arc(self._stock[key], self._domain(chain, leaf), leaf.left)
        return self._stock[key]

    def _domain(self, chain: list[int], leaf: Leaf) -> int:
        """The node of the first bound in the chain, made with those behind it."""
        if not chain:
            return self._sink
        bound = self._bounds[chain[0]]
        key = (chain[0], bound.key(leaf))
        if self._spread and not key[1][1]:
            return self._unknown(chain, leaf)
        if key not in self._shared:
            self._shared[key] = self._net.node()
            most = self._problem.count if bound.most is None else bound.most
            self._net.arc(
                self._shared[key], self._domain(chain[1:], leaf), most, self._shared_cost(bound)
            )
        return self._shared[key]

    def _shared_cost(self, bound: Bound) -> Cost:
        if self._spread:
            weights = self._weights
            on_rack = bound.domain is Domain.RACK
            return Cost(again=weights.rack_again if on_rack else weights.hypervisor_again)
        again, steep = self._crowding(bound)
        return Cost(again, steep) if again else FREE

    def _unknown(self, chain: list[int], leaf: Leaf) -> int:
        """Behind a domain that is not known: it counts as one that is used already."""
        node = self._net.node()
        on_rack = self._bounds[chain[0]].domain is Domain.RACK
        weights = self._weights
        price = weights.rack_again if on_rack else weights.hypervisor_again
        rest = self._domain(chain[1:], leaf)
        self._net.arc(node, rest, self._problem.count, Cost(always=price))
        return node
