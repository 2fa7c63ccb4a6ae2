"""A pool that lies askew is mended one VM at a time, and says what it lacks."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    NOW,
    a_place,
    a_pool,
    a_site,
    a_survey,
    a_view,
    a_vm,
    after,
    building,
    ready,
    some_facts,
)
from warmpool.api.names import Phase, Reason
from warmpool.domain.actions import CreateVm, Discard
from warmpool.domain.cloud import Place
from warmpool.domain.pools import Headroom, Hold, Mending, PoolFacts, Site, Survey, VmView
from warmpool.planning.balance import balance
from warmpool.planning.layout import layout_of
from warmpool.planning.mending import AGAIN_MAX, better, mend
from warmpool.planning.plan import plan

SKEW = {"domain": "rack", "maxSkew": 1}
CAP = {"domain": "hypervisor", "maxPerDomain": 2}


def at(number: int, hypervisor: int, **place: Any) -> VmView:
    """A ready VM on `h<hypervisor>`, in rack `r<hypervisor>` unless told otherwise."""
    return a_view(a_vm(number, place=a_place(hypervisor, **place)))


def crowded(*more: VmView, **fields: Any) -> PoolFacts:
    """Three VMs in r1, none in r2, which has room."""
    there = {"replicas": 3, "spread": [SKEW], "survey": a_survey(a_site(1), a_site(2))}
    return some_facts(at(1, 1), at(2, 1), at(3, 1), *more, **(there | fields))


NOVA_CHOOSES = Survey(sites=None, unaimed="hosts are hidden")


def unaimed(*vms: VmView, **fields: Any) -> PoolFacts:
    """Three VMs in r1, one in r2, and Nova chooses."""
    there = {"replicas": 4, "spread": [SKEW], "survey": NOVA_CHOOSES}
    return some_facts(at(1, 1), at(2, 1), at(3, 1), at(4, 2), *vms, **(there | fields))


def test_a_pool_askew_builds_one_more_where_it_is_missing() -> None:
    assert plan(crowded()).actions == (CreateVm("", "h2"),)


def test_while_that_one_is_built_nothing_else_happens() -> None:
    begun = a_view(a_vm(4, Phase.BUILDING, aim="h2"), busy=True)
    assert plan(crowded(begun)).actions == ()
    assert plan(crowded(creating={"": 1}, aiming={"h2": 1})).actions == ()


def test_when_it_is_ready_one_of_the_crowd_goes() -> None:
    assert plan(crowded(at(4, 2))).actions == (Discard(a_vm(1, place=a_place(1)), SHRINKING),)


SHRINKING = Reason.SHRINKING


def test_a_zone_with_fewer_vms_does_not_draw_the_build_away_from_where_it_helps() -> None:
    """One more is as good in any rack. One more in r3 and one less in r1 would put racks askew.

    A pool with two racks in one zone and one in the other stayed askew for good.
    """
    held = {1: 1, 2: 4, 3: 4, 4: 1, 5: 3, 6: 2}
    spots = {n: {"rack": f"r{(n + 1) // 2}", "zone": "az2" if n > 4 else "az1"} for n in held}
    hosts = [n for n, vms in held.items() for _ in range(vms)]
    facts = some_facts(
        *(at(number, n, **spots[n]) for number, n in enumerate(hosts)),
        replicas=15,
        availability_zones=["az1", "az2"],
        spread=[SKEW, {"domain": "hypervisor", "maxSkew": 1}],
        survey=a_survey(*(a_site(n, **spots[n]) for n in held)),
    )
    assert mend(facts)[0] == (CreateVm("az1", "h1"),)
    assert balance(facts)[1] is Reason.MENDING


def test_one_build_too_many_of_a_pool_within_its_rules_is_given_up_as_ever() -> None:
    young = a_view(a_vm(3, Phase.BUILDING, aim="h2"))
    facts = some_facts(
        *(at(1, 1), at(2, 2), young),
        replicas=2,
        spread=[SKEW],
        survey=a_survey(a_site(1), a_site(2)),
    )
    assert plan(facts).actions == (Discard(young.vm, SHRINKING),)


@pytest.mark.parametrize(
    "over",
    [
        {"paused": True},
        {"tokens": 0},
        {"max_size": 3},
        {"holds": {"": Hold(after(9), Reason.NO_VALID_HOST, "full")}},
        {"cloud_ready": False},
        {"mending": Mending(1, 1, after(60))},
        {"survey": a_survey(a_site(1), a_site(2), headroom=Headroom(0))},
        {"survey": a_survey(a_site(1), a_site(2), done=False)},
        {"survey": a_survey(a_site(1), a_site(2, 0))},
        {"replicas": 2},
    ],
    ids=lambda over: next(iter(over)),
)
def test_nothing_is_mended_while_it_cannot_be(over: dict[str, Any]) -> None:
    assert mend(crowded(**over))[0] == ()


def test_a_pool_that_is_building_or_going_is_not_mended() -> None:
    assert mend(crowded(building(4), replicas=4))[0] == ()
    gone = crowded()
    assert mend(replace(gone, pool=replace(gone.pool, deleting=True)))[0] == ()


def test_a_hypervisor_above_its_bound_is_relieved() -> None:
    facts = some_facts(
        *(at(1, 1, rack="r"), at(2, 1, rack="r"), at(3, 1, rack="r")),
        replicas=3,
        spread=[CAP],
        survey=a_survey(a_site(1, rack="r"), a_site(2, rack="r")),
    )
    assert mend(facts)[0] == (CreateVm("", "h2"),)


def test_where_nova_chooses_an_attempt_is_made_and_after_that_one_in_longer_and_longer() -> None:
    facts, waits = unaimed(), []
    for _ in range(9):
        build, mending = mend(facts)
        assert build == (CreateVm(""),)
        assert mending.until is not None
        waits.append(mending.until - facts.now)
        assert mend(replace(facts, mending=mending))[0] == ()
        facts = replace(facts, mending=mending, now=mending.until)
    assert waits[:3] == [timedelta(minutes=n) for n in (1, 2, 4)]
    assert waits[-1] == AGAIN_MAX


def test_an_attempt_that_has_helped_is_followed_by_another_at_once() -> None:
    helped = Mending(4, 3, after(600))
    assert mend(unaimed(mending=helped))[0]


def test_the_end_of_the_wait_wakes_the_pool() -> None:
    waiting = Mending(1, 1, after(60))
    assert plan(unaimed(mending=waiting)).wake_at == after(60)


# --- to its end ------------------------------------------------------------------------------


def stepped(facts: PoolFacts) -> PoolFacts:
    """One VM more where it is aimed, or one less: what a plan asks for is done."""
    now = facts
    for action in plan(facts).actions:
        match action:
            case CreateVm(hypervisor=name):
                number = 1 + max((int(v.vm.uid[3:]) for v in now.vms), default=0)
                new = a_view(a_vm(number, place=facts.places[name]))
                now = replace(now, vms=(*now.vms, new), survey=shrunk(now.survey, name, 1))
            case Discard(vm=vm):
                left = tuple(v for v in now.vms if v.vm != vm)
                survey = shrunk(now.survey, vm.place.hypervisor, -1)
                now = replace(now, vms=left, survey=survey)
    return replace(now, mending=Mending())


def shrunk(survey: Survey, hypervisor: str, by: int) -> Survey:
    sites = tuple(
        Site(s.place, s.room - by) if s.place.hypervisor == hypervisor and s.room is not None else s
        for s in survey.sites or ()
    )
    return replace(survey, sites=sites)


rules = st.lists(
    st.sampled_from(
        [
            SKEW,
            CAP,
            {"domain": "zone", "maxSkew": 1},
            {"domain": "hypervisor", "maxSkew": 2},
            {"domain": "rack", "minDomains": 3},
            {"domain": "rack", "maxPerDomain": 3, "maxSkew": 2},
        ]
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda rule: str(rule["domain"]),
)


@st.composite
def askew(draw: st.DrawFn) -> PoolFacts:
    racks = draw(st.integers(1, 4))
    rooms = draw(st.lists(st.integers(0, 4), min_size=1, max_size=7))
    sites = [
        a_site(n, room, rack=f"r{n % racks}", zone=f"az{n % racks % 2}")
        for n, room in enumerate(rooms)
    ]
    places = draw(st.lists(st.sampled_from([site.place for site in sites]), max_size=8))
    vms = [a_view(a_vm(n, place=place)) for n, place in enumerate(places)]
    pool = a_pool(replicas=len(vms), spread=draw(rules))
    return some_facts(*vms, pool=pool, survey=a_survey(*sites))


@settings(max_examples=settings().max_examples // 2)
@given(askew())
def test_mending_comes_to_an_end_and_every_round_of_it_helps(facts: PoolFacts) -> None:
    """Never fewer VMs than there shall be, never more than one above."""
    target, cost = facts.target, layout_of(facts).cost()
    while mend(facts)[0]:
        more = stepped(facts)
        assert len(more.vms) == target + 1
        facts = stepped(more)
        assert len(facts.vms) == target
        assert layout_of(facts).cost() < cost
        cost = layout_of(facts).cost()
    assert plan(facts).actions == ()
    if cost:
        assert better(facts, layout_of(facts)) is None
        assert balance(facts)[1] in (Reason.NO_ROOM_ELSEWHERE, *FULL)


FULL = (Reason.NO_VALID_HOST, Reason.SPREAD_EXHAUSTED)


@settings(max_examples=settings().max_examples // 2)
@given(st.integers(1, 4), st.lists(st.integers(0, 7), min_size=1, max_size=10))
def test_with_room_everywhere_one_rule_is_always_kept_in_the_end(
    racks: int, where: list[int]
) -> None:
    sites = [a_site(n, None, rack=f"r{n % racks}") for n in range(8)]
    vms = [a_view(a_vm(n, place=sites[h].place)) for n, h in enumerate(where)]
    facts = some_facts(*vms, replicas=len(vms), spread=[SKEW], survey=a_survey(*sites))
    for _ in range(2 * len(vms)):
        facts = stepped(facts)
    assert balance(facts)[:2] == (True, Reason.SPREAD_KEPT)


# --- what is said ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "holds", "reason", "message"),
    [
        pytest.param(some_facts(ready()), True, "NoSpreadAsked", "no rule", id="no rule"),
        pytest.param(
            crowded(at(4, 2), at(5, 2), replicas=5),
            True,
            "SpreadKept",
            "2 to 3 VMs per rack, 2 racks used",
            id="kept",
        ),
        pytest.param(
            some_facts(at(1, 1), at(2, 2), replicas=2, spread=[SKEW]),
            True,
            "SpreadKept",
            "1 VMs per rack",
            id="even",
        ),
        pytest.param(
            crowded(),
            False,
            "Mending",
            "rack r1 has 3, rack r2 0, maxSkew 1 is asked; one VM more is about to be built",
            id="about to be mended",
        ),
        pytest.param(
            crowded(a_view(a_vm(4, Phase.BUILDING))),
            False,
            "Mending",
            "one VM more is being built",
            id="being mended",
        ),
        pytest.param(crowded(replicas=5), False, "Filling", "not full yet", id="not full"),
        pytest.param(crowded(paused=True), False, "Paused", "meanwhile: paused", id="paused"),
        pytest.param(
            crowded(max_size=3), False, "MaxSizeReached", "maxSize 3 is reached", id="at max"
        ),
        pytest.param(
            crowded(tokens=0, next_token=after(5)),
            False,
            "Filling",
            "waiting for the refill pace until 12:00:05",
            id="out of tokens",
        ),
        pytest.param(
            some_facts(
                *(at(1, 1), at(2, 1), at(3, 1), at(4, 2)),
                replicas=4,
                spread=[SKEW],
                survey=a_survey(a_site(1), a_site(2, 0)),
            ),
            False,
            "NoRoomElsewhere",
            "rack r1 has 3, rack r2 1, maxSkew 1 is asked; no hypervisor has room where",
            id="no room",
        ),
        pytest.param(
            unaimed(mending=Mending(1, 1, after(60))),
            False,
            "NovaChooses",
            "Nova chooses the hosts (hosts are hidden); tried again at 12:01:00 UTC",
            id="nova chooses",
        ),
        pytest.param(
            some_facts(
                *(at(1, 1, rack=""), at(2, 2, rack="")),
                replicas=2,
                spread=[SKEW],
                survey=NOVA_CHOOSES,
            ),
            None,
            "RacksUnknown",
            "no rack of a VM is known: hosts are hidden",
            id="racks unknown",
        ),
        pytest.param(
            crowded(spread=[{"domain": "rack", "minDomains": 2}]),
            False,
            "Mending",
            "1 racks are used, minDomains 2 is asked",
            id="too few racks",
        ),
        pytest.param(
            crowded(spread=[CAP]),
            False,
            "Mending",
            "hypervisor h1 has 3, maxPerDomain 2 is asked",
            id="crowded",
        ),
        pytest.param(
            some_facts(
                *(at(n, 1) for n in range(3)),
                replicas=3,
                spread=[SKEW],
                survey=a_survey(*(a_site(n) for n in range(1, 8))),
            ),
            False,
            "Mending",
            "rack r2, r3, r4 and 3 more 0",
            id="many racks",
        ),
    ],
)
def test_the_skew_is_told_and_why_it_stays(
    facts: PoolFacts, holds: bool | None, reason: str, message: str
) -> None:
    said = balance(facts)
    assert (said[0], said[1].value) == (holds, reason)
    assert message in said[2]


def test_a_vm_that_stands_nowhere_known_breaks_no_rule() -> None:
    vms = [a_view(a_vm(n, place=Place("RegionOne"))) for n in range(3)]
    facts = some_facts(*vms, replicas=3, spread=[SKEW], survey=NOVA_CHOOSES, now=NOW)
    assert balance(facts)[0] is True
