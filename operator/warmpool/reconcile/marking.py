"""Paces what is written on servers when claims have got them: nobody waits for it.

A burst of claims would otherwise have as many calls to Nova go out at the very moment at which the
next claims want to be bound. But until its mark stands a VM is not protected from a restoration, so
several are written at a time.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from warmpool.domain.actions import Action, MarkClaimed
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan

MARKS_AT_ONCE: Final = 8
"""Marks of one pool under way: half of the threads of a cloud, since builds go on meanwhile."""

MARK_EVERY: Final = 0.05
"""Seconds that each of them pauses: at Nova's 50 ms a call, eighty marks a second."""


class Marking:
    """The marks that one pool has to write: a few are under way, the other VMs rest meanwhile."""

    def __init__(self) -> None:
        self._under_way = 0
        self._waiting: dict[VmUid, None] = {}

    @property
    def busy(self) -> bool:
        """Marks are under way or wait: the end of one lets the next begin."""
        return self._under_way > 0 or bool(self._waiting)

    def paced(self, plan: Plan) -> Plan:
        """A plan with the marks that may be begun now; the others are noted."""
        marks = [a.vm.uid for a in plan.actions if isinstance(a, MarkClaimed)]
        room = MARKS_AT_ONCE - self._under_way
        self._under_way += min(room, len(marks))
        later = marks[room:]
        if not later:
            return plan
        self._waiting.update(dict.fromkeys(later))
        resting = frozenset(later)
        actions = tuple(a for a in plan.actions if not _is_later(a, resting))
        return replace(plan, actions=actions, restless=plan.restless - resting)

    def done(self) -> None:
        """One that was under way is over."""
        self._under_way -= 1

    def next(self) -> Iterator[VmUid]:
        """The VMs to be looked at now, as many as may be begun: one may need no mark any more."""
        for _ in range(min(MARKS_AT_ONCE - self._under_way, len(self._waiting))):
            first = next(iter(self._waiting))
            del self._waiting[first]
            yield first


def _is_later(action: Action, later: frozenset[VmUid]) -> bool:
    return isinstance(action, MarkClaimed) and action.vm.uid in later
