"""Which VMs work, when they are checked, and when one is given up."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import (
    NOW,
    REVISION,
    a_place,
    a_pool_spec,
    a_server,
    a_view,
    a_vm,
    after,
    building,
    ready,
    some_facts,
)
from warmpool.api.names import Phase, Reason
from warmpool.api.v1alpha1.base import portion, seconds
from warmpool.api.v1alpha1.pool import Claimable, WarmPoolSpec
from warmpool.api.v1alpha1.vm import Fault
from warmpool.domain.actions import Check, ConfirmLost, Discard, Fail, Trouble
from warmpool.domain.cloud import ServerState
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Checked, PoolFacts, Problem, VmView
from warmpool.planning.conditions import pool_status
from warmpool.planning.health import due, is_hopeless, tolerated, trouble, unhealthy
from warmpool.planning.lifecycle import WAIT, Rules, Step, next_step
from warmpool.planning.plan import plan
from warmpool.planning.sizing import surplus, unclaimed

ASKED = a_pool_spec(health={"period": "1m", "probe": {"tcpSocket": {"port": 22}}})
SILENT = Fault(reason=Reason.PROBE_FAILED, message="port 22 does not answer", time=after(-600))
JUST = Checked(NOW)


def sick(number: int = 1, failures: int = 1, **fields: object) -> VmView:
    """A VM that was ready and fails its checks; fields of the view."""
    vm = a_vm(number, Phase.FAILED, fault=SILENT, ready_at=NOW, place=a_place(number))
    given = {"checked": Checked(NOW, failures)} | fields
    return a_view(vm, a_server(number), **given)


def step(view: VmView, spec: WarmPoolSpec = ASKED, *, now: float = 0, **rules: bool) -> Step:
    return next_step(view, Rules(spec, after(now), REVISION, **rules))


# --- shares ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "whole", "number"),
    [(0, 40, 0), (3, 40, 3), ("0%", 40, 0), ("20%", 40, 8), ("20%", 3, 1), ("100%", 7, 7)],
)
def test_a_share_of_a_whole_is_rounded_up(share: int | str, whole: int, number: int) -> None:
    assert portion(share, whole) == number


@pytest.mark.parametrize("wrong", ["20", "101%", "-1%", "a%", "20 %"])
def test_what_is_no_share_is_told(wrong: str) -> None:
    with pytest.raises(ValueError, match="write it like 5 or 20%"):
        portion(wrong, 10)


# --- what Nova says -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        pytest.param(a_server(), None, id="active"),
        pytest.param(a_server(state=ServerState.ERROR), Reason.SERVER_ERROR, id="error"),
        pytest.param(a_server(state=ServerState.STOPPED), Reason.SERVER_STOPPED, id="stopped"),
        pytest.param(a_server(state=ServerState.DELETED), Reason.SERVER_LOST, id="deleted"),
        pytest.param(a_server(state=ServerState.OTHER), Reason.SERVER_BUSY, id="rebooting"),
        pytest.param(a_server(busy=True), Reason.SERVER_BUSY, id="powering off"),
        pytest.param(None, None, id="not seen"),
    ],
)
def test_what_nova_says_of_a_server(server: object, reason: Reason | None) -> None:
    found = trouble(a_view(a_vm(), server))  # type: ignore[arg-type]
    assert (found and found.reason) == reason


def test_a_dead_host_is_the_trouble_of_its_vms() -> None:
    assert trouble(ready(host_down=True)) == Trouble(
        Reason.HOST_DOWN, "Nova holds host h1 for dead"
    )


def test_a_dead_host_that_a_member_does_not_see_is_named_by_where_its_vm_stands() -> None:
    hidden = a_view(a_vm(), a_server(host=None), place=a_place(1), host_down=True)
    assert trouble(hidden) == Trouble(Reason.HOST_DOWN, "Nova holds host h1 for dead")


# --- ready ----------------------------------------------------------------------------------


def test_what_nova_says_of_a_ready_vm_is_heard_at_once() -> None:
    view = a_view(a_vm(), a_server(state=ServerState.STOPPED), checked=JUST)
    found = Trouble(Reason.SERVER_STOPPED, "Nova says STOPPED")
    assert step(view) == Step(Check(view.vm, view.server, found))


def test_a_ready_vm_is_asked_once_a_period_and_rests_meanwhile() -> None:
    view = ready(checked=JUST)
    assert step(view, now=59) == Step(look_again=after(60), at_rest=True)
    assert step(view, now=60) == Step(Check(view.vm, view.server, None))


@pytest.mark.parametrize("probe", [None, {"none": {}}])
def test_a_ready_vm_without_a_probe_is_never_asked(probe: object) -> None:
    spec = a_pool_spec(health={"probe": probe})
    assert step(ready(checked=Checked(after(-9999))), spec) is WAIT


def test_a_pool_of_vms_at_rest_is_woken_by_their_alarms_alone() -> None:
    health = {"probe": {"tcpSocket": {"port": 22}}}
    found = plan(some_facts(ready(checked=JUST), replicas=1, health=health))
    assert (found.actions, found.wake_at, found.restless) == ((), None, frozenset())
    assert found.alarms == {VmUid("vm-1"): after(60)}


@given(st.text(), st.integers(1, 3600), st.floats(0, 0.999999))
def test_a_first_check_is_within_a_period_and_at_a_whole_second(
    uid: str, period: int, late: float
) -> None:
    health = a_pool_spec(health={"period": f"{period}s"}).health
    began = after(late)
    first = due(VmUid(uid), Checked(began, ever=False), health)
    assert began <= first <= began + timedelta(seconds=period + 1)
    assert first.microsecond == 0


def test_first_checks_are_spread_over_the_period() -> None:
    new = Checked(NOW, ever=False)
    firsts = {due(VmUid(f"vm-{n}"), new, ASKED.health) for n in range(600)}
    assert len(firsts) > 50


# --- sick -----------------------------------------------------------------------------------


def test_a_sick_vm_is_checked_again_after_a_period() -> None:
    view = sick()
    assert step(view, now=59) == Step(look_again=after(60))
    assert step(view, now=60) == Step(Check(view.vm, view.server, None))


def test_a_vm_that_nova_says_works_again_is_asked_at_once() -> None:
    stopped = SILENT.model_copy(update={"reason": Reason.SERVER_STOPPED})
    view = sick()
    view = replace(view, vm=replace(view.vm, fault=stopped))
    assert step(view, now=1) == Step(Check(view.vm, view.server, None))


def test_a_vm_that_fails_often_enough_is_given_up_if_it_may_be() -> None:
    view = sick(failures=3)
    assert step(view) == Step(Discard(view.vm, Reason.UNHEALTHY))
    assert step(view, may_give_up=False) == Step(look_again=after(60))


def test_a_sick_vm_whose_server_is_gone_is_lost() -> None:
    view = replace(sick(), server=None, server_missing=True)
    assert step(view) == Step(ConfirmLost(view.vm))


def test_a_sick_vm_that_was_not_seen_yet_waits_for_a_listing() -> None:
    assert step(replace(sick(), server=None)) is WAIT


def test_a_task_of_novas_may_last_as_long_as_a_launch() -> None:
    """Migrations take their time: nobody is helped if the server is deleted meanwhile."""
    busy = Fault(reason=Reason.SERVER_BUSY, message="Nova says ACTIVE/migrating", time=NOW)
    view = sick(failures=99)
    view = replace(view, vm=replace(view.vm, fault=busy))
    assert not is_hopeless(view, ASKED.health, after(899))
    assert is_hopeless(view, ASKED.health, after(900))


def test_a_build_whose_vm_never_answered_says_so() -> None:
    vm, late = a_vm(1, Phase.BUILDING, created=after(-900)), a_server(created=after(-900))
    found = step(a_view(vm, late, not_before=after(-1))).action
    assert isinstance(found, Fail)
    assert found.reason is Reason.PROBE_FAILED
    assert "never answered its probe" in found.message


# --- many -----------------------------------------------------------------------------------


def many(well: int, ill: int, **pool: object) -> PoolFacts:
    views = [ready(n) for n in range(well)] + [sick(well + n, failures=3) for n in range(ill)]
    return some_facts(*views, **({"replicas": well + ill} | pool))


def given_up(facts: PoolFacts) -> int:
    return sum(isinstance(a, Discard) for a in plan(facts).actions)


@pytest.mark.parametrize(
    ("well", "ill", "most", "number"),
    [
        pytest.param(8, 2, "20%", 2, id="as many as may be"),
        pytest.param(7, 3, "20%", 0, id="one too many"),
        pytest.param(0, 1, "20%", 1, id="one is always few"),
        pytest.param(9, 1, 0, 0, id="never any"),
        pytest.param(0, 5, "100%", 5, id="always all"),
    ],
)
def test_the_sick_are_given_up_unless_there_are_too_many(
    well: int, ill: int, most: object, number: int
) -> None:
    assert given_up(many(well, ill, health={"maxUnhealthy": most})) == number


def test_too_many_sick_are_told_of() -> None:
    facts = many(7, 3)
    healthy = condition_of(facts, "Healthy")
    assert (healthy.status, healthy.reason) == ("False", Reason.TOO_MANY_UNHEALTHY)
    assert "3 of 10 fail their checks, health.maxUnhealthy allows 2" in healthy.message
    assert condition_of(facts, "Ready").reason == Reason.TOO_MANY_UNHEALTHY
    assert condition_of(facts, "Progressing").status == "False"


def test_a_few_sick_are_the_pools_own_business() -> None:
    facts = many(9, 1)
    assert condition_of(facts, "Healthy").status == "True"
    assert "replaced after 3 in a row" in condition_of(facts, "Healthy").message
    assert condition_of(facts, "Progressing").status == "True"


def condition_of(facts: PoolFacts, kind: str) -> object:
    status = pool_status(facts, Claimable(), None)
    return next(c for c in status.conditions if c.type == kind)


@pytest.mark.parametrize(
    "state",
    [
        {"paused": True},
        {"cloud_ready": False},
        {"problem": Problem(Reason.CREDENTIALS_REFUSED, "no")},
        {"problem": Problem(Reason.IMAGE_NOT_FOUND, "no")},
    ],
)
def test_nobody_is_given_up_while_nothing_could_take_its_place(state: dict[str, object]) -> None:
    assert given_up(many(9, 1, **state)) == 0


def test_a_sick_vm_is_not_replaced_before_it_is_given_up() -> None:
    facts = some_facts(ready(1), sick(2), replicas=2)
    assert unclaimed(facts) == 2
    assert plan(facts).actions == ()


def test_the_sick_are_the_first_to_go_when_a_pool_shrinks() -> None:
    facts = some_facts(building(1), ready(2), sick(3), replicas=2)
    assert [vm.uid for vm in surplus(facts)] == ["vm-3"]


@st.composite
def ailing(draw: st.DrawFn) -> PoolFacts:
    failures: Iterable[int | None] = draw(
        st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=12)
    )
    views = [
        ready(n, checked=Checked(after(-9), 0)) if failed is None else sick(n, failures=failed)
        for n, failed in enumerate(failures)
    ]
    health = {
        "failureThreshold": draw(st.integers(1, 4)),
        "maxUnhealthy": draw(st.sampled_from([0, 1, 3, "0%", "20%", "50%", "100%"])),
        "probe": draw(st.sampled_from([None, {"tcpSocket": {"port": 22}}])),
    }
    return some_facts(*views, replicas=len(views), health=health, paused=draw(st.booleans()))


@given(ailing())
def test_only_those_that_failed_often_enough_go_and_only_if_they_are_few(facts: PoolFacts) -> None:
    threshold = facts.pool.spec.health.failure_threshold
    views = {v.vm.uid: v for v in facts.vms}
    going = [a.vm for a in plan(facts).actions if isinstance(a, Discard)]
    for vm in going:
        checked = views[vm.uid].checked
        assert checked is not None
        assert vm.phase is Phase.FAILED
        assert checked.failures >= threshold
    if going:
        assert unhealthy(facts) <= tolerated(facts)
        assert not facts.pool.spec.paused


@given(ailing())
def test_every_sick_vm_is_looked_at_again_within_a_period(facts: PoolFacts) -> None:
    found = plan(facts)
    if unhealthy(facts) > sum(isinstance(a, Discard) for a in found.actions):
        latest = facts.now + seconds(facts.pool.spec.health.period) + timedelta(seconds=1)
        assert found.wake_at is not None
        assert found.wake_at <= latest
