"""Marks are written a few at a time, and whoever waits for its turn rests."""

from builders import a_server, a_vm
from warmpool.api.names import Reason
from warmpool.domain.actions import Discard, MarkClaimed
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan
from warmpool.reconcile.marking import MARKS_AT_ONCE, Marking

FEW = [f"f{number}" for number in range(MARKS_AT_ONCE)]


def marks(*names: str) -> Plan:
    actions = [MarkClaimed(a_vm(uid=VmUid(name)), a_server()) for name in names]
    return Plan(tuple(actions), restless=frozenset(VmUid(name) for name in names))


def begun(plan: Plan) -> list[str]:
    return [action.vm.uid for action in plan.actions if isinstance(action, MarkClaimed)]


def test_a_few_are_begun_and_the_others_rest_until_one_is_over() -> None:
    marking = Marking()
    first = marking.paced(marks(*FEW, "a", "b", "c"))
    assert begun(first) == FEW
    assert first.restless == set(FEW)
    assert begun(marking.paced(marks("d"))) == []
    assert list(marking.next()) == []
    marking.done()
    assert list(marking.next()) == ["a"]
    assert begun(marking.paced(marks("a"))) == ["a"]
    assert list(marking.next()) == []


def test_as_many_are_looked_at_as_may_be_begun() -> None:
    marking = Marking()
    marking.paced(marks(*FEW, "a", "b", "c", "d"))
    for _ in range(3):
        marking.done()
    assert list(marking.next()) == ["a", "b", "c"]
    assert begun(marking.paced(marks("x", "a", "b", "c"))) == ["x", "a", "b"]


def test_one_that_needs_none_any_more_holds_nobody_up() -> None:
    """Its claim was over when its turn came; those behind it waited for the next claim."""
    marking = Marking()
    marking.paced(marks(*FEW, "a", "b"))
    marking.done()
    assert list(marking.next()) == ["a"]
    assert begun(marking.paced(Plan(()))) == []
    assert list(marking.next()) == ["b"]
    assert begun(marking.paced(marks("b"))) == ["b"]
    assert list(marking.next()) == []


def test_other_actions_wait_for_no_mark() -> None:
    marking = Marking()
    marking.paced(marks(*FEW))
    gone = Discard(a_vm(uid=VmUid("x")), Reason.SHRINKING)
    plan = marks("b")
    both = Plan((gone, *plan.actions), restless=plan.restless | {VmUid("x")})
    assert marking.paced(both).actions == (gone,)
    assert marking.paced(both).restless == {"x"}
