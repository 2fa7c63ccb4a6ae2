"""Paces what is written on servers when claims have got them: nobody waits for it.

A burst of claims would otherwise have as many calls to Nova go out at the very moment at which the
next claims want to be bound.
"""

from dataclasses import replace
from typing import Final

from warmpool.domain.actions import Action, MarkClaimed
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan

MARK_EVERY: Final = 0.05
"""Seconds between two marks in one pool: twenty a second take a few hundredths of a core."""


class Marking:
    """The marks that one pool has to write: one is under way, the other VMs rest meanwhile."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: dict[VmUid, None] = {}

    def paced(self, plan: Plan) -> Plan:
        """A plan with the one mark that may be begun now, if any; the others are noted."""
        marks = [a.vm.uid for a in plan.actions if isinstance(a, MarkClaimed)]
        if not marks:
            return plan
        later = frozenset(marks if self._busy else marks[1:])
        self._busy = True
        self._waiting.update(dict.fromkeys(uid for uid in marks if uid in later))
        actions = tuple(a for a in plan.actions if not _is_later(a, later))
        return replace(plan, actions=actions, restless=plan.restless - later)

    def done(self) -> VmUid | None:
        """The one under way is over, and this VM is to be looked at next."""
        self._busy = False
        return self.next()

    def next(self) -> VmUid | None:
        """The VM to be looked at now, if no mark is under way: one may need none any more."""
        first = None if self._busy else next(iter(self._waiting), None)
        if first is not None:
            del self._waiting[first]
        return first


def _is_later(action: Action, later: frozenset[VmUid]) -> bool:
    return isinstance(action, MarkClaimed) and action.vm.uid in later
