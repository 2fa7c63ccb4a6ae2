"""The VMs of one pool as decisions see them: those at rest counted, the others whole.

Of a pool of thousands nearly every VM is ready, or its claim's, and in no need of anything. To look
at all of them for each event would keep claims waiting, so a VM at rest is looked at again when it
is touched, and its counts stand in for it meanwhile. One that is to be checked at a known time is
touched at that time. Everything is visited now and then, a small part at a time and when nothing
else is to be done: what no event told is found by that.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from warmpool.api.names import Phase
from warmpool.domain.facts import Vm
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Mark, Plan, VmView, marks

PART: Final = 250
"""VMs at rest that are looked at again in one pass: some milliseconds."""

ROUND_PART: Final = 100
"""And so many of those that are only visited: each millisecond is one that claims wait."""

RESTFUL: Final = (Phase.READY, Phase.TERMINATING)
"""Phases in which a VM may be at rest. A build never is: it is told apart from its neighbours."""


class Views:
    """What is known of the VMs of one pool."""

    def __init__(self) -> None:
        self._touched: set[VmUid] = set()
        self._to_visit: dict[VmUid, None] = {}
        """In their order: who waits longest is next, however often a round begins."""
        self._awake: set[VmUid] = set()
        self._resting: dict[VmUid, tuple[Mark, ...]] = {}
        self._alarms: dict[VmUid, datetime] = {}
        self._next_alarms: list[tuple[datetime, VmUid]] = []
        self.rest: Counter[Mark] = Counter()
        """What the VMs at rest count as."""

    @property
    def behind(self) -> bool:
        """VMs at rest have been touched and not looked at yet."""
        return bool(self._touched)

    @property
    def on_round(self) -> bool:
        """VMs at rest are still to be visited."""
        return bool(self._to_visit)

    @property
    def alarm(self) -> datetime | None:
        """When the next VM at rest is to be looked at."""
        while self._next_alarms and not self._is_set(*self._next_alarms[0]):
            heapq.heappop(self._next_alarms)
        return self._next_alarms[0][0] if self._next_alarms else None

    def ring(self, now: datetime) -> None:
        """Touch the VMs at rest whose time has come."""
        while (when := self.alarm) is not None and when <= now:
            _, uid = heapq.heappop(self._next_alarms)
            del self._alarms[uid]
            self._touched.add(uid)

    def touch(self, vm: VmUid) -> None:
        """Something about a VM changed; it may be new, or gone."""
        self._touched.add(vm)

    def touch_all(self) -> None:
        """Anything may have changed."""
        self._touched.update(self._resting)

    def begin_round(self) -> None:
        """All VMs at rest are to be visited, after those that are to be still."""
        self._to_visit.update(dict.fromkeys(self._resting))

    def visit_some(self) -> None:
        """Touch the next of those that are to be visited."""
        for uid in list(islice(self._to_visit, ROUND_PART)):
            del self._to_visit[uid]
            if uid in self._resting:
                self._touched.add(uid)

    def look(
        self, vms: Mapping[VmUid, Vm], view: Callable[[Vm], VmView], *, whole: bool = False
    ) -> tuple[VmView, ...]:
        """The VMs that are not at rest; with `whole`, all of them."""
        for uid in list(self._resting) if whole else self._next():
            self._to_visit.pop(uid, None)
            self._wake(uid)
        if whole:
            self._touched.clear()
            self._to_visit.clear()
        self._awake.intersection_update(vms)
        if len(self._resting) + len(self._awake) != len(vms):
            self._catch_up(vms)
        return tuple(view(vms[uid]) for uid in sorted(self._awake, key=lambda u: vms[u].ref))

    def settle(self, views: Iterable[VmView], plan: Plan, zones: Sequence[str]) -> None:
        """Lay to rest what is ready or on its way out and has nothing to be done about.

        Deletes take their time: of a large pool that shrinks, thousands may be waiting for theirs.
        """
        for view in views:
            vm = view.vm
            if vm.phase in RESTFUL and vm.uid not in plan.restless:
                counted = tuple(marks(view, zones))
                self._resting[vm.uid] = counted
                self.rest.update(counted)
                self._awake.discard(vm.uid)
                self._set_alarm(vm.uid, plan.alarms.get(vm.uid))

    def _set_alarm(self, uid: VmUid, when: datetime | None) -> None:
        if when is None:
            self._alarms.pop(uid, None)
        elif self._alarms.get(uid) != when:
            self._alarms[uid] = when
            heapq.heappush(self._next_alarms, (when, uid))

    def _is_set(self, when: datetime, uid: VmUid) -> bool:
        return uid in self._resting and self._alarms.get(uid) == when

    def _catch_up(self, vms: Mapping[VmUid, Vm]) -> None:
        """VMs came or went without a touch: none may be left out of the counts or stay in them."""
        for uid in [uid for uid in self._resting if uid not in vms]:
            self._wake(uid)
        self._awake = {uid for uid in vms if uid not in self._resting}
        self._alarms = {uid: when for uid, when in self._alarms.items() if uid in vms}

    def _next(self) -> list[VmUid]:
        """Touched VMs: all that are new or awake, and a part of those at rest."""
        new = [uid for uid in self._touched if uid not in self._resting]
        part = list(islice((uid for uid in self._touched if uid in self._resting), PART))
        self._touched.difference_update(new, part)
        return new + part

    def _wake(self, uid: VmUid) -> None:
        self.rest.subtract(self._resting.pop(uid, ()))
        self._awake.add(uid)
