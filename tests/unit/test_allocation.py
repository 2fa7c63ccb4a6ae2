"""Named cases of the planner: what is preferred, what is said, what is never said."""

from itertools import combinations

import pytest

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.claim import Mode
from warmpool.api.v1alpha1.pool import Claimable
from warmpool.domain.claims import (
    Ask,
    Demand,
    Domain,
    Fit,
    Limit,
    Pick,
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

DATA, MASTER, OTHER = Ref("search", "es-data"), Ref("search", "es-master"), Ref("search", "other")
RACK, HYPERVISOR, ZONE = Domain.RACK, Domain.HYPERVISOR, Domain.ZONE


def at(where: str) -> Place:
    """`r1/h1/z1`, each part empty where it is not known; `r1` alone has one hypervisor."""
    rack, hypervisor, zone, *_ = [*where.split("/"), "", ""]
    if "/" not in where:
        hypervisor = f"{rack}-h"
    return Place("R", zone or "z1", rack, hypervisor)


def stock(reserve: int = 0, /, **counts: int) -> Stock:
    return held(counts, reserve)


def held(counts: dict[str, int], reserve: int = 0) -> Stock:
    return Stock({at(where): count for where, count in counts.items()}, reserve)


def within(domain: Domain, asks: str, most: int | None = None, *, least: int | None = None,
           skew: int | None = None) -> Limit:  # fmt: skip
    return Limit(domain, frozenset(asks.split()), most, least, skew)


def data(count: int, *limits: Limit) -> Demand:
    return Demand((Ask("data", DATA, count),), limits)


def data_and_master(datas: int, masters: int, *limits: Limit) -> Demand:
    return Demand((Ask("data", DATA, datas), Ask("master", MASTER, masters)), limits)


def chosen(demand: Demand, supply: Supply) -> dict[str, list[tuple[str, int]]]:
    """Racks and hypervisors that each ask got, as they are written in the supply."""
    answer = allocate(demand, supply)
    assert isinstance(answer, Fit)
    got: dict[str, list[tuple[str, int]]] = {}
    for pick in answer.picks:
        place = pick.place
        plain = place.hypervisor == f"{place.rack}-h"
        name = place.rack if plain else f"{place.rack}/{place.hypervisor}"
        got.setdefault(pick.ask, []).append((name, pick.count))
    return got


def refused(demand: Demand, supply: Supply) -> tuple[Reason, str]:
    answer = allocate(demand, supply)
    assert isinstance(answer, Shortage)
    return answer.reason, answer.message


# --- what is preferred ----------------------------------------------------------------------


def test_one_vm_comes_from_the_most_crowded_rack_and_hypervisor() -> None:
    supply = {DATA: held({"r1/a": 4, "r2/b": 3, "r2/c": 2})}
    assert chosen(data(1), supply) == {"data": [("r2/b", 1)]}


def test_the_last_vm_of_a_rack_is_the_last_to_go() -> None:
    supply = {DATA: stock(r1=1, r2=2, r3=1)}
    assert chosen(data(1), supply) == {"data": [("r2", 1)]}


def test_among_equals_the_first_name_is_taken() -> None:
    supply = {DATA: stock(r3=2, r1=2, r2=2)}
    assert chosen(data(1), supply) == {"data": [("r1", 1)]}


def test_best_effort_prefers_other_hypervisors_to_crowded_ones() -> None:
    supply = {DATA: held({"r1/a": 9, "r1/b": 1, "r2/c": 1})}
    assert chosen(data(3), supply) == {"data": [("r1/a", 1), ("r1/b", 1), ("r2/c", 1)]}


def test_best_effort_prefers_other_racks_among_other_hypervisors() -> None:
    supply = {DATA: held({"r1/a": 5, "r1/b": 5, "r2/c": 1})}
    assert chosen(data(2), supply) == {"data": [("r1/a", 1), ("r2/c", 1)]}


def test_best_effort_never_fails_for_want_of_hypervisors() -> None:
    assert chosen(data(4), {DATA: stock(r1=4)}) == {"data": [("r1", 4)]}


def test_best_effort_is_spread_over_all_pools_of_the_claim() -> None:
    """The master leaves the crowded rack to the data node, which has no other."""
    supply = {DATA: stock(r1=5), MASTER: stock(r1=5, r2=1)}
    assert chosen(data_and_master(1, 1), supply) == {"data": [("r1", 1)], "master": [("r2", 1)]}


def test_vms_of_unknown_places_count_for_no_spread() -> None:
    supply = {DATA: held({"/": 9, "r1/a": 1, "r2/b": 1})}
    assert chosen(data(2), supply) == {"data": [("r1/a", 1), ("r2/b", 1)]}


def test_rack_aware_takes_the_crowded_racks_and_levels_them() -> None:
    supply = {DATA: stock(r1=1, r2=4, r3=3, r4=2)}
    claim = data(2, within(RACK, "data", 1))
    assert chosen(claim, supply) == {"data": [("r2", 1), ("r3", 1)]}


def test_a_limit_of_two_per_rack_levels_the_pool() -> None:
    supply = {DATA: stock(r1=5, r2=3, r3=2)}
    assert chosen(data(3, within(RACK, "data", 2)), supply) == {"data": [("r1", 2), ("r2", 1)]}


def test_a_pool_with_a_choice_makes_room_for_one_without() -> None:
    supply = {DATA: stock(r1=9, r2=2), MASTER: stock(r1=3)}
    claim = data_and_master(1, 1, within(RACK, "data master", 1))
    assert chosen(claim, supply) == {"data": [("r2", 1)], "master": [("r1", 1)]}


def test_asks_of_one_pool_share_its_vms() -> None:
    asks = (Ask("a", DATA, 2), Ask("b", DATA, 2))
    claim = Demand(asks, mode_limits(Mode.HYPERVISOR_AWARE, asks))
    supply = {DATA: held({"r1/a": 1, "r1/b": 1, "r2/c": 1, "r2/d": 1})}
    got = chosen(claim, supply)
    assert {name: len(picks) for name, picks in got.items()} == {"a": 2, "b": 2}
    assert {where for picks in got.values() for where, _ in picks} == {
        "r1/a",
        "r1/b",
        "r2/c",
        "r2/d",
    }


def test_a_rack_is_another_one_in_another_region() -> None:
    supply = {DATA: Stock({Place("R1", "z", "r1", "h1"): 1, Place("R2", "z", "r1", "h1"): 1})}
    assert isinstance(allocate(data(2, within(RACK, "data", 1)), supply), Fit)


def test_an_ask_for_nothing_is_met_with_nothing() -> None:
    assert allocate(data(0), {DATA: Stock({})}) == Fit(())


def test_modes_are_limits_over_all_asks() -> None:
    asks = data_and_master(3, 3).asks
    assert mode_limits(Mode.BEST_EFFORT, asks) == ()
    assert mode_limits(Mode.RACK_AWARE, asks) == (within(RACK, "data master", 1),)
    assert mode_limits(Mode.HYPERVISOR_AWARE, asks) == (within(HYPERVISOR, "data master", 1),)


def test_each_pool_uses_the_zones_that_its_own_limit_wants() -> None:
    supply = {
        DATA: held({"r1//z1": 9, "r2//z1": 9, "r3//z2": 3}),
        MASTER: held({"r1//z1": 1, "r3//z2": 9, "r4//z2": 9}),
    }
    claim = data_and_master(3, 3, within(ZONE, "data", least=2), within(ZONE, "master", least=2))
    got = chosen(claim, supply)
    assert {rack for rack, _ in got["data"]} & {"r3/"}
    assert {rack for rack, _ in got["master"]} & {"r1/"}


# --- limits that are searched ---------------------------------------------------------------

TRIANGLE = Demand(
    (Ask("a", DATA, 1), Ask("b", MASTER, 1), Ask("c", OTHER, 1)),
    (within(RACK, "a b", 1), within(RACK, "b c", 1), within(RACK, "a c", 1)),
)


def two_racks_each(count: int = 1) -> Stock:
    return stock(r1=count, r2=count)


def test_overlapping_limits_are_searched() -> None:
    supply = {DATA: two_racks_each(), MASTER: two_racks_each(), OTHER: stock(r1=1, r3=1)}
    got = chosen(TRIANGLE, supply)
    assert len({rack for picks in got.values() for rack, _ in picks}) == 3


def test_a_search_out_of_effort_is_no_refusal() -> None:
    supply = {DATA: stock(r1=3, r2=2, r3=1), MASTER: held({"r1/a/z1": 1, "r2/b/z2": 1})}
    claim = data_and_master(
        4,
        2,
        within(RACK, "data", least=2, skew=0),
        within(RACK, "master", 1),
        within(ZONE, "data master", 5),
    )
    assert isinstance(allocate(claim, supply), Fit)
    assert isinstance(allocate(claim, supply, effort=1e-9), Undecided)
    assert isinstance(allocate(claim, supply, effort=0), Undecided)


# --- what is said ---------------------------------------------------------------------------

REFUSALS = {
    "pool missing": (
        data_and_master(1, 1),
        {DATA: stock(r1=1)},
        Reason.POOL_NOT_FOUND,
        "pool search/es-master does not exist",
    ),
    "pools missing": (
        data_and_master(1, 1),
        {},
        Reason.POOL_NOT_FOUND,
        "pools search/es-data, search/es-master do not exist",
    ),
    "reserve": (
        data(6),
        {DATA: stock(2, r1=3, r2=3)},
        Reason.NOT_ENOUGH_READY,
        "pool search/es-data has 4 ready VMs, 6 are needed (2 more are held back as reserve)",
    ),
    "both pools short": (
        data_and_master(3, 2),
        {DATA: stock(r1=1), MASTER: stock()},
        Reason.NOT_ENOUGH_READY,
        ("pool search/es-data has 1 ready VM, 3 are needed; "
        "pool search/es-master has 0 ready VMs, 2 are needed"),
    ),
    "racks": (
        data(5, within(RACK, "data", 1)),
        {DATA: stock(r1=6, r2=6, r3=5)},
        Reason.NOT_ENOUGH_RACKS,
        "3 racks have ready VMs, 5 are needed; the other 14 ready VMs are on the same racks",
    ),
    "hypervisors": (
        data(3, within(HYPERVISOR, "data", 1)),
        {DATA: held({"r1/a": 2, "r1/b": 1})},
        Reason.NOT_ENOUGH_HYPERVISORS,
        ("2 hypervisors have ready VMs, 3 are needed; "
        "the other ready VM is on the same hypervisors"),
    ),
    "zones": (
        data(4, within(ZONE, "data", least=2)),
        {DATA: stock(r1=3, r2=3)},
        Reason.NOT_ENOUGH_ZONES,
        "1 zone has ready VMs, 2 are needed; the other 5 ready VMs are in the same zone",
    ),
    "several per rack": (
        data(5, within(RACK, "data", 2)),
        {DATA: stock(r1=6, r2=1)},
        Reason.NOT_ENOUGH_RACKS,
        "2 racks have ready VMs; with at most 2 per rack they can give 3, 5 are needed",
    ),
    "racks unknown": (
        data(5, within(RACK, "data", 1)),
        {DATA: held({"r1": 3, "/h1": 5, "/h2": 4})},
        Reason.RACKS_UNKNOWN,
        ("racks are not known for 9 of 12 ready VMs of pool search/es-data; "
        "5 where they are known are needed"),
    ),
    "hypervisors unknown": (
        data(5, within(HYPERVISOR, "data", 1)),
        {DATA: held({"r1": 3, "r2/": 4})},
        Reason.NOT_ENOUGH_HYPERVISORS,
        ("hypervisors are not known for 4 of 7 ready VMs of pool search/es-data; "
        "5 where they are known are needed"),
    ),
    "racks unknown to two asks": (
        Demand(
            (Ask("a", DATA, 2), Ask("b", DATA, 2)),
            (within(RACK, "a", 5), within(HYPERVISOR, "b", 5)),
        ),
        {DATA: held({"r1": 1, "r2/": 1, "/": 5, "/h": 1})},
        Reason.RACKS_UNKNOWN,
        ("racks or hypervisors are not known for 5 of 8 ready VMs of pool search/es-data; "
        "4 where they are known are needed"),
    ),
    "racks unknown in part": (
        data(3, within(RACK, "data", 1)),
        {DATA: held({"r1": 1, "r2": 2, "/h2": 4})},
        Reason.NOT_ENOUGH_RACKS,
        ("2 racks have ready VMs, 3 are needed; the other ready VM is on the same racks; "
        "racks are not known for 4 ready VMs"),
    ),
    "one ask of two": (
        data_and_master(3, 2, within(RACK, "data master", 1)),
        {DATA: stock(r1=2, r2=2, r3=2, r4=2), MASTER: stock(r1=3)},
        Reason.NOT_ENOUGH_RACKS,
        ("1 rack has ready VMs for master, 2 are needed; "
        "the other 2 ready VMs are on the same rack"),
    ),
    "two asks of three": (
        Demand(
            (Ask("a", DATA, 2), Ask("b", MASTER, 2), Ask("c", OTHER, 2)),
            (within(RACK, "a b c", 1), within(RACK, "c", least=2)),
        ),
        {
            DATA: stock(r1=3, r2=2, r3=2),
            MASTER: stock(r1=3, r2=1, r3=2),
            OTHER: stock(r4=1, r5=1, r6=1),
        },
        Reason.NOT_ENOUGH_RACKS,
        ("3 racks have ready VMs for a, b, 4 are needed; "
        "the other 10 ready VMs are on the same racks"),
    ),
    "skew": (
        data(4, within(RACK, "data", least=2, skew=0)),
        {DATA: stock(r1=3, r2=1)},
        Reason.CONSTRAINTS_UNSATISFIED,
        ("no placement has at least 2 racks and a skew of at most 0 between racks for data; "
        "pool search/es-data has 4 ready VMs on 2 racks"),
    ),
    "limits that meet badly": (
        data_and_master(
            2, 2, within(RACK, "data", 1), within(RACK, "data master", skew=0, least=2),
            within(HYPERVISOR, "data master", 2),
        ),
        {DATA: stock(r1=1, r2=2), MASTER: stock(r1=3)},
        Reason.CONSTRAINTS_UNSATISFIED,
        (
            "no placement has all of this: at most 1 per rack for data; at least 2 racks and "
            "a skew of at most 0 between racks for data, master; at most 2 per hypervisor for"
            " data, master; pool search/es-data has 3 ready VMs on 2 racks and 2 hypervisors;"
            " pool search/es-master has 3 ready VMs on 1 rack and 1 hypervisor; it would fit "
            "without at most 1 per rack for data"
        ),
    ),
    "a part that meets badly": (
        Demand((*TRIANGLE.asks, Ask("d", OTHER, 1)), TRIANGLE.limits),
        {DATA: two_racks_each(), MASTER: two_racks_each(), OTHER: two_racks_each()},
        Reason.CONSTRAINTS_UNSATISFIED,
        (
            "a, b, c: no placement of these 3 VMs by themselves keeps within the limits; pool"
            " search/es-data has 2 ready VMs on 2 racks; pool search/es-master has 2 ready "
            "VMs on 2 racks; pool search/other has 2 ready VMs on 2 racks"
        ),
    ),
    "more domains than VMs": (
        data(2, within(RACK, "data", least=3)),
        {DATA: stock(r1=6, r2=6, r3=6)},
        Reason.CONSTRAINTS_CONTRADICT,
        "2 VMs cannot use 3 racks",
    ),
    "none per domain": (
        data(1, within(RACK, "data", 0)),
        {DATA: stock(r1=6)},
        Reason.CONSTRAINTS_CONTRADICT,
        "1 VM cannot be placed with at most 0 per rack",
    ),
    "skew below zero": (
        data(1, within(RACK, "data", skew=-1)),
        {DATA: stock(r1=6)},
        Reason.CONSTRAINTS_CONTRADICT,
        "a skew of -1 between racks is below zero",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("demand", "supply", "reason", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_says_what_is_short(
    demand: Demand, supply: Supply, reason: Reason, message: str
) -> None:
    assert refused(demand, supply) == (reason, message)


def test_limits_that_fail_in_more_than_one_way_are_listed() -> None:
    supply = {DATA: held({"r0/a/z0": 1, "r0/b/z0": 1, "r1/c/z1": 1})}
    claim = data(3, within(ZONE, "data", skew=0), within(RACK, "data", skew=0))
    assert refused(claim, supply) == (
        Reason.CONSTRAINTS_UNSATISFIED,
        (
            "no placement has all of this: a skew of at most 0 between zones for data; "
            "a skew of at most 0 between racks for data; "
            "pool search/es-data has 3 ready VMs on 2 zones and 2 racks"
        ),
    )


def test_a_long_story_fits_into_the_status() -> None:
    """Six VMs, any two on different racks, five racks: no single limit is short of anything."""
    names = "abcdef"
    pools = {name: Ref("search", name) for name in names}
    asks = tuple(Ask(name, pool, 1) for name, pool in pools.items())
    pairs = tuple(within(RACK, f"{one} {other}", 1) for one, other in combinations(names, 2))
    supply = {pool: stock(r1=1, r2=1, r3=1, r4=1, r5=1) for pool in pools.values()}
    reason, message = refused(Demand(asks, pairs), supply)
    assert reason is Reason.CONSTRAINTS_UNSATISFIED
    assert message.startswith("no placement has all of this: at most 1 per rack for a, b; ")
    assert len(message) == 1000


TIGHT = {"r1/a/z1": 5, "r2/b/z2": 1, "r2/c/z2": 1, "r2/d/z2": 1}
"""Two per rack, or one per hypervisor, come to four VMs; both together to three."""


def both_tight(asks: str) -> tuple[Limit, Limit]:
    return (within(RACK, asks, 2), within(HYPERVISOR, asks, 1))


def test_a_refusal_names_the_limit_that_is_in_the_way() -> None:
    """What it would take a search to tell of the others is left out without effort."""
    claim = data(4, *both_tight("data"), within(ZONE, "data", skew=0))
    supply = {DATA: held(TIGHT)}
    reason, message = refused(claim, supply)
    assert allocate(claim, supply, effort=0) == Shortage(reason, message)
    assert reason is Reason.CONSTRAINTS_UNSATISFIED
    assert message.endswith("it would fit without at most 1 per hypervisor for data")


def test_asks_that_would_have_to_be_searched_are_passed_over() -> None:
    """`a` and `b` share a pool under different limits; `d` and `e` are what fails."""
    supply = {OTHER: held({"r1//z1": 5, "r2//z2": 1}), DATA: held(TIGHT), MASTER: held(TIGHT)}
    asks = (Ask("a", OTHER, 2), Ask("b", OTHER, 1), Ask("d", DATA, 2), Ask("e", MASTER, 2))
    claim = Demand(asks, (within(ZONE, "a", 1), *both_tight("d e")))
    answer = allocate(claim, supply, effort=0)
    assert isinstance(answer, Shortage)
    assert answer.message.startswith("d, e: no placement of these 4 VMs by themselves")


# --- how much could be claimed, and shelves -------------------------------------------------


def test_claimable_counts_what_is_known_and_not_reserved() -> None:
    counts = {"r1/a": 3, "r1/b": 1, "r2/c": 1, "/d": 2, "r3/": 1}
    assert claimable(held(counts)) == Claimable(any=8, distinct_hypervisors=4, distinct_racks=3)
    assert claimable(held(counts, 6)) == Claimable(any=2, distinct_hypervisors=2, distinct_racks=2)
    assert claimable(held(counts, 9)) == Claimable()


def test_a_shelf_gives_the_vms_of_a_fit_and_takes_them_back() -> None:
    shelf = Shelf({at("r1"): 2, at("r2"): 1})
    answer = allocate(data(1), {DATA: Stock(shelf)})
    assert answer == Fit((Pick("data", at("r1"), 1),))
    shelf.take(at("r1"))
    assert dict(shelf) == {at("r1"): 1, at("r2"): 1}
    shelf.add(at("r1"))
    assert dict(shelf) == {at("r1"): 2, at("r2"): 1}
    assert shelf[at("r1")] == shelf.count(at("r1")) == len(shelf) == 2


def test_what_is_taken_from_a_shelf_is_taken_from_the_part_that_is_known() -> None:
    shelf = Shelf({at("r1"): 2, at("/h9"): 1})
    part = shelf.known([Domain.RACK])
    assert dict(part) == {at("r1"): 2}
    shelf.take(at("r1"))
    shelf.take(at("/h9"))
    assert dict(part) == {at("r1"): 1}


def test_a_shelf_gives_no_more_than_it_has() -> None:
    shelf = Shelf({at("r1"): 2})
    with pytest.raises(ValueError, match="cannot take 3 of 2 VMs"):
        shelf.take(at("r1"), 3)
    with pytest.raises(ValueError, match="cannot take 1 of 0 VMs"):
        shelf.take(at("r2"))
    assert dict(shelf) == {at("r1"): 2}
