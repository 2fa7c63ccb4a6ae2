"""Which VMs make room for newer ones: of an older template, or too old."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    NOW,
    REVISION,
    a_pool_spec,
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
from warmpool.api.v1alpha1.base import Condition
from warmpool.api.v1alpha1.pool import Claimable, Network, SecretKeyRef, Template
from warmpool.domain.actions import Build, CreateVm, Discard, Rebuild
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Hold, PoolFacts, Problem, VmView
from warmpool.planning.conditions import pool_status
from warmpool.planning.lifecycle import Rules, Step, next_step
from warmpool.planning.plan import plan
from warmpool.planning.revision import revision_of
from warmpool.planning.turnover import EARLIER, budget, expires_at, wants_all

HOLD = Hold(after(20), Reason.QUOTA_EXCEEDED, "no more")


def older(number: int = 1, phase: Phase = Phase.READY, **fields: object) -> VmView:
    """A VM of an older template."""
    vm = a_vm(number, phase, revision="older", **fields)
    return a_view(vm, a_server(number) if phase is Phase.READY else None)


def strategy(kind: str, most: object = "20%") -> dict[str, object]:
    return {"update_strategy": {"type": kind, "maxUnavailable": most}}


def ten(kind: str = "RollingUpdate", most: object = "20%", **fields: object) -> PoolFacts:
    """A full pool of ten whose template has changed."""
    views = [older(n) for n in range(10)]
    return some_facts(*views, replicas=10, **(strategy(kind, most) | fields))


def moves(facts: PoolFacts) -> Counter[object]:
    """How many of each kind of action; discards by their reason."""
    return Counter(
        a.reason if isinstance(a, Discard) else type(a).__name__ for a in plan(facts).actions
    )


def condition(facts: PoolFacts, kind: str) -> Condition:
    status = pool_status(facts, Claimable(), None)
    return next(c for c in status.conditions if c.type == kind)


# --- revisions ------------------------------------------------------------------------------

PLAIN = Template(flavor="f", image="i")


@pytest.mark.parametrize(
    "other",
    [
        Template(flavor="g", image="i"),
        Template(flavor="f", image="j"),
        Template(flavor="f", image="i", user_data="Zm9v"),
        Template(flavor="f", image="i", user_data_secret_ref=SecretKeyRef(name="s", key="k")),
        Template(flavor="f", image="i", networks=[]),
        Template(flavor="f", image="i", networks=[Network(network="lan")]),
        Template(flavor="f", image="i", metadata={"a": "1"}),
        Template(flavor="f", image="i", config_drive=True),
    ],
)
def test_whatever_a_template_says_is_in_its_revision(other: Template) -> None:
    assert revision_of(other) != revision_of(PLAIN)


def test_a_default_that_is_spelled_out_is_the_same_template() -> None:
    """The API server writes defaults into what users write; a newer one knows further fields."""
    spelled = Template(flavor="f", image="i", config_drive=False, tags=[], networks=None)
    assert revision_of(spelled) == revision_of(PLAIN)


def test_the_order_of_keys_is_none_of_the_revisions_business() -> None:
    one = Template(flavor="f", image="i", metadata={"a": "1", "b": "2"})
    assert revision_of(one) == revision_of(
        Template(image="i", flavor="f", metadata={"b": "2", "a": "1"})
    )


def test_a_revision_stays_what_it_is() -> None:
    """Another algorithm would have every pool rolled out at an update of the operator."""
    assert revision_of(PLAIN) == "2a206ef695"


# --- expiry ---------------------------------------------------------------------------------


@given(st.text(min_size=1), st.integers(60, 10**6))
def test_a_vm_expires_by_its_age_and_at_most_a_tenth_sooner(uid: str, age: int) -> None:
    spec, vm = a_pool_spec(expire_after=f"{age}s"), a_vm(uid=VmUid(uid))
    when = expires_at(vm, spec)
    assert when is not None
    assert NOW + timedelta(seconds=age * (1 - EARLIER)) < when <= NOW + timedelta(seconds=age)
    assert when == expires_at(vm, spec)


def test_vms_that_were_built_together_do_not_expire_together() -> None:
    spec = a_pool_spec(expire_after="168h")
    times = [expires_at(a_vm(n), spec) for n in range(100)]
    assert len(set(times)) > 90


def test_without_an_age_nothing_expires() -> None:
    assert expires_at(a_vm(), a_pool_spec()) is None
    assert expires_at(a_vm(1, Phase.PENDING), a_pool_spec(expire_after="1h")) is None


def test_a_vm_rests_until_it_expires() -> None:
    spec = a_pool_spec(expire_after="1h")
    when = expires_at(a_vm(), spec)
    assert when is not None
    assert next_step(ready(), Rules(spec, NOW, REVISION)) == Step(look_again=when, at_rest=True)
    assert next_step(ready(), Rules(spec, when, REVISION)) == Step()


def test_vms_that_are_too_old_go_within_the_budget_and_others_come() -> None:
    views = [a_view(a_vm(n, ready_at=after(-9999)), a_server(n)) for n in range(10)]
    facts = some_facts(*views, replicas=10, expire_after="1h")
    assert moves(facts) == {Reason.TOO_OLD: 2, "CreateVm": 2}


def test_nothing_may_go_while_nothing_could_come() -> None:
    assert budget(ten()) == 2
    assert budget(ten(holds={"": HOLD})) == 0


def test_a_pool_that_is_not_full_for_its_new_template_says_so() -> None:
    facts = some_facts(older(1), building(2), replicas=2, **strategy("RollingUpdate"))
    assert condition(facts, "Ready").reason == "RollingOut"


def test_a_claimed_vm_never_expires() -> None:
    vm = a_vm(1, claim=claimed().vm.claim, ready_at=after(-9999))
    assert moves(some_facts(a_view(vm, a_server()), replicas=0, expire_after="1h")) == {}


# --- a template that has changed ------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "most", "expected"),
    [
        ("RollingUpdate", "20%", {Reason.OUTDATED: 2, "CreateVm": 2}),
        ("RollingUpdate", 3, {Reason.OUTDATED: 3, "CreateVm": 3}),
        ("OnReplenish", "20%", {}),
        ("Recreate", "20%", {Reason.OUTDATED: 10, "CreateVm": 8}),
    ],
)
def test_how_many_of_an_older_template_go_at_once(
    kind: str, most: object, expected: dict[object, int]
) -> None:
    """`maxConcurrent` bounds what comes, not what goes."""
    assert moves(ten(kind, most)) == expected


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"paused": True}, id="paused"),
        pytest.param({"holds": {"az1": HOLD}}, id="held"),
        pytest.param({"problem": Problem(Reason.IMAGE_NOT_FOUND, "gone")}, id="missing"),
        pytest.param({"cloud_ready": False}, id="not seen"),
    ],
)
@pytest.mark.parametrize("kind", ["RollingUpdate", "Recreate"])
def test_nothing_goes_for_what_could_not_be_built(state: dict[str, object], kind: str) -> None:
    facts = ten(kind, **state)
    assert moves(facts) == {}
    assert not wants_all(facts)


def test_what_is_missing_already_counts() -> None:
    views = [older(n) for n in range(9)]
    assert moves(some_facts(*views, building(9), replicas=10)) == {
        Reason.OUTDATED: 1,
        "CreateVm": 1,
    }


def test_no_more_go_than_the_pace_can_make_good() -> None:
    assert moves(ten(most=5, tokens=2)) == {Reason.OUTDATED: 2, "CreateVm": 2}
    assert moves(ten(most=5, tokens=0)) == {}


def test_a_pool_that_cannot_be_full_rolls_all_the_same() -> None:
    """Claimed VMs leave room for three of ten: these are the whole that counts."""
    views = [older(n) for n in range(3)] + [claimed(n) for n in range(3, 10)]
    facts = some_facts(*views, replicas=10, max_size=10, **strategy("RollingUpdate", 1))
    assert moves(facts) == {Reason.OUTDATED: 1}


def test_a_build_of_an_older_template_is_no_loss() -> None:
    view = a_view(a_vm(1, Phase.BUILDING, revision="older"), None)
    building_old = some_facts(view, replicas=1)
    assert moves(building_old)[Reason.OUTDATED] == 1


def test_a_server_is_never_posted_for_a_vm_of_an_older_template() -> None:
    """It would be called what it is not."""
    view = a_view(a_vm(1, Phase.PENDING, revision="older"))
    rules = Rules(a_pool_spec(**strategy("OnReplenish")), NOW, REVISION)
    assert next_step(view, rules) == Step(Discard(view.vm, Reason.OUTDATED))
    assert next_step(a_view(a_vm(1, Phase.PENDING)), rules).action == Build(a_vm(1, Phase.PENDING))


def test_a_used_vm_of_an_older_template_is_not_rebuilt_but_replaced() -> None:
    """A rebuild changes the image, and leaves user data and metadata as they were."""
    rules = Rules(a_pool_spec(), NOW, REVISION)
    used = a_vm(1, Phase.BUILDING, dirty=True)
    assert next_step(a_view(used, a_server()), rules).action == Rebuild(used, a_server())
    stale = a_vm(1, Phase.BUILDING, dirty=True, revision="older")
    assert next_step(a_view(stale, a_server()), rules).action == Discard(stale, Reason.OUTDATED)


def test_claimed_vms_are_of_whatever_template_they_are() -> None:
    vm = a_vm(1, claim=claimed().vm.claim, revision="older")
    assert moves(some_facts(a_view(vm, a_server()), replicas=0)) == {}
    told = condition(some_facts(a_view(vm, a_server()), replicas=0), "UpToDate")
    assert told.status == "True"


def test_vms_at_rest_are_looked_at_only_when_some_may_go() -> None:
    rest = {("unclaimed",): 10, ("ready",): 10, ("server",): 10, ("revision", "older"): 10}
    assert wants_all(some_facts(rest=rest, replicas=10))
    assert not wants_all(some_facts(rest=rest, replicas=10, **strategy("OnReplenish")))
    assert not wants_all(some_facts(rest={**rest, ("ready",): 7}, replicas=10))
    done = {**rest, ("revision", REVISION): 10}
    assert not wants_all(some_facts(rest=done, replicas=10))


# --- what the pool says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        pytest.param(some_facts(ready(), replicas=1), ("True", "UpToDate"), id="done"),
        pytest.param(ten(), ("False", "RollingOut"), id="rolling"),
        pytest.param(ten("OnReplenish"), ("False", "OlderKept"), id="kept"),
        pytest.param(ten(paused=True), ("False", "RollingOut"), id="paused"),
    ],
)
def test_the_pool_says_whether_its_vms_are_of_its_template(
    facts: PoolFacts, said: tuple[str, str]
) -> None:
    told = condition(facts, "UpToDate")
    assert (told.status, told.reason) == said


def test_the_numbers_stand_in_the_status() -> None:
    facts = some_facts(older(1), ready(2), replicas=2)
    status = pool_status(facts, Claimable(), None)
    assert (status.revision, status.updated) == (REVISION, 1)
    assert "1 of 2 unclaimed VMs are older" in condition(facts, "UpToDate").message


def test_what_is_being_created_is_of_the_template_as_it_is_now() -> None:
    facts = some_facts(creating={"": 2}, replicas=2)
    assert condition(facts, "UpToDate").status == "True"
    assert CreateVm("") not in plan(facts).actions
