"""What a pool says of itself."""

from typing import Any

import pytest

from builders import (
    NOW,
    a_claim_ref,
    a_place,
    a_pool,
    a_site,
    a_survey,
    a_view,
    a_vm,
    after,
    building,
    claimed,
    ready,
    some_facts,
)
from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.base import Condition, ConditionStatus
from warmpool.api.v1alpha1.pool import Claimable, DomainCount, ResolvedTemplate, WarmPoolStatus
from warmpool.domain.catalogue import NoEntry
from warmpool.domain.pools import Hold, PoolFacts, Problem, Survey
from warmpool.planning.conditions import pool_status

HOLD = Hold(after(20), Reason.QUOTA_EXCEEDED, "quota exceeded for instances")
PROBLEM = Problem(Reason.IMAGE_NOT_FOUND, "no such image", "spec.template.image")
GOING = a_pool(deleting=True)
WITH_GROUP = {"flavor": "m1.micro", "image": "debian-13", "groupHint": "brain"}


def said(facts: PoolFacts) -> WarmPoolStatus:
    return pool_status(facts, Claimable(any=1), None)


def condition(facts: PoolFacts, kind: str) -> Condition:
    return next(c for c in said(facts).conditions if c.type == kind)


def test_the_counts_say_what_is_free_claimed_failed_and_retained() -> None:
    retained = a_view(a_vm(5, retained=True, claim=a_claim_ref()))
    failed = a_view(a_vm(6, Phase.FAILED))
    status = said(some_facts(ready(1), ready(2), building(3), claimed(4), retained, failed))
    assert (status.replicas, status.ready, status.building) == (3, 2, 1)
    assert (status.claimed, status.failed, status.retained) == (1, 1, 1)
    assert status.selector == "warmpool.dev/pool=data"


BY_REF = a_pool(
    template={"flavorRef": {"name": "g2"}},
    status=WarmPoolStatus(
        resolved=ResolvedTemplate(name="g2", flavor_id="f-1", image_id="i-1", time=NOW)
    ),
)


@pytest.mark.parametrize("reason", [Reason.CATALOGUE_UNAVAILABLE, Reason.ENTRY_MALFORMED])
def test_a_pool_that_goes_on_without_its_catalogues_newest_word_says_why(reason: Reason) -> None:
    stale = NoEntry(reason, "document 'g2': what is wrong")
    told = condition(some_facts(pool=BY_REF, stale=stale), "DependenciesResolved")
    assert (told.status, told.reason) == (ConditionStatus.TRUE, reason.value)
    assert "document 'g2': what is wrong" in told.message


@pytest.mark.parametrize("withdrawn", [False, True])
def test_what_an_entry_came_to_is_forgotten_when_it_is_taken_back(withdrawn: bool) -> None:
    problem = Problem(Reason.PROJECT_NOT_PERMITTED, "it is so", "")
    facts = some_facts(pool=BY_REF, problem=problem, withdrawn=withdrawn)
    assert (said(facts).resolved is None) == withdrawn


def test_racks_are_counted_in_their_order_without_retained_vms() -> None:
    placed = a_view(a_vm(3, Phase.BUILDING, place=a_place(3, rack="r1")))
    retained = a_view(a_vm(5, retained=True, claim=a_claim_ref()))
    facts = some_facts(ready(2), ready(1), placed, claimed(4), building(6), retained)
    assert said(facts).domains == [
        DomainCount(rack="r1", ready=1, building=1),
        DomainCount(rack="r2", ready=1),
        DomainCount(rack="r4", claimed=1),
    ]


@pytest.mark.parametrize(
    ("facts", "kind", "holds", "reason", "message"),
    [
        pytest.param(
            some_facts(ready(), replicas=1), "Ready", "True", "PoolFull", "1 of 1", id="full"
        ),
        pytest.param(some_facts(), "Ready", "False", "Filling", "0 of 3", id="filling"),
        pytest.param(some_facts(paused=True), "Ready", "False", "Paused", "0 of 3", id="paused"),
        pytest.param(
            some_facts(pool=GOING), "Ready", "False", "Deleting", "0 of 3", id="going is not ready"
        ),
        pytest.param(
            some_facts(problem=PROBLEM), "Ready", "False", "ImageNotFound", "", id="no image"
        ),
        pytest.param(
            some_facts(holds={"": HOLD}), "Ready", "False", "QuotaExceeded", "", id="held"
        ),
        pytest.param(
            some_facts(claimed(), max_size=1), "Ready", "False", "MaxSizeReached", "", id="at max"
        ),
        pytest.param(
            some_facts(building()), "Progressing", "True", "Filling", "1 building, 0", id="building"
        ),
        pytest.param(
            some_facts(a_view(a_vm(1, deleting=True)), replicas=0),
            "Progressing",
            "True",
            "Shrinking",
            "0 building, 1 on their way out",
            id="shrinking",
        ),
        pytest.param(
            some_facts(paused=True), "Progressing", "False", "Paused", "nothing is", id="still"
        ),
        pytest.param(
            some_facts(replicas=0), "Progressing", "False", "PoolFull", "nothing", id="at rest"
        ),
        pytest.param(some_facts(), "Progressing", "True", "Filling", "about", id="about to build"),
        pytest.param(
            some_facts(tokens=0, next_token=after(5)),
            "Progressing",
            "False",
            "Filling",
            "waiting for the refill pace until 12:00:05 UTC",
            id="out of tokens",
        ),
        pytest.param(
            some_facts(problem=PROBLEM, tokens=0),
            "Progressing",
            "False",
            "ImageNotFound",
            "no such image",
            id="stopped by a problem",
        ),
        pytest.param(
            some_facts(holds={"": HOLD}, tokens=0),
            "Progressing",
            "False",
            "QuotaExceeded",
            "quota exceeded",
            id="stopped by a hold",
        ),
        pytest.param(
            some_facts(claimed(), max_size=1),
            "Progressing",
            "False",
            "MaxSizeReached",
            "raise it, or release",
            id="stopped by maxSize",
        ),
        pytest.param(
            some_facts(ready(), pool=GOING),
            "Progressing",
            "True",
            "Deleting",
            "1 VMs are left",
            id="going",
        ),
        pytest.param(
            some_facts(claimed(), pool=GOING),
            "Progressing",
            "True",
            "WaitingForClaims",
            "1 VMs are claimed",
            id="waiting for claims",
        ),
        pytest.param(some_facts(), "CapacityAvailable", "True", "CapacityOk", "", id="room"),
        pytest.param(
            some_facts(holds={"az1": HOLD}),
            "CapacityAvailable",
            "False",
            "QuotaExceeded",
            "builds in zone 'az1' wait until 12:00:20 UTC: quota",
            id="no room in a zone",
        ),
        pytest.param(
            some_facts(holds={"": HOLD}),
            "CapacityAvailable",
            "False",
            "QuotaExceeded",
            "builds wait until",
            id="no room at all",
        ),
        pytest.param(
            some_facts(claimed(), max_size=1),
            "CapacityAvailable",
            "False",
            "MaxSizeReached",
            "maxSize 1",
            id="no room by maxSize",
        ),
        pytest.param(
            some_facts(claimed(), group="g", survey=Survey(group_members=1), template=WITH_GROUP),
            "CapacityAvailable",
            "False",
            "QuotaExceeded",
            "server group 'brain' has 1 members, and may have 1",
            id="no room in the server group",
        ),
        pytest.param(
            some_facts(claimed(), group="g", survey=a_survey(a_site(1)), template=WITH_GROUP),
            "CapacityAvailable",
            "False",
            "SpreadExhausted",
            "no hypervisor is left for server group 'brain', which has a VM on 1 of them",
            id="no hypervisor for the server group",
        ),
        pytest.param(some_facts(), "DependenciesResolved", "True", "Resolved", "", id="all there"),
        pytest.param(
            some_facts(cloud_ready=False),
            "DependenciesResolved",
            "Unknown",
            "Filling",
            "not been looked at",
            id="not known yet",
        ),
        pytest.param(
            some_facts(problem=PROBLEM),
            "DependenciesResolved",
            "False",
            "ImageNotFound",
            "spec.template.image: no such image",
            id="missing, with its field",
        ),
        pytest.param(
            some_facts(problem=Problem(Reason.CLOUD_UNAVAILABLE, "503")),
            "DependenciesResolved",
            "False",
            "CloudUnavailable",
            "503",
            id="missing, without a field",
        ),
    ],
)
def test_conditions_say_how_the_pool_stands(
    facts: PoolFacts, kind: str, holds: str, reason: str, message: str
) -> None:
    found = condition(facts, kind)
    assert (found.status.value, found.reason) == (holds, reason)
    assert message in found.message


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        pytest.param(some_facts(pool=GOING), "Deleting", id="going"),
        pytest.param(some_facts(replicas=0), "PoolFull", id="full"),
    ],
)
def test_one_word_tells_the_state(facts: PoolFacts, state: str) -> None:
    assert said(facts).state == state


def test_a_transition_time_stays_while_the_status_does() -> None:
    before = said(some_facts(replicas=0))
    later: dict[str, Any] = {"now": after(60)}
    same = condition(some_facts(pool=a_pool(replicas=0, status=before), **later), "Ready")
    assert same.last_transition_time == NOW
    other = condition(some_facts(pool=a_pool(replicas=1, status=before), **later), "Ready")
    assert (other.status, other.last_transition_time) == (ConditionStatus.FALSE, after(60))


def test_a_status_names_the_generation_that_it_was_computed_from() -> None:
    status = said(some_facts(pool=a_pool(generation=7)))
    assert status.observed_generation == 7
    assert {c.observed_generation for c in status.conditions} == {7}


def test_the_same_facts_give_the_same_status() -> None:
    facts = some_facts(ready(1), claimed(2))
    assert said(facts) == said(facts)
