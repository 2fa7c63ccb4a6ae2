"""The planner against brute force, in small worlds of every kind.

The oracle knows nothing of the planner but its types: it deals out VMs place by place and looks at
each limit by its words.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from random import Random
from typing import TypeVar

from hypothesis import event, given, settings
from hypothesis import strategies as st

from warmpool.api.v1alpha1.claim import Mode
from warmpool.domain.claims import (
    Ask,
    Demand,
    Domain,
    Fit,
    Limit,
    Shortage,
    Stock,
    Supply,
    Undecided,
)
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.allocation import allocate, mode_limits
from warmpool.planning.claimable import claimable
from warmpool.planning.stock import Shelf

POOLS = (Ref("search", "data"), Ref("search", "master"))
NAMES = ("a", "b", "c")


T = TypeVar("T")

WORLDS = settings(max_examples=max(1000, settings().max_examples))
"""Random worlds for what is exact: each run has at least so many, the nightly one 20,000."""

FEWER = settings(max_examples=settings().max_examples // 2)
"""For properties that hold almost by construction."""


# --- the oracle -----------------------------------------------------------------------------


def domain_of(place: Place, level: Domain) -> tuple[str, str]:
    name = {
        Domain.ZONE: place.zone,
        Domain.RACK: place.rack,
        Domain.HYPERVISOR: place.hypervisor,
    }[level]
    return (place.region, name)


def may_serve(ask: Ask, place: Place, limits: tuple[Limit, ...]) -> bool:
    return all(domain_of(place, lim.domain)[1] for lim in limits if ask.name in lim.asks)


def within(limit: Limit, layout: Counter[tuple[str, Place]]) -> bool:
    """Whether the finished layout keeps within the limit."""
    loads: Counter[tuple[str, str]] = Counter()
    for (ask, place), count in layout.items():
        if ask in limit.asks and count:
            loads[domain_of(place, limit.domain)] += count
    most = max(loads.values(), default=0)
    least = min(loads.values(), default=0)
    return (
        (limit.max_per_domain is None or most <= limit.max_per_domain)
        and (limit.min_domains is None or len(loads) >= limit.min_domains)
        and (limit.max_skew is None or most - least <= limit.max_skew)
    )


def layouts(demand: Demand, supply: Supply) -> Iterator[Counter[tuple[str, Place]]]:
    """Every way to take the VMs that keeps within all limits, cut off only at full domains."""
    stock = {(pool, place): n for pool, s in supply.items() for place, n in s.counts.items()}
    for pool, held in supply.items():
        wanted = sum(ask.count for ask in demand.asks if ask.pool == pool)
        if wanted and wanted > sum(held.counts.values()) - held.reserve:
            return
    slots = [
        (ask, place, left)
        for ask in demand.asks
        for left, place in enumerate(reversed(list(supply[ask.pool].counts)))
        if may_serve(ask, place, demand.limits)
    ]
    yield from _dealt(slots, {ask.name: ask.count for ask in demand.asks}, stock, demand, Counter())


def _dealt(slots, missing, stock, demand, layout):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    if not any(missing.values()):
        if all(within(limit, layout) for limit in demand.limits):
            yield Counter(layout)
        return
    if not slots:
        return
    (ask, place, _), rest = slots[0], slots[1:]
    later = sum(stock[a.pool, p] for a, p, _ in rest if a.name == ask.name)
    for count in range(min(missing[ask.name], stock[ask.pool, place]) + 1):
        if missing[ask.name] - count > later:
            continue
        layout[ask.name, place] += count
        missing[ask.name] -= count
        stock[ask.pool, place] -= count
        caps = [Limit(lim.domain, lim.asks, lim.max_per_domain) for lim in demand.limits]
        if all(within(cap, layout) for cap in caps):
            yield from _dealt(rest, missing, stock, demand, layout)
        layout[ask.name, place] -= count
        missing[ask.name] += count
        stock[ask.pool, place] += count


def check(fit: Fit, demand: Demand, supply: Supply) -> None:
    """The fit is what was asked for, out of what there is, within every limit."""
    layout = Counter({(pick.ask, pick.place): 0 for pick in fit.picks})
    asks = {ask.name: ask for ask in demand.asks}
    given_by: Counter[tuple[Ref, Place]] = Counter()
    for pick in fit.picks:
        assert pick.count > 0
        assert may_serve(asks[pick.ask], pick.place, demand.limits)
        layout[pick.ask, pick.place] += pick.count
        given_by[asks[pick.ask].pool, pick.place] += pick.count
    assert len(layout) == len(fit.picks)
    for ask in demand.asks:
        assert sum(n for (name, _), n in layout.items() if name == ask.name) == ask.count
    for (pool, place), count in given_by.items():
        assert count <= supply[pool].counts[place]
    for pool, stock in supply.items():
        taken = sum(n for (of, _), n in given_by.items() if of == pool)
        assert not taken or sum(stock.counts.values()) - taken >= stock.reserve
    assert all(within(limit, layout) for limit in demand.limits)


# --- small worlds ---------------------------------------------------------------------------

NESTED = (
    [Place("", f"z{rack % 2}", f"r{rack}", f"h{rack}{host}") for rack in range(4) for host in "ab"],
    [Place("", "z0", f"r{rack}", f"h{rack}") for rack in range(6)],
    [Place(region, "z", f"r{rack}", f"h{rack}") for region in ("R1", "R2") for rack in range(3)],
    [Place("", "z", rack, host) for rack, host in (("", "h1"), ("r1", "h2"), ("r2", ""), ("", ""))],
)
TANGLED = (
    [Place("", "z1", f"r{i % 2}", f"h{i % 3}") for i in range(6)],
    [Place("", f"z{i % 2}", f"r{i % 3}", f"h{i % 4}") for i in range(7)],
    [Place("", "", rack, host) for rack in ("r1", "r2", "") for host in ("h1", "h2", "")],
    [Place("", zone, "r1", host) for zone in ("z1", "z2", "") for host in ("h1", "h2")],
)


@st.composite
def stocks(draw: st.DrawFn, worlds: tuple[list[Place], ...] = NESTED + TANGLED) -> Stock:
    places = draw(st.sampled_from(worlds))
    counts = draw(st.lists(st.sampled_from([1, 2, 1, 0, 3]), min_size=3, max_size=len(places)))
    return Stock(dict(zip(places, counts, strict=False)), draw(st.sampled_from([0, 0, 0, 0, 2])))


supplies = st.builds(lambda one, two: {POOLS[0]: one, POOLS[1]: two}, stocks(), stocks())
small = st.none() | st.integers(1, 3)
limits = st.builds(
    Limit,
    st.sampled_from(Domain),
    st.frozensets(st.sampled_from(NAMES), min_size=1),
    max_per_domain=st.none() | st.sampled_from([1, 1, 2, 3]),
    min_domains=small,
    max_skew=st.none() | st.none() | st.integers(0, 1),
)
caps = st.builds(
    Limit,
    st.sampled_from(Domain),
    st.frozensets(st.sampled_from(NAMES), min_size=1),
    max_per_domain=st.sampled_from([1, 2, 3]),
)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    names = NAMES[: draw(st.integers(1, 3))]
    asks = tuple(
        Ask(name, draw(st.sampled_from(POOLS)), draw(st.sampled_from([1, 2, 3]))) for name in names
    )
    kind = draw(st.sampled_from([limits, limits, caps]))
    chosen = draw(st.lists(kind, min_size=draw(st.sampled_from([1, 1, 2, 0])), max_size=3))
    everyone = frozenset(names)
    if draw(st.booleans()):
        chosen = [
            Limit(lim.domain, everyone, lim.max_per_domain, lim.min_domains, lim.max_skew)
            for lim in chosen
        ]
    return Demand(asks, tuple(chosen))


def kinds(demand: Demand) -> str:
    """What the statistics show: `pytest --hypothesis-show-statistics`."""
    said = {
        word
        for limit in demand.limits
        for word, value in (
            ("max", limit.max_per_domain),
            ("min", limit.min_domains),
            ("skew", limit.max_skew),
        )
        if value is not None
    }
    return "+".join(sorted(said)) or "no limits"


@WORLDS
@given(demands(), supplies)
def test_a_demand_is_met_exactly_when_brute_force_meets_it(
    demand: Demand, supply: dict[Ref, Stock]
) -> None:
    answer = allocate(demand, supply)
    possible = next(layouts(demand, supply), None) is not None
    event(f"{kinds(demand)}: {type(answer).__name__}")
    assert not isinstance(answer, Undecided)
    assert isinstance(answer, Fit) == possible
    if isinstance(answer, Fit):
        check(answer, demand, supply)
    else:
        assert 0 < len(answer.message) <= 1024


def shuffled(rng: Random, items: Iterable[T]) -> list[T]:
    known = list(items)
    return rng.sample(known, len(known))


@given(demands(), supplies)
def test_a_planner_without_effort_says_nothing_wrong(
    demand: Demand, supply: dict[Ref, Stock]
) -> None:
    """What it can tell without a search is right, and the rest is undecided."""
    answer = allocate(demand, supply, effort=0)
    event(type(answer).__name__)
    if isinstance(answer, Fit):
        check(answer, demand, supply)
    elif isinstance(answer, Shortage):
        assert isinstance(allocate(demand, supply), Shortage)


@FEWER
@given(demands(), supplies, st.randoms(use_true_random=False))
def test_the_order_of_inputs_changes_nothing(
    demand: Demand, supply: dict[Ref, Stock], rng: Random
) -> None:
    other_supply = {
        pool: Stock(dict(shuffled(rng, stock.counts.items())), stock.reserve)
        for pool, stock in shuffled(rng, supply.items())
    }
    other_demand = Demand(tuple(shuffled(rng, demand.asks)), tuple(shuffled(rng, demand.limits)))
    assert allocate(other_demand, other_supply) == allocate(demand, supply)


PARTLY = (Domain.RACK, Domain.HYPERVISOR)


@FEWER
@given(st.lists(st.tuples(st.sampled_from(list(chain(*NESTED, *TANGLED))), st.integers(-3, 3))))
def test_a_shelf_kept_up_to_date_equals_one_made_anew(
    changes: list[tuple[Place, int]],
) -> None:
    shelf, counts = Shelf(), Counter[Place]()
    for place, change in changes:
        if change > 0:
            shelf.add(place, change)
        elif -change <= counts[place] and change:
            shelf.take(place, -change)
        else:
            continue
        counts[place] += change
        shelf.known(PARTLY)
    fresh = Shelf(+counts)
    assert dict(shelf) == dict(fresh) == +counts
    assert shelf.facts() == fresh.facts()
    assert shelf.known(PARTLY).facts() == fresh.known(PARTLY).facts()


@WORLDS
@given(stocks())
def test_claimable_is_the_largest_claim_of_each_mode_that_fits(stock: Stock) -> None:
    told = claimable(stock)
    largest = {
        Mode.BEST_EFFORT: told.any,
        Mode.HYPERVISOR_AWARE: told.distinct_hypervisors,
        Mode.RACK_AWARE: told.distinct_racks,
    }
    for mode, count in largest.items():
        for asked in (count, count + 1):
            asks = (Ask("a", POOLS[0], asked),)
            demand = Demand(asks, mode_limits(mode, asks))
            fits = next(layouts(demand, {POOLS[0]: stock}), None) is not None
            assert fits == (asked == count)
            assert isinstance(allocate(demand, {POOLS[0]: stock}), Fit) == fits


# --- the choice among answers ---------------------------------------------------------------


@st.composite
def plain_demands(draw: st.DrawFn) -> Demand:
    """Demands whose choice is promised to be the best one, over nested places."""
    own_pools = draw(st.booleans())
    asks = (
        Ask("a", POOLS[0], draw(st.integers(1, 4))),
        Ask("b", POOLS[own_pools], draw(st.integers(1, 3))),
    )[: draw(st.integers(1, 2))]
    everyone = frozenset(ask.name for ask in asks)
    groups = [everyone]
    if own_pools:
        groups += [frozenset("a"), frozenset("b")]
    chosen = [
        Limit(level, names, max_per_domain=draw(st.integers(1, 2)))
        for names in draw(st.lists(st.sampled_from(groups), max_size=2))
        if names <= everyone
        for level in draw(st.lists(st.sampled_from(Domain), max_size=2, unique=True))
        if level is not Domain.ZONE or names == everyone
    ]
    return Demand(asks, tuple(chosen))


def merit(
    demand: Demand, supply: Supply, layout: Mapping[tuple[str, Place], int]
) -> tuple[int, ...]:
    """How good the answer is, by the words of `allocation`: greater is better."""
    asks = {ask.name: ask for ask in demand.asks}
    taken: Counter[tuple[Ref, Place]] = Counter()
    for (name, place), count in layout.items():
        taken[asks[name].pool, place] += count
    spread = [
        len({domain_of(p, level) for (_, p), n in layout.items() if n and domain_of(p, level)[1]})
        for level in (Domain.HYPERVISOR, Domain.RACK)
    ]
    left: dict[Domain, Counter[tuple[Ref, tuple[str, str]]]] = {
        Domain.RACK: Counter(),
        Domain.HYPERVISOR: Counter(),
    }
    for ask in {ask.pool: ask for ask in demand.asks}.values():
        for place, count in supply[ask.pool].counts.items():
            for level, counter in left.items():
                domain = domain_of(place, level)
                if domain[1] and may_serve(ask, place, demand.limits):
                    counter[ask.pool, domain] += count - taken[ask.pool, place]
    racks, hosts = left[Domain.RACK].values(), left[Domain.HYPERVISOR].values()
    return (
        *(spread if not demand.limits else ()),
        sum(n > 0 for n in racks),
        sum(n > 0 for n in hosts),
        -sum(n * n for n in racks),
        -sum(n * n for n in hosts),
    )


@WORLDS
@given(
    plain_demands(),
    st.sampled_from(NESTED).flatmap(
        lambda places: st.builds(
            lambda one, two: {POOLS[0]: one, POOLS[1]: two}, stocks((places,)), stocks((places,))
        )
    ),
)
def test_no_answer_is_better_than_the_one_chosen(demand: Demand, supply: dict[Ref, Stock]) -> None:
    answer = allocate(demand, supply)
    best = max((merit(demand, supply, layout) for layout in layouts(demand, supply)), default=None)
    if isinstance(answer, Fit):
        layout = {(pick.ask, pick.place): pick.count for pick in answer.picks}
        assert merit(demand, supply, layout) == best
    else:
        assert best is None
