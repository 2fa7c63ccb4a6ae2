"""VMs at rest: counted, left alone, and looked at again when it is time."""

from builders import NOW, a_vm, after, ready
from warmpool.domain.facts import Vm
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan, VmView
from warmpool.reconcile.views import Views

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
