"""How many VMs a pool starts or gives up, and where."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    NOW,
    a_place,
    a_pool,
    a_server,
    a_view,
    a_vm,
    after,
    building,
    claimed,
    ready,
    some_facts,
)
from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.pool import ScaleDown
from warmpool.domain.cloud import Place
from warmpool.domain.facts import Vm
from warmpool.domain.pools import Hold, PoolFacts, VmView
from warmpool.planning.filling import to_build
from warmpool.planning.sizing import most_crowded, room, surplus, to_create, unclaimed


def held(*zones: str) -> Mapping[str, Hold]:
    return {zone: Hold(NOW, Reason.QUOTA_EXCEEDED, "no more") for zone in zones}


def zones_for(facts: PoolFacts, number: int) -> list[str]:
    """Where so many builds would go."""
    roomy = facts.pool.spec.model_copy(
        update={"replicas": unclaimed(facts) + number, "max_concurrent": 500}
    )
    more = replace(facts, pool=replace(facts.pool, spec=roomy))
    return [build.zone for build in to_build(more)]


def leaving(number: int = 1) -> Vm:
    return a_vm(number, Phase.TERMINATING, deleting=True)


def test_an_empty_pool_starts_as_many_builds_as_it_has_replicas() -> None:
    assert to_create(some_facts(replicas=3)) == 3


def test_claimed_vms_do_not_count_as_replicas() -> None:
    assert to_create(some_facts(claimed(1), claimed(2), replicas=3)) == 3


def test_a_vm_that_is_going_is_replaced_at_once() -> None:
    assert to_create(some_facts(a_view(leaving()), ready(2), replicas=2)) == 1


def test_what_is_being_created_counts_although_the_watch_does_not_show_it() -> None:
    assert to_create(some_facts(ready(), replicas=3, creating={"": 1})) == 1


def test_no_more_builds_are_in_flight_than_max_concurrent() -> None:
    facts = some_facts(building(1), replicas=9, creating={"": 1}, max_concurrent=4)
    assert to_create(facts) == 2


def landing(**fields: Any) -> VmView:
    """Its server is ACTIVE, and nobody has written that down yet."""
    vm = a_vm(1, Phase.BUILDING, dirty=fields.pop("dirty", False))
    return a_view(vm, a_server(1), **fields)


def test_a_build_that_nova_has_finished_makes_room_for_the_next_one_at_once() -> None:
    assert to_create(some_facts(landing(busy=True), replicas=9, max_concurrent=1)) == 1


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(
            some_facts(
                landing(),
                replicas=9,
                max_concurrent=1,
                health={"probe": {"tcpSocket": {"port": 22}}},
            ),
            id="its probe has not passed",
        ),
        pytest.param(
            some_facts(landing(not_before=after(1)), replicas=9, max_concurrent=1),
            id="it could not be written down",
        ),
        pytest.param(
            some_facts(landing(dirty=True), replicas=9, max_concurrent=1),
            id="it is to be built anew",
        ),
    ],
)
def test_a_build_is_in_flight_until_it_is_as_good_as_ready(facts: PoolFacts) -> None:
    assert to_create(facts) == 0


def test_the_pace_bounds_what_is_started() -> None:
    assert to_create(some_facts(replicas=9, tokens=2)) == 2


def test_max_size_counts_claimed_and_going_vms_and_those_being_created() -> None:
    facts = some_facts(
        claimed(1), a_view(leaving(2)), replicas=9, max_size=5, creating={"az1": 1, "az2": 1}
    )
    assert to_create(facts) == 1


def test_max_size_does_not_count_retained_vms() -> None:
    facts = some_facts(a_view(a_vm(1, retained=True), taken=True), replicas=1, max_size=1)
    assert to_create(facts) == 1


def test_a_pool_above_its_max_size_starts_nothing() -> None:
    assert to_create(some_facts(claimed(1), claimed(2), replicas=2, max_size=1)) == 0


def test_waiting_claims_raise_the_target_above_replicas() -> None:
    assert to_create(some_facts(ready(), replicas=1, wanted=4)) == 3


def test_a_target_of_waiting_claims_below_replicas_changes_nothing() -> None:
    assert to_create(some_facts(ready(), replicas=2, wanted=1)) == 1


def test_builds_go_to_the_emptiest_zone_first_and_then_in_turn() -> None:
    zones = ["az1", "az2"]
    facts = some_facts(a_view(a_vm(1, zone="az1")), availability_zones=zones)
    assert zones_for(facts, 4) == ["az2", "az1", "az2", "az1"]


def test_a_vm_built_anywhere_counts_in_the_zone_where_it_stands() -> None:
    vm = a_vm(1, zone="", place=a_place(zone="az2"))
    facts = some_facts(a_view(vm), availability_zones=["az1", "az2"])
    assert zones_for(facts, 1) == ["az1"]


def test_a_held_zone_is_passed_over() -> None:
    facts = some_facts(availability_zones=["az1", "az2"], holds=held("az1"))
    assert zones_for(facts, 2) == ["az2", "az2"]


def test_a_hold_on_the_pool_stops_all_zones() -> None:
    assert zones_for(some_facts(availability_zones=["az1"], holds=held("")), 2) == []


def test_nothing_is_built_when_every_zone_is_held() -> None:
    facts = some_facts(availability_zones=["az1", "az2"], holds=held("az1", "az2"))
    assert zones_for(facts, 2) == []


def test_without_zones_nova_chooses() -> None:
    assert zones_for(some_facts(), 2) == ["", ""]


def test_a_pool_of_the_right_size_gives_up_nothing() -> None:
    assert surplus(some_facts(ready(1), ready(2), replicas=2)) == []


def test_a_max_size_that_was_lowered_is_come_down_to_and_claimed_vms_stay() -> None:
    facts = some_facts(claimed(1), ready(2), ready(3), ready(4), replicas=3, max_size=3)
    assert len(surplus(facts)) == 1
    assert len(surplus(some_facts(claimed(1), claimed(2), ready(3), replicas=1, max_size=1))) == 1


def test_what_is_on_its_way_out_has_no_other_given_up_for_max_size() -> None:
    facts = some_facts(a_view(leaving(1)), claimed(2), ready(3), replicas=2, max_size=2)
    assert surplus(facts) == []


def test_builds_are_given_up_before_ready_vms_and_the_youngest_first() -> None:
    old = a_view(a_vm(1, Phase.BUILDING))
    young = a_view(a_vm(2, Phase.PENDING, created=NOW.replace(hour=13)))
    facts = some_facts(ready(3), old, young, replicas=1)
    assert [vm.uid for vm in surplus(facts)] == ["vm-2", "vm-1"]


def test_a_vm_with_an_action_under_way_is_not_given_up_and_no_other_in_its_stead() -> None:
    """A build whose fault is being read would cost a ready VM, and then another build."""
    facts = some_facts(building(1, busy=True), ready(2), replicas=1)
    assert surplus(facts) == []


def test_a_vm_whose_discarding_is_under_way_is_not_given_up_a_second_time_in_another() -> None:
    """The delete call takes its time; a pass meanwhile must not take the next VM instead."""
    facts = some_facts(ready(1, busy=True, leaving=True), ready(2), replicas=1)
    assert surplus(facts) == []


def bare(number: int, **fields: Any) -> VmView:
    """A VM that has no server yet."""
    return a_view(a_vm(number, Phase.PENDING, created=after(number)), **fields)


def test_of_more_vms_than_max_size_the_youngest_go_and_a_busy_one_is_waited_for() -> None:
    """None goes in its stead, and none of the others is given a server meanwhile."""
    vms = [claimed(1), claimed(2), ready(3), building(4), bare(5), bare(6), bare(7, busy=True)]
    facts = some_facts(*vms, replicas=5, max_size=5)
    assert [vm.uid for vm in surplus(facts)] == ["vm-6"]
    assert room(facts) == 0


@pytest.mark.parametrize("most", [None, 3])
def test_no_more_vms_than_max_size_are_none_too_many(most: int | None) -> None:
    facts = some_facts(claimed(1), ready(2), bare(3), replicas=2, max_size=most)
    assert surplus(facts) == []
    assert room(facts) is None


def test_servers_that_are_going_leave_no_room_for_those_of_builds_yet() -> None:
    facts = some_facts(a_view(leaving(1)), ready(2), bare(3), bare(4), replicas=3, max_size=3)
    assert surplus(facts) == []
    assert room(facts) == 1


def test_ready_vms_go_from_the_fullest_rack_and_in_it_from_the_fullest_hypervisor() -> None:
    vms = [
        a_vm(1, place=a_place(1, rack="r1")),
        a_vm(2, place=a_place(2, rack="r1")),
        a_vm(3, place=a_place(2, rack="r1")),
        a_vm(4, place=a_place(3, rack="r2")),
        a_vm(5, place=a_place(4, rack="r2")),
    ]
    assert [vm.uid for vm in most_crowded(vms, 3)] == ["vm-2", "vm-1", "vm-4"]


def test_of_vms_that_are_alike_the_oldest_goes() -> None:
    here = a_place()
    vms = [a_vm(1, place=here, ready_at=NOW.replace(hour=13)), a_vm(2, place=here)]
    assert [vm.uid for vm in most_crowded(vms, 1)] == ["vm-2"]


def test_no_more_vms_are_picked_than_there_are() -> None:
    assert [vm.uid for vm in most_crowded([a_vm(1)], 5)] == ["vm-1"]


def aged(number: int, hours: int, rack: str) -> VmView:
    """A ready VM that came to be some hours after noon."""
    place = a_place(number, rack=rack)
    return a_view(a_vm(number, place=place, ready_at=NOW.replace(hour=12 + hours)))


@pytest.mark.parametrize(
    ("policy", "gone"),
    [("MostCrowdedDomain", "vm-2"), ("Oldest", "vm-1"), ("Newest", "vm-4")],
)
def test_who_goes_first_is_a_matter_of_policy(policy: str, gone: str) -> None:
    vms = [aged(1, 0, "r1"), aged(2, 1, "r2"), aged(3, 2, "r2"), aged(4, 3, "r3")]
    facts = some_facts(*vms, replicas=3, scale_down=policy)
    assert [vm.uid for vm in surplus(facts)] == [gone]


@pytest.mark.parametrize(("policy", "gone"), [("Oldest", "vm-2"), ("Newest", "vm-3")])
def test_age_decides_only_among_those_that_leave_the_rest_spread(policy: str, gone: str) -> None:
    """By age alone the first or the last would go, and leave all the others in one rack."""
    vms = [aged(1, 0, "r1"), aged(2, 1, "r2"), aged(3, 2, "r2"), aged(4, 3, "r3")]
    rule = {"domain": "rack", "maxSkew": 1, "minDomains": 3}
    facts = some_facts(*vms, replicas=3, scale_down=policy, spread=[rule])
    assert [vm.uid for vm in surplus(facts)] == [gone]


@pytest.mark.parametrize("policy", list(ScaleDown))
def test_a_build_goes_before_a_ready_vm_whatever_the_policy(policy: str) -> None:
    facts = some_facts(ready(1), building(2), replicas=1, scale_down=policy)
    assert [vm.uid for vm in surplus(facts)] == ["vm-2"]


@settings(max_examples=settings().max_examples // 10)
@pytest.mark.parametrize("zones", [[], ["az1"], ["az1", "az2", "az3"]])
@given(number=st.integers(0, 30), there=st.lists(st.integers(0, 3), max_size=12))
def test_builds_leave_the_zones_as_even_as_they_can_be(
    zones: list[str], number: int, there: list[int]
) -> None:
    placed = [
        a_view(a_vm(n, zone=zones[z % len(zones)] if zones else "", place=Place()))
        for n, z in enumerate(there)
    ]
    facts = some_facts(*placed, pool=a_pool(availability_zones=zones))
    chosen = Counter(zones_for(facts, number))
    before = Counter(v.vm.zone for v in placed)
    assert sum(chosen.values()) == number
    after = before + chosen
    for zone in chosen:
        others = [after[z] for z in zones or [""]]
        assert after[zone] - min(others) <= 1


@settings(max_examples=settings().max_examples // 10)
@given(st.permutations(range(6)))
def test_the_order_of_vms_changes_nothing_about_who_goes(order: list[int]) -> None:
    vms = [a_vm(n, place=a_place(n % 3, rack=f"r{n % 2}")) for n in range(6)]
    assert most_crowded([vms[n] for n in order], 3) == most_crowded(vms, 3)


def test_pending_building_and_ready_vms_are_unclaimed_others_are_not() -> None:
    views = [a_view(a_vm(n, phase)) for n, phase in enumerate(Phase)]
    assert unclaimed(some_facts(*views, claimed(9), a_view(leaving(10)))) == 3
