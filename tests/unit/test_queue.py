"""Who may pass whom: cases, and the rule itself against brute force in small worlds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import POOL, a_place
from doubles.checker import left_by
from warmpool.domain.claims import Ask, Demand, Domain, Fit, Limit, Stock
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning import queue
from warmpool.planning.allocation import allocate
from warmpool.planning.queue import Line

OTHER = Ref("search", "master")


def on(rack: int, hypervisor: int | None = None, zone: str = "az1") -> Place:
    return a_place(hypervisor or rack, rack=f"r{rack}", zone=zone)


def asking(count: int, *limits: Limit, pool: Ref = POOL, name: str = "a") -> Demand:
    return Demand((Ask(name, pool, count),), limits)


def apart(*asks: str, level: Domain = Domain.RACK, most: int = 1) -> Limit:
    return Limit(level, frozenset(asks or ("a",)), max_per_domain=most)


def free(stock: Stock) -> int:
    return max(0, sum(stock.counts.values()) - stock.reserve)


def test_with_nobody_waiting_all_is_left() -> None:
    supply = {POOL: Stock({on(1): 3})}
    assert left_by(supply, []) == supply


def test_a_waiting_claim_without_limits_keeps_as_many_as_it_asks_for() -> None:
    left = left_by({POOL: Stock({on(1): 3, on(2): 1}, reserve=1)}, [asking(2)])
    assert free(left[POOL]) == 1


def test_a_claim_that_waits_for_more_racks_leaves_what_it_can_never_use() -> None:
    left = left_by({POOL: Stock({on(1): 5, on(2): 1})}, [asking(6, apart())])
    assert dict(left[POOL].counts) == {on(1): 4}


def test_of_a_rack_the_place_with_most_vms_is_kept() -> None:
    left = left_by({POOL: Stock({on(1, 1): 1, on(1, 2): 2})}, [asking(2, apart())])
    assert dict(left[POOL].counts) == {on(1, 1): 1, on(1, 2): 1}


def test_what_is_kept_on_hypervisors_counts_for_their_rack() -> None:
    limits = (apart(level=Domain.HYPERVISOR), apart(most=2))
    left = left_by({POOL: Stock({on(1, 1): 3, on(1, 2): 3})}, [asking(4, *limits)])
    assert dict(left[POOL].counts) == {on(1, 1): 2, on(1, 2): 2}


def test_a_vm_whose_rack_is_not_known_is_of_no_use_where_racks_are_limited() -> None:
    nowhere = Place("RegionOne", "az1", "", "h1")
    left = left_by({POOL: Stock({nowhere: 2})}, [asking(2, apart())])
    assert dict(left[POOL].counts) == {nowhere: 2}


def test_a_limit_without_a_maximum_may_put_all_vms_in_one_domain() -> None:
    spread = Limit(Domain.RACK, frozenset("a"), min_domains=2)
    left = left_by({POOL: Stock({on(1): 5})}, [asking(3, spread)])
    assert dict(left[POOL].counts) == {on(1): 2}


def test_a_pool_that_is_not_asked_is_left_whole() -> None:
    supply = {POOL: Stock({on(1): 2}), OTHER: Stock({on(1): 2})}
    assert left_by(supply, [asking(2, pool=OTHER)])[POOL] == supply[POOL]


def test_a_pool_that_does_not_exist_is_passed_over() -> None:
    assert left_by({}, [asking(2)]) == {}


def test_what_several_waiting_claims_could_use_adds_up() -> None:
    left = left_by({POOL: Stock({on(1): 5})}, [asking(2, apart()), asking(2)])
    assert free(left[POOL]) == 2


def test_a_request_without_limits_beside_a_limited_one_keeps_its_vms_too() -> None:
    """Of five VMs in the only rack, one could serve `a` and three more `b`."""
    demand = Demand((Ask("a", POOL, 2), Ask("b", POOL, 3)), (apart("a"),))
    left = left_by({POOL: Stock({on(1): 5})}, [demand])
    assert free(left[POOL]) == 1


def test_requests_that_are_limited_each_for_itself_may_share_a_domain() -> None:
    demand = Demand((Ask("a", POOL, 2), Ask("b", POOL, 2)), (apart("a"), apart("b")))
    left = left_by({POOL: Stock({on(1): 5})}, [demand])
    assert dict(left[POOL].counts) == {on(1): 3}


def test_a_request_without_limits_may_use_vms_whose_rack_is_not_known() -> None:
    nowhere = Place("RegionOne", "az1", "", "h1")
    demand = Demand((Ask("a", POOL, 2), Ask("b", POOL, 1)), (apart("a"),))
    left = left_by({POOL: Stock({nowhere: 3})}, [demand])
    assert free(left[POOL]) == 2


def test_a_request_limited_at_another_level_may_use_vms_whose_rack_is_not_known() -> None:
    nowhere = Place("RegionOne", "az1", "", "h1")
    limits = (apart("a"), apart("b", level=Domain.ZONE, most=2))
    demand = Demand((Ask("a", POOL, 2), Ask("b", POOL, 2)), limits)
    left = left_by({POOL: Stock({nowhere: 9})}, [demand])
    assert dict(left[POOL].counts) == {nowhere: 5}


def test_a_limit_over_all_requests_bounds_what_they_may_have_together() -> None:
    demand = Demand((Ask("a", POOL, 2), Ask("b", POOL, 2)), (apart("a", "b", most=3),))
    left = left_by({POOL: Stock({on(1): 9})}, [demand])
    assert dict(left[POOL].counts) == {on(1): 6}


# --- the rule -------------------------------------------------------------------------------

POOLS = (POOL, POOL, OTHER)
"""Mostly one pool: claims are in one another's way there."""
PLACES = [
    Place("RegionOne", "az1", "r1", "h1"),
    Place("RegionOne", "az1", "r1", "h2"),
    Place("RegionOne", "az1", "r2", "h3"),
    Place("RegionOne", "az2", "", "h4"),
]
NAMES = ("a", "b")


@st.composite
def a_demand(draw: st.DrawFn) -> Demand:
    """Two requests, limited together, each for itself, or not at all."""
    asks = tuple(Ask(n, draw(st.sampled_from(POOLS)), draw(st.integers(1, 3))) for n in NAMES)
    limits = draw(
        st.lists(
            st.builds(
                Limit,
                st.sampled_from([Domain.RACK, Domain.RACK, Domain.HYPERVISOR, Domain.ZONE]),
                st.sampled_from([frozenset("a"), frozenset("b"), frozenset("ab")]),
                max_per_domain=st.sampled_from([1, 1, 2, None]),
                min_domains=st.sampled_from([None, None, 2]),
                max_skew=st.sampled_from([None, None, None, 0]),
            ),
            max_size=2,
        )
    )
    return Demand(asks, tuple(limits))


@st.composite
def a_supply(draw: st.DrawFn) -> dict[Ref, Stock]:
    return {
        pool: Stock(
            draw(st.dictionaries(st.sampled_from(PLACES), st.integers(1, 4), max_size=3)),
            draw(st.sampled_from([0, 0, 1])),
        )
        for pool in (POOL, OTHER)
    }


def without(supply: Mapping[Ref, Stock], demand: Demand, fit: Fit) -> dict[Ref, Stock]:
    """The supply after a demand was served."""
    pools = {ask.name: ask.pool for ask in demand.asks}
    left = {pool: Counter(stock.counts) for pool, stock in supply.items()}
    for pick in fit.picks:
        left[pools[pick.ask]][pick.place] -= pick.count
    return {pool: Stock(+left[pool], supply[pool].reserve) for pool in supply}


def with_more(supply: Mapping[Ref, Stock], more: list[tuple[Ref, Place]]) -> dict[Ref, Stock]:
    grown = {pool: Counter(stock.counts) for pool, stock in supply.items()}
    for pool, place in more:
        grown[pool][place] += 1
    return {pool: Stock(grown[pool], supply[pool].reserve) for pool in supply}


@st.composite
def a_wait(draw: st.DrawFn) -> tuple[dict[Ref, Stock], Demand, list[tuple[Ref, Place]]]:
    """A supply, a demand that waits, and VMs that would end its wait."""
    supply, demand = draw(a_supply()), draw(a_demand())
    fit = allocate(demand, supply)
    if not isinstance(fit, Fit):
        return supply, demand, []
    pools = {ask.name: ask.pool for ask in demand.asks}
    used = [(pools[pick.ask], pick.place) for pick in fit.picks]
    late = draw(st.lists(st.sampled_from(used), min_size=1, max_size=3, unique=True))
    now = {pool: Stock(Counter(stock.counts), stock.reserve) for pool, stock in supply.items()}
    for pool, place in late:
        now[pool] = Stock(+(Counter(now[pool].counts) - Counter([place])), now[pool].reserve)
    return now, demand, late


@settings(max_examples=settings().max_examples // 3)
@given(a_wait(), st.lists(a_demand(), max_size=1) | st.just([]))
def test_a_claim_that_passes_takes_nothing_that_a_waiting_one_could_ever_use(
    wait: tuple[dict[Ref, Stock], Demand, list[tuple[Ref, Place]]],
    others: list[Demand],
) -> None:
    """When the VMs come that it waits for, it fits with what the greediest claim has left."""
    supply, first, late = wait
    rest = left_by(supply, [first, *others])
    if not free(rest[POOL]) or isinstance(allocate(first, supply), Fit):
        return
    later = asking(free(rest[POOL]))
    served = allocate(later, rest)
    assert isinstance(served, Fit)
    left = without(supply, later, served)
    for future in (late, *([*late, (POOL, place)] for place in PLACES)):
        if isinstance(allocate(first, with_more(supply, future)), Fit):
            assert isinstance(allocate(first, with_more(left, future)), Fit), future


@settings(max_examples=settings().max_examples // 2)
@given(a_supply(), st.lists(a_demand(), max_size=3))
def test_no_more_is_left_than_there_was(supply: dict[Ref, Stock], waiting: list[Demand]) -> None:
    left = left_by(supply, waiting)
    assert left.keys() == supply.keys()
    for pool, stock in left.items():
        assert all(0 < n <= supply[pool].counts[place] for place, n in stock.counts.items())


def with_reserve(supply: dict[Ref, Stock]) -> dict[Ref, Stock]:
    return {pool: replace(stock, reserve=stock.reserve + 1) for pool, stock in supply.items()}


@given(a_supply(), a_supply(), st.lists(a_demand(), max_size=4))
def test_a_line_that_grows_leaves_what_one_that_stood_all_along_leaves(
    before: dict[Ref, Stock], after: dict[Ref, Stock], waiting: list[Demand]
) -> None:
    """It goes on from what it found, as long as the stock is the same; reserves may differ."""
    line = Line()
    for number in range(len(waiting) + 1):
        for version, supply in ((1, before), (1, before), (2, after), (2, with_reserve(after))):
            left = {pool: line.left(pool, stock, version) for pool, stock in supply.items()}
            assert left == left_by(supply, waiting[:number])
        if number < len(waiting):
            line.add(waiting[number])


def test_a_line_of_thousands_is_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was gone through from its beginning for each of them: five hundred took two seconds."""
    gone_through: list[Demand] = []

    one_by_one = queue.without

    def counted(stock: Stock, demand: Demand, pool: Ref) -> Stock:
        gone_through.append(demand)
        return one_by_one(stock, demand, pool)

    monkeypatch.setattr(queue, "without", counted)
    line, stock = Line(), Stock({on(1): 5000})
    for number in range(1000):
        assert free(line.left(POOL, stock, 1)) == 5000 - number
        line.add(asking(1))
    assert len(gone_through) == 999


def test_small_claims_do_not_starve_a_large_one() -> None:
    """Ten small ones come while it waits for its sixth VM: each VM that comes is kept for it."""
    large, small = asking(6), asking(1)
    supply = {POOL: Stock({on(1): 4})}
    for rack in range(2, 4):
        for _ in range(10):
            assert not isinstance(allocate(small, left_by(supply, [large])), Fit)
        supply = {POOL: Stock({**supply[POOL].counts, on(rack): 1})}
    assert isinstance(allocate(large, supply), Fit)


def test_a_large_claim_does_not_starve_small_ones() -> None:
    """It waits for a sixth rack while one rack is full of VMs: all but one of those are free."""
    large, small = asking(6, apart()), asking(1)
    supply = {POOL: Stock({on(1): 8, **{on(r): 1 for r in range(2, 6)}})}
    served = 0
    while isinstance(fit := allocate(small, left_by(supply, [large])), Fit):
        supply = without(supply, small, fit)
        served += 1
    assert served == 7
    assert sum(chain(supply[POOL].counts.values())) == 5
