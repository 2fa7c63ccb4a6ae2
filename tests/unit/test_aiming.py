"""Where builds go: fewest first, within the rules, the room and the zones that are not held."""

from collections import Counter
from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builders import NOW, a_place, a_pool, a_site, a_survey, a_view, a_vm, some_facts
from warmpool.api.names import Reason
from warmpool.api.v1alpha1.base import DomainName
from warmpool.domain.cloud import Place
from warmpool.domain.pools import Hold, PoolFacts, Site
from warmpool.planning.aiming import builds, open_sites
from warmpool.planning.layout import domain_of, layout_of

SOME = settings(max_examples=settings().max_examples // 2)


def aimed(facts: PoolFacts, number: int) -> list[str]:
    return [build.hypervisor for build in builds(facts, layout_of(facts), number)]


def test_racks_with_the_fewest_come_first_and_in_them_hypervisors_with_the_fewest() -> None:
    there = [a_view(a_vm(n, place=a_place(1, rack="r1"))) for n in range(2)]
    sites = a_site(1, rack="r1"), a_site(2, rack="r1"), a_site(3, rack="r2")
    assert aimed(some_facts(*there, survey=a_survey(*sites)), 4) == ["h3", "h3", "h2", "h3"]


def test_of_hypervisors_that_are_alike_the_roomiest_is_taken() -> None:
    sites = a_site(1, 3, rack="r1"), a_site(2, 9, rack="r1"), a_site(3, None, rack="r1")
    assert aimed(some_facts(survey=a_survey(*sites)), 3) == ["h3", "h2", "h1"]


def test_no_more_is_aimed_at_a_hypervisor_than_it_has_room_for() -> None:
    sites = a_site(1, 1), a_site(2, 0), a_site(3, 2)
    assert aimed(some_facts(survey=a_survey(*sites)), 9) == ["h1", "h3", "h3"]


def test_a_rack_that_is_known_comes_before_one_that_is_not() -> None:
    there = a_view(a_vm(1, place=a_place(1)))
    sites = a_site(1), a_site(2, rack="")
    assert aimed(some_facts(there, survey=a_survey(*sites)), 1) == ["h1"]


def test_zones_are_named_where_the_pool_names_them_and_filled_evenly() -> None:
    sites = a_site(1), a_site(2), a_site(3, zone="az2"), a_site(4, zone="az9")
    facts = some_facts(survey=a_survey(*sites), availability_zones=["az1", "az2"])
    chosen = builds(facts, layout_of(facts), 4)
    assert [(b.zone, b.hypervisor) for b in chosen] == [
        ("az1", "h1"),
        ("az2", "h3"),
        ("az1", "h2"),
        ("az2", "h3"),
    ]


def test_a_held_zone_is_not_aimed_at() -> None:
    hold = Hold(NOW, Reason.NO_VALID_HOST, "full")
    facts = some_facts(
        survey=a_survey(a_site(1), a_site(2, zone="az2")),
        availability_zones=["az1", "az2"],
        holds={"az1": hold},
    )
    assert aimed(facts, 2) == ["h2", "h2"]
    assert aimed(replace(facts, holds={"": hold}), 2) == []


def test_a_rule_on_racks_outweighs_even_zones() -> None:
    """az1 has two racks, az2 one: a skew of one over racks makes az1 twice as full."""
    sites = a_site(1), a_site(2), a_site(3, zone="az2")
    facts = some_facts(
        survey=a_survey(*sites),
        availability_zones=["az1", "az2"],
        spread=[{"domain": "rack", "maxSkew": 1}],
    )
    assert Counter(aimed(facts, 9)) == {"h1": 3, "h2": 3, "h3": 3}


def test_where_nova_chooses_a_zone_takes_no_more_than_its_rule_allows() -> None:
    facts = some_facts(
        availability_zones=["az1", "az2"], spread=[{"domain": "zone", "maxPerDomain": 1}]
    )
    assert [b.zone for b in builds(facts, layout_of(facts), 5)] == ["az1", "az2"]


# --- what holds of all ----------------------------------------------------------------------


@st.composite
def some_sites(draw: st.DrawFn, least: int = 0) -> list[Site]:
    racks, zones = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    rooms = draw(st.lists(st.none() | st.integers(0, 6), min_size=least, max_size=9))
    return [
        a_site(n, room, rack=f"r{n % racks}", zone=f"az{n % racks % zones}")
        for n, room in enumerate(rooms)
    ]


def a_rule(domain: DomainName) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries(
        {"domain": st.just(domain.value)},
        optional={
            "minDomains": st.integers(1, 4),
            "maxSkew": st.integers(1, 3),
            "maxPerDomain": st.integers(1, 4),
        },
    )


some_rules = st.lists(
    st.sampled_from(DomainName).flatmap(a_rule), max_size=3, unique_by=lambda rule: rule["domain"]
)


@st.composite
def any_facts(draw: st.DrawFn) -> PoolFacts:
    sites = draw(some_sites())
    places = [site.place for site in sites] + [a_place(20), a_place(21, rack="")]
    vms = [
        a_view(a_vm(n, place=place))
        for n, place in enumerate(draw(st.lists(st.sampled_from(places), max_size=8)))
    ]
    zones = draw(st.sampled_from([[], ["az0"], ["az0", "az1"]]))
    pool = a_pool(availability_zones=zones, spread=draw(some_rules))
    return some_facts(*vms, pool=pool, survey=a_survey(*sites))


@SOME
@given(any_facts(), st.integers(0, 12))
def test_builds_keep_to_room_zones_and_bounds(facts: PoolFacts, number: int) -> None:
    chosen = builds(facts, layout_of(facts), number)
    sites = {site.place.hypervisor: site for site in facts.survey.sites or ()}
    layout = layout_of(facts)
    taken: Counter[str] = Counter()
    assert len(chosen) <= number
    for build in chosen:
        site = sites[build.hypervisor]
        taken[build.hypervisor] += 1
        assert site.room is None or taken[build.hypervisor] <= site.room
        assert build.zone == (site.place.zone if facts.zones != [""] else "")
        assert layout.allows(site.place)
        layout.shift(site.place, 1)


@SOME
@given(any_facts(), st.integers(1, 12))
def test_no_build_is_left_out_that_could_be_made(facts: PoolFacts, number: int) -> None:
    layout = layout_of(facts)
    chosen = Counter(b.hypervisor for b in builds(facts, layout, number))
    if chosen.total() < number:
        for site in open_sites(facts):
            full = site.room is not None and chosen[site.place.hypervisor] >= site.room
            assert full or not layout.allows(site.place)


@SOME
@given(any_facts())
def test_no_other_place_would_break_the_rules_less(facts: PoolFacts) -> None:
    layout = layout_of(facts)
    allowed = [s.place for s in open_sites(facts) if layout.allows(s.place)]
    assume(allowed)
    [build] = builds(facts, layout.copied(), 1)
    chosen = facts.places[build.hypervisor]
    assert layout.cost_after(chosen, 1) == min(layout.cost_after(place, 1) for place in allowed)


@SOME
@given(any_facts(), st.integers(0, 9), st.randoms())
def test_the_order_of_hypervisors_changes_nothing(
    facts: PoolFacts, number: int, chance: object
) -> None:
    shuffled = list(facts.survey.sites or ())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    other = replace(facts, survey=a_survey(*shuffled))
    assert aimed(facts, number) == aimed(other, number)


@SOME
@given(st.sampled_from(DomainName), st.integers(1, 4), st.integers(1, 2), st.integers(1, 20))
def test_an_empty_pool_with_one_rule_is_filled_within_it(
    level: DomainName, racks: int, zones: int, number: int
) -> None:
    """Room enough everywhere: the skew is one at most, and as many domains are used as can be."""
    sites = [a_site(n, None, rack=f"r{n % racks}", zone=f"az{n % racks % zones}") for n in range(8)]
    rule = {"domain": level.value, "maxSkew": 1}
    facts = some_facts(survey=a_survey(*sites), spread=[rule])
    counts = Counter(domain_of(facts.places[name], level) for name in aimed(facts, number))
    there = {domain_of(site.place, level) for site in sites}
    assert max(counts.values()) - min(counts[name] for name in there) <= 1
    assert len(counts) == min(number, len(there))


@SOME
@given(some_sites(least=1), st.integers(1, 15))
def test_without_a_rule_a_pool_is_filled_so_that_it_is_most_claimable(
    sites: list[Site], number: int
) -> None:
    """No way of filling has more racks or hypervisors with a VM."""
    open_ = [site for site in sites if site.room != 0]
    facts = some_facts(survey=a_survey(*sites))
    chosen = [facts.places[name] for name in aimed(facts, number)]
    racks = {place.rack for place in chosen}
    assert len(racks) == min(len(chosen), len({site.place.rack for site in open_}))
    for rack in racks:
        here = [place.hypervisor for place in chosen if place.rack == rack]
        there = [s for s in open_ if s.place.rack == rack]
        assert len(set(here)) == min(len(here), len(there))


def test_a_hypervisor_without_a_rack_is_a_place_all_the_same() -> None:
    site = Site(Place("RegionOne", "az1", "", "h1"), 2)
    assert aimed(some_facts(survey=a_survey(site)), 3) == ["h1", "h1"]
