"""Whether Nova certainly has no server of a WarmVM, so that it may go, or be given one.

A server whose id is known is asked for by it, and a 404 is the truth. The server of a build that
a former leader began is known by its tag alone, and a search by tag is a listing: those may lie
for a while. So one that finds nothing is believed once another finds nothing either, some time
later; that also leaves a POST that is still on its way the time to arrive. Our own POST that had no
answer is no better than a former leader's.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from warmpool.domain.ids import ServerId, VmUid
from warmpool.ports.clock import Clock

SURE_AFTER: Final = 10.0
"""Seconds between the first search that found nothing and the one that is believed."""


class Absences:
    """What was found of the servers of WarmVMs that are going."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[VmUid, float] = {}
        self._met: dict[VmUid, set[ServerId]] = {}
        self._posted: set[VmUid] = set()

    def posted(self, owner: VmUid) -> None:
        """This leader asks for its server, and will hear what has become of that."""
        self._posted.add(owner)

    def unsure(self, owner: VmUid) -> None:
        """Its POST had no answer, and may be on its way yet: a search is to be believed late."""
        self._posted.discard(owner)
        self._since.pop(owner, None)

    def is_ours(self, owner: VmUid) -> bool:
        """Whether nobody but this leader has asked for its server lately."""
        return owner in self._posted

    def met(self, owner: VmUid) -> AbstractSet[ServerId]:
        """Ids of servers that it had: by these one can ask."""
        return self._met.get(owner, set())

    def found(self, owner: VmUid, servers: AbstractSet[ServerId]) -> None:
        """It has these."""
        self._met.setdefault(owner, set()).update(servers)

    def is_sure(self, owner: VmUid, *, asked: bool) -> bool:
        """Nothing was found: whether that is believed. `asked`: by an id that it has or had."""
        now = self._clock.monotonic()
        return asked or now - self._since.setdefault(owner, now) >= SURE_AFTER

    def over(self, owner: VmUid) -> None:
        """Nobody will ask for it any more."""
        self._since.pop(owner, None)
        self._met.pop(owner, None)
        self._posted.discard(owner)
