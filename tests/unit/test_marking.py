"""Marks are written one after another, and whoever waits for its turn rests."""

from builders import a_server, a_vm
from warmpool.api.names import Reason
from warmpool.domain.actions import Discard, MarkClaimed
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan
from warmpool.reconcile.marking import Marking


def marks(*names: str) -> Plan:
    actions = [MarkClaimed(a_vm(uid=VmUid(name)), a_server()) for name in names]
    return Plan(tuple(actions), restless=frozenset(VmUid(name) for name in names))


def begun(plan: Plan) -> list[str]:
    return [action.vm.uid for action in plan.actions if isinstance(action, MarkClaimed)]


def test_one_is_begun_and_the_others_rest_until_it_is_over() -> None:
    marking = Marking()
    first = marking.paced(marks("a", "b", "c"))
    assert begun(first) == ["a"]
    assert first.restless == {"a"}
    assert begun(marking.paced(marks("d"))) == []
    assert [marking.done(), marking.done(), marking.done(), marking.done()] == ["b", "c", "d", None]
    assert begun(marking.paced(marks("b"))) == ["b"]


def test_one_that_needs_none_any_more_holds_nobody_up() -> None:
    """Its claim was over when its turn came; those behind it waited for the next claim."""
    marking = Marking()
    marking.paced(marks("a", "b", "c"))
    assert marking.next() is None
    assert marking.done() == "b"
    assert begun(marking.paced(Plan(()))) == []
    assert marking.next() == "c"
    assert begun(marking.paced(marks("c"))) == ["c"]
    assert marking.next() is None


def test_other_actions_wait_for_no_mark() -> None:
    marking = Marking()
    marking.paced(marks("a"))
    gone = Discard(a_vm(uid=VmUid("x")), Reason.SHRINKING)
    plan = marks("b")
    both = Plan((gone, *plan.actions), restless=plan.restless | {VmUid("x")})
    assert marking.paced(both).actions == (gone,)
    assert marking.paced(both).restless == {"x"}
