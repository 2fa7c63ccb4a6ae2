"""What went wrong in a pool, and how long it waits because of it.

Known to the leader only, and lost with it: the next one meets the same walls, or meets none.
"""

import logging
import random
from collections import Counter
from datetime import datetime
from typing import Final

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.pool import Failure, WarmPoolSpec
from warmpool.domain.ids import Ref, VmUid
from warmpool.domain.pools import Hold
from warmpool.planning import pace
from warmpool.ports.clock import Clock

log = logging.getLogger(__name__)

ANYWHERE: Final = ""
"""The zone that stands for the whole pool."""

MAX_MESSAGE: Final = 1000
"""Characters of a failure's message that we fill: the schema allows 1024."""


class Setbacks:
    """The holds of one pool, and its last failure."""

    def __init__(self, pool: Ref, clock: Clock, rng: random.Random) -> None:
        self._pool = pool
        self._clock = clock
        self._rng = rng
        self._recipe: object = None
        self._holds: dict[str, Hold] = {}
        self._refusals: Counter[str] = Counter()
        self._refused_at: dict[str, datetime] = {}
        self._posted: dict[VmUid, datetime] = {}
        self._failures = 0
        self.last: Failure | None = None
        """What went wrong last."""

    def holds(self) -> dict[str, Hold]:
        """Zones in which nothing is built now."""
        now = self._clock.now()
        self._holds = {zone: hold for zone, hold in self._holds.items() if hold.until > now}
        return dict(self._holds)

    def showing(self, *, full: bool) -> Failure | None:
        """The last failure, while it matters: not to a pool that is full and held nowhere."""
        return None if full and not self.holds() else self.last

    def heed(self, spec: WarmPoolSpec) -> None:
        """A pool that is told to build otherwise need not wait for what failed before."""
        recipe = (spec.template, spec.health, spec.availability_zones)
        if self._recipe not in (None, recipe):
            for zone in [*self._holds, *self._refused_at]:
                self._lift(zone)
            self._failures, self.last = 0, None
        self._recipe = recipe

    def posted(self, vm: VmUid) -> None:
        """The cloud has taken a build just now."""
        self._posted[vm] = self._clock.now()

    def refused(self, zone: str, reason: Reason, message: str) -> None:
        """Build nothing in a zone (empty: anywhere) for a while, longer each time."""
        now = self._clock.now()
        held = self._holds.get(zone)
        if held is not None and held.until > now:
            return  # of many builds that failed together, one counts
        self._refusals[zone] += 1
        self._refused_at[zone] = now
        count = self._refusals[zone]
        until = now + pace.backoff(count, self._rng.random())
        log.info("pool %s holds zone %r until %s: %s", self._pool, zone, until, message)
        self._holds[zone] = Hold(until, reason, message, count)
        self.fault(reason, message, until)

    def blocked(self, reason: Reason, message: str) -> None:
        """There is no room, as we have been told without asking for a server."""
        if self.last is None or self.last.reason != reason:
            self.fault(reason, message)

    def failed(self, reason: Reason, message: str) -> None:
        """A first failure is made good at once; a template that keeps failing is not hammered."""
        self._failures += 1
        if self._failures == 1:
            self.fault(reason, message)
            return
        pause = pace.backoff(self._failures - 1, self._rng.random(), pace.TEMPLATE_BACKOFF_MAX)
        until = self._clock.now() + pause
        self._holds[ANYWHERE] = Hold(until, reason, message, self._failures)
        self.fault(reason, message, until)

    def fault(self, reason: Reason, message: str, retry_at: datetime | None = None) -> None:
        """Show what went wrong."""
        last = self.last
        again = last is not None and last.reason == reason
        self.last = Failure(
            reason=reason.value,
            message=message[:MAX_MESSAGE],
            time=self._clock.now().replace(microsecond=0),
            count=last.count + 1 if last is not None and again else 1,
            retry_at=retry_at.replace(microsecond=0) if retry_at is not None else None,
        )

    def succeeded(self, vm: VmUid, zone: str) -> None:
        """A build came to its end: the causes of earlier failures are over.

        A build that was taken before a refusal says nothing about what was refused after it.
        """
        posted = self._posted.pop(vm, None)
        if self._failures:
            self._failures = 0
            self._lift(ANYWHERE)
        for where in (zone, ANYWHERE):
            refused = self._refused_at.get(where)
            if refused is not None and posted is not None and posted >= refused:
                self._lift(where)
        if not self._refused_at:
            self.last = None

    def _lift(self, zone: str) -> None:
        self._holds.pop(zone, None)
        self._refusals.pop(zone, None)
        self._refused_at.pop(zone, None)
