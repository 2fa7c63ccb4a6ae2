"""How many VMs must be built before a claim can be satisfied: the least, by brute force."""

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from builders import POOL, a_place
from warmpool.domain.claims import Ask, Demand, Domain, Fit, Limit, Stock
from warmpool.domain.cloud import Place
from warmpool.domain.ids import Ref
from warmpool.planning.allocation import allocate
from warmpool.planning.missing import missing

OTHER = Ref("search", "master")
RACKS = Limit(Domain.RACK, frozenset({"a"}), max_per_domain=1)


def asking(count: int, *limits: Limit) -> Demand:
    return Demand((Ask("a", POOL, count),), limits)


def test_a_claim_that_can_be_had_needs_nothing() -> None:
    assert missing(asking(2), {POOL: Stock({a_place(): 2})}) == {}


def test_vms_that_are_short_are_built() -> None:
    assert missing(asking(5), {POOL: Stock({a_place(): 2})}) == {POOL: 3}


def test_the_reserve_is_built_besides() -> None:
    assert missing(asking(1), {POOL: Stock({a_place(): 1}, reserve=1)}) == {POOL: 1}


def test_racks_that_are_short_are_built_however_many_vms_there_are() -> None:
    assert missing(asking(3, RACKS), {POOL: Stock({a_place(): 9})}) == {POOL: 2}


def test_what_no_building_could_satisfy_is_not_built() -> None:
    contradiction = Limit(Domain.RACK, frozenset({"a"}), min_domains=3)
    assert missing(asking(2, contradiction), {POOL: Stock({})}) == {}


def test_nothing_is_built_for_a_pool_that_is_not_there() -> None:
    assert missing(asking(1), {OTHER: Stock({})}) == {}


PLACES = [a_place(n, rack=f"r{n // 2}") for n in range(3)]


@st.composite
def a_question(draw: st.DrawFn) -> tuple[Demand, dict[Ref, Stock]]:
    asks = tuple(
        Ask(name, draw(st.sampled_from((POOL, OTHER))), draw(st.integers(1, 3))) for name in "ab"
    )
    limits = draw(
        st.lists(
            st.builds(
                Limit,
                st.sampled_from(Domain),
                st.sampled_from([frozenset("a"), frozenset("b"), frozenset("ab")]),
                max_per_domain=st.sampled_from([None, 1, 2]),
                min_domains=st.sampled_from([None, 1, 3]),
                max_skew=st.sampled_from([None, None, 0]),
            ),
            max_size=2,
        )
    )
    supply = {
        pool: Stock(
            draw(st.dictionaries(st.sampled_from(PLACES), st.integers(1, 2), max_size=3)),
            draw(st.sampled_from([0, 0, 1])),
        )
        for pool in (POOL, OTHER)
    }
    return Demand(asks, tuple(limits)), supply


def grown(supply: dict[Ref, Stock], more: dict[Ref, int]) -> dict[Ref, Stock]:
    """So many more VMs per pool, each in a zone, a rack and on a hypervisor of its own."""
    return {
        pool: Stock(
            dict(stock.counts)
            | {
                Place("", f"{pool}{n}", f"{pool}{n}", f"{pool}{n}"): 1
                for n in range(more.get(pool, 0))
            },
            stock.reserve,
        )
        for pool, stock in supply.items()
    }


@settings(max_examples=settings().max_examples // 5)
@given(a_question())
def test_what_is_missing_suffices_and_no_pool_could_build_less(
    question: tuple[Demand, dict[Ref, Stock]],
) -> None:
    demand, supply = question
    asked = [
        sum(a.count for a in demand.asks if a.pool == p) + supply[p].reserve for p in (POOL, OTHER)
    ]
    enough = {
        (one, other)
        for one, other in product(*(range(number + 1) for number in asked))
        if isinstance(allocate(demand, grown(supply, {POOL: one, OTHER: other})), Fit)
    }
    found = missing(demand, supply)
    numbers = (found.get(POOL, 0), found.get(OTHER, 0))
    if not enough or (0, 0) in enough:
        assert found == {}
        return
    assert numbers in enough
    assert not {c for c in enough - {numbers} if c[0] <= numbers[0] and c[1] <= numbers[1]}
