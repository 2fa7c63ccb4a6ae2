"""How often a cloud is listed, how far each listing looks back, and which one is not believed.

Three kinds of listing share the work. A quick one asks for what has changed since just before the
last one. A wide one, now and then, looks back over minutes: Nova writes a change down with the
clock of the host that made it. A complete one, rarely, finds what no change tells: tags taken away,
a database restored. It may take minutes, and the others go on meanwhile.
"""

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Final

from warmpool.domain.ids import VmUid

POLL_MIN: Final = 0.1
POLL_MAX: Final = 3.0
POLL_SHARE: Final = 0.05
"""Between listings while something is under way: this share of what a build takes here, within
these seconds. Half of it is added to each build. It is no shorter than a listing takes: a slow
cloud is not asked all the time."""

POLL_IDLE: Final = 10.0
"""Seconds between listings when nothing is expected to change."""

QUICK: Final = timedelta(seconds=5)
"""How far a quick listing looks back beyond the last one: Nova's times are whole seconds."""

WIDE: Final = timedelta(minutes=2)
"""How far a wide one does: clocks in a cloud may be a minute and a half apart."""

WIDE_EVERY: Final = 20.0
"""Seconds between wide ones: that late a change is seen at worst whose clock is behind."""

FULL_EVERY: Final = 900.0
"""Seconds between complete ones."""

DOUBT_FROM: Final = 4
DOUBT_SHARE: Final = 0.2
"""A complete listing is doubted that lacks so many servers, and this share of those known: what
is deleted is told by the others."""

AGAIN_EVERY: Final = 5.0
"""Seconds between complete listings while one is doubted."""

BROKEN_MAX: Final = 300.0
"""Seconds between complete listings that were not whole: at first `AGAIN_EVERY`, doubled up to
this. A cell of Nova's may be down for a day."""

DOUBT_FOR: Final = 30.0
"""Seconds for which they must say the same to be believed."""

BUILD_MEMORY: Final = 0.2
"""Weight of the last build among those before it."""


class Rhythm:
    """Of one cloud. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._full_due = float("-inf")
        self._wide_due = float("-inf")
        self._doubted_since: float | None = None
        self._broken = 0
        """Complete listings in a row that were not whole."""
        self._build: float | None = None
        self._took = 0.0

    def look_back(self, now: float) -> timedelta:
        """How far the next listing of changes looks back beyond the last one."""
        return WIDE if now >= self._wide_due else QUICK

    def listed(self, now: float, look_back: timedelta) -> None:
        """Such a listing of changes, begun at that time, was answered."""
        if look_back >= WIDE:
            self._wide_due = now + WIDE_EVERY

    def is_all_due(self, now: float) -> bool:
        """Whether it is time for a complete listing."""
        return now >= self._full_due

    def listed_all(self, now: float, *, whole: bool) -> None:
        """A complete one, begun at that time, was answered; `whole`: all servers are in it."""
        self._broken = 0 if whole else self._broken + 1
        again = min(AGAIN_EVERY * 2 ** min(self._broken - 1, 10), BROKEN_MAX)
        self._full_due = now + (FULL_EVERY if whole else again)
        self._wide_due = max(self._wide_due, now + WIDE_EVERY)

    def doubts(self, now: float, known: Collection[VmUid], seen: AbstractSet[VmUid]) -> bool:
        """Whether to disbelieve a complete listing for now, and to have another one soon."""
        lost = sum(owner not in seen for owner in known)
        if lost < max(DOUBT_FROM, DOUBT_SHARE * len(known)):
            self._doubted_since = None
            return False
        if self._doubted_since is None:
            self._doubted_since = now
        elif now - self._doubted_since >= DOUBT_FOR:
            self._doubted_since = None
            return False
        self._full_due = now + AGAIN_EVERY
        return True

    def built(self, seconds: float) -> None:
        """A server was seen to come up so long after it was asked for."""
        before = seconds if self._build is None else self._build
        self._build = before + (seconds - before) * BUILD_MEMORY

    def took(self, seconds: float) -> None:
        """A listing of changes was answered after so long."""
        self._took = seconds

    def pause(self) -> float:
        """Seconds between listings while something is under way."""
        share = (self._build or 0.0) * POLL_SHARE
        return min(max(share, POLL_MIN, self._took), POLL_MAX)
