"""How VMs lie, by how much that breaks the rules, and which of them leave for it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOW, a_place, a_pool, a_site, a_survey, a_view, a_vm, ready, some_facts
from warmpool.api.names import Phase
from warmpool.api.v1alpha1.base import DomainName
from warmpool.api.v1alpha1.pool import Spread
from warmpool.domain.cloud import Place
from warmpool.planning.crowd import Crowd
from warmpool.planning.layout import Layout, Ruled, layout_of, moves, ready_layout

RACK = DomainName.RACK
NAMES = ["", "r1", "r2", "r3", "r4"]

SOME = settings(max_examples=settings().max_examples // 2)

rules = st.builds(
    Spread,
    domain=st.sampled_from(DomainName),
    min_domains=st.none() | st.integers(1, 5),
    max_skew=st.none() | st.integers(1, 3),
    max_per_domain=st.none() | st.integers(1, 4),
)


def skew(most: int, domain: DomainName = RACK) -> Spread:
    return Spread(domain=domain, max_skew=most)


def ruled(rule: Spread, counts: dict[str, int], room: str = "") -> Ruled:
    return Ruled(rule, counts, room.split())


@pytest.mark.parametrize(
    ("rule", "counts", "room", "cost"),
    [
        pytest.param(skew(1), {}, "", 0, id="nothing is even"),
        pytest.param(skew(1), {"r1": 3, "r2": 2}, "", 0, id="within the skew"),
        pytest.param(skew(1), {"r1": 5, "r2": 2}, "", 1, id="one has to move"),
        pytest.param(skew(1), {"r1": 3}, "r1 r2", 1, id="an empty rack with room counts"),
        pytest.param(skew(1), {"r1": 3}, "r1", 0, id="a rack without room and VMs does not"),
        pytest.param(skew(1), {"r1": 2, "": 9}, "", 0, id="an unknown rack is nowhere"),
        pytest.param(
            Spread(domain=RACK, max_per_domain=2), {"r1": 3, "r2": 4, "r3": 1}, "", 3, id="crowded"
        ),
        pytest.param(Spread(domain=RACK, min_domains=3), {"r1": 5, "r2": 1}, "", 1, id="too few"),
        pytest.param(Spread(domain=RACK, min_domains=3), {"r1": 2}, "", 1, id="as far as VMs go"),
    ],
)
def test_what_breaks_a_rule_is_counted(
    rule: Spread, counts: dict[str, int], room: str, cost: int
) -> None:
    assert ruled(rule, counts, room).cost() == cost


@given(
    rules,
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 5)),
    st.sets(st.sampled_from(NAMES[1:])),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([1, -1])), max_size=8),
)
def test_counts_that_are_kept_up_to_date_cost_what_fresh_ones_do(
    rule: Spread, counts: dict[str, int], room: set[str], steps: list[tuple[str, int]]
) -> None:
    kept = Ruled(rule, counts, room)
    now = Counter({name: n for name, n in counts.items() if name})
    met = room | {name for name, n in now.items() if n}
    for name, step in steps:
        if name and now[name] + step < 0:
            continue
        foreseen = kept.cost_after(name, step)
        kept.shift(name, step)
        now[name] += step if name else 0
        met.add(name)
        assert foreseen == kept.cost() == Ruled(rule, now, met - {""}).cost()
        assert kept.cost() == kept.copied().cost()


def test_a_layout_counts_ready_vms_where_they_stand_and_builds_where_they_head_for() -> None:
    aimed = a_view(a_vm(2, Phase.BUILDING, aim="h2"))
    placed = a_view(a_vm(3, Phase.BUILDING), place=a_place(3))
    lost = a_view(a_vm(4, Phase.PENDING, aim="h9"))
    facts = some_facts(
        *(ready(1), aimed, placed, lost),
        survey=a_survey(a_site(1), a_site(2)),
        creating={"": 2},
        aiming={"h1": 1, "h9": 1},
    )
    assert layout_of(facts).counts[RACK] == {"r1": 2, "r2": 1, "r3": 1}
    assert +ready_layout(facts).counts[RACK] == {"r1": 1}


def test_a_copy_of_a_layout_leaves_it_as_it_is() -> None:
    layout = layout_of(some_facts(ready(1), pool=a_pool(spread=[{"domain": "rack", "maxSkew": 1}])))
    layout.copied().shift(a_place(1), 5)
    assert layout.counts[RACK] == {"r1": 1}
    assert layout.cost() == 0


def moved_at_least(heights: list[int], skew_: int) -> int:
    """The same by trying floor after floor."""
    return min(
        max(
            sum(max(floor - h, 0) for h in heights),
            sum(max(h - floor - skew_, 0) for h in heights),
        )
        for floor in range(max(heights) + 1)
    )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 4))
def test_the_fewest_moves_to_a_skew_are_found(heights: list[int], skew_: int) -> None:
    assert moves(Counter(heights), skew_) == moved_at_least(heights, skew_)


# --- who leaves ------------------------------------------------------------------------------


def where(hypervisor: int, racks: int, zones: int) -> Place:
    rack = hypervisor % racks
    return a_place(hypervisor, rack=f"r{rack}", zone=f"az{rack % zones}")


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Spread], list[Place]]:
    racks, zones = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    places = draw(st.lists(st.builds(where, st.integers(0, 7), st.just(racks), st.just(zones))))
    spread = draw(st.lists(rules, max_size=3, unique_by=lambda rule: rule.domain))
    return spread, places


def laid_out(spread: list[Spread], places: list[Place]) -> Layout:
    facts = some_facts(
        *(a_view(a_vm(n, place=place)) for n, place in enumerate(places)), pool=a_pool()
    )
    counts = layout_of(facts).counts
    return Layout(spread, counts, ())


@SOME
@given(crowds())
def test_nobody_else_who_leaves_would_leave_the_rules_less_broken(
    crowd: tuple[list[Spread], list[Place]],
) -> None:
    spread, places = crowd
    vms = [a_vm(n, place=place) for n, place in enumerate(places)]
    layout = laid_out(spread, places)
    left = list(vms)
    for gone in Crowd(layout.copied(), vms).leave(len(vms)):
        best = min(layout.cost_after(vm.place, -1) for vm in left)
        layout.shift(gone.place, -1)
        left.remove(gone)
        assert layout.cost() == best
    assert not left


def test_of_a_place_the_oldest_leaves_first() -> None:
    old, young = a_vm(1, place=a_place(1)), a_vm(2, place=a_place(1), ready_at=NOW.replace(hour=13))
    layout = laid_out([], [a_place(1), a_place(1)])
    assert list(Crowd(layout, [young, old]).leave(1)) == [old]


def test_nobody_leaves_where_nobody_is() -> None:
    assert list(Crowd(laid_out([], []), []).leave(3)) == []


def test_a_rule_outweighs_the_fullest_rack() -> None:
    """Rack r3 is the fullest, but it is all that its zone has."""
    racks = ["r1", "r1", "r2", "r2", "r3", "r3", "r3"]
    places = [a_place(n, rack=r, zone="az2" if r == "r3" else "az1") for n, r in enumerate(racks)]
    vms = [a_vm(n, place=place) for n, place in enumerate(places)]
    plain = list(Crowd(laid_out([], places), vms).leave(1))
    ruled_ = list(Crowd(laid_out([skew(1, DomainName.ZONE)], places), vms).leave(1))
    assert "az2" in {vm.place.zone for vm in plain}
    assert {vm.place.zone for vm in ruled_} == {"az1"}
