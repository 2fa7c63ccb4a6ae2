"""VMs at rest: counted, left alone, and looked at again when it is time."""

from builders import NOW, a_vm, after, ready
from warmpool.domain.facts import Vm
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan, VmView
from warmpool.reconcile.views import ROUND_PART, Views

VMS = {vm.uid: vm for vm in (a_vm(1), a_vm(2), a_vm(3))}


def view(vm: Vm) -> VmView:
    return ready(int(vm.uid.removeprefix("vm-")))


def laid_to_rest(**alarms: float) -> Views:
    views = Views()
    settle(views, **alarms)
    return views


def settle(views: Views, **alarms: float) -> list[str]:
    """Look at what is awake, and lay it to rest; what was awake."""
    seen = views.look(VMS, view)
    plan = Plan((), alarms={VmUid(uid.replace("_", "-")): after(s) for uid, s in alarms.items()})
    views.settle(seen, plan, [""])
    return [v.vm.uid for v in seen]


def test_vms_at_rest_are_counted_and_not_looked_at() -> None:
    views = laid_to_rest()
    assert views.rest["ready",] == 3
    assert views.look(VMS, view) == ()
    assert views.alarm is None


def test_an_alarm_wakes_its_vm_alone_and_once() -> None:
    views = laid_to_rest(vm_1=5, vm_2=9)
    assert views.alarm == after(5)
    views.ring(after(4.9))
    assert settle(views) == []
    views.ring(after(5))
    assert settle(views) == ["vm-1"]
    views.ring(after(8))
    assert settle(views) == []
    assert views.alarm == after(9)


def test_the_last_alarm_that_was_set_counts() -> None:
    views = laid_to_rest(vm_1=5)
    views.touch(VmUid("vm-1"))
    assert settle(views, vm_1=30) == ["vm-1"]
    assert views.alarm == after(30)
    views.touch(VmUid("vm-1"))
    settle(views)
    assert views.alarm is None


def test_an_alarm_that_is_set_again_for_the_same_time_rings() -> None:
    views = laid_to_rest(vm_1=5)
    views.ring(after(5))
    settle(views, vm_1=5)
    assert views.alarm == after(5)
    views.ring(after(5))
    assert settle(views) == ["vm-1"]


def test_the_alarm_of_a_vm_that_is_gone_rings_for_nobody() -> None:
    views = laid_to_rest(vm_1=5)
    left = {uid: vm for uid, vm in VMS.items() if uid != "vm-1"}
    views.look(left, view)
    assert views.alarm is None
    views.ring(NOW)
    assert views.rest["ready",] == 2


def many(count: int) -> dict[VmUid, Vm]:
    return {vm.uid: vm for vm in map(a_vm, range(1, count + 1))}


def test_a_round_visits_all_a_part_at_a_time_and_what_is_touched_besides() -> None:
    views, vms = Views(), many(3 * ROUND_PART)
    rest(views, vms)
    views.begin_round()
    views.touch(VmUid(f"vm-{3 * ROUND_PART}"))
    visited = []
    while views.on_round:
        views.visit_some()
        visited.append(rest(views, vms))
    assert len(visited) == 3
    assert max(map(len, visited)) == ROUND_PART + 1
    assert VmUid(f"vm-{3 * ROUND_PART}") in visited[0]
    assert sum(map(len, visited)) == len(vms), "who was touched needs no visit"
    assert rest(views, vms) == set()


def test_a_round_that_begins_anew_goes_on_where_the_last_one_was() -> None:
    """Else the last of a large pool would never be visited beside a flow of claims."""
    views, vms = Views(), many(3 * ROUND_PART)
    rest(views, vms)
    visited: list[VmUid] = []
    for number in range(3):
        views.begin_round()
        if number == 1:
            views.touch(next(uid for uid in vms if uid not in visited))
        views.visit_some()
        visited += rest(views, vms)
    assert set(visited) == set(vms)


def test_who_is_gone_is_visited_no_more() -> None:
    views = laid_to_rest()
    views.begin_round()
    views.visit_some()
    left = {uid: vm for uid, vm in VMS.items() if uid != "vm-1"}
    assert {v.vm.uid for v in views.look(left, view)} == {"vm-2", "vm-3"}


def rest(views: Views, vms: dict[VmUid, Vm]) -> set[VmUid]:
    """Look at what is to be looked at, and lay it to rest; what that was."""
    seen = views.look(vms, view)
    views.settle(seen, Plan(()), [""])
    return {v.vm.uid for v in seen}
