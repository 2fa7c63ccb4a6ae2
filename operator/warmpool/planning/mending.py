"""Mending the spread of a full pool: one VM more at a better place, then one less at a worse.

While the one is built there is a surge of one (`sizing.surge`); what leaves then is chosen so that
the rules are broken the least (`sizing.leavers`).
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from warmpool.api.v1alpha1.base import DomainName
from warmpool.domain.actions import CreateVm
from warmpool.domain.cloud import Place
from warmpool.domain.pools import Mending, PoolFacts
from warmpool.planning.aiming import aimed_at, candidates
from warmpool.planning.filling import fills, stop
from warmpool.planning.layout import HERE, Layout, layout_of
from warmpool.planning.sizing import unclaimed, under_way

AGAIN_FIRST: Final = timedelta(minutes=1)
"""After an attempt that did not help; doubled each time, since each costs the cloud a build..."""

AGAIN_MAX: Final = timedelta(hours=1)
"""...up to this."""


def mend(facts: PoolFacts) -> tuple[tuple[CreateVm, ...], Mending]:
    """The build that brings a full pool nearer to its rules, if there is one to be had now.

    With it comes what is to be remembered of the attempts.
    """
    mending = facts.mending
    if not facts.pool.spec.spread or not _at_rest(facts):
        return (), mending
    layout = layout_of(facts)
    cost = layout.cost()
    if cost < mending.cost or not cost:
        mending = Mending()
    if not cost or facts.tokens == 0 or stop(facts) is not None:
        return (), mending
    if mending.until is not None and mending.until > facts.now:
        return (), mending
    build = better(facts, layout)
    return ((), mending) if build is None else ((build,), _tried(mending, facts, cost))


def _tried(mending: Mending, facts: PoolFacts, cost: int) -> Mending:
    pause = min(AGAIN_FIRST * (1 << min(mending.tries, 10)), AGAIN_MAX)
    return Mending(mending.tries + 1, cost, facts.now + pause)


def _at_rest(facts: PoolFacts) -> bool:
    known = facts.survey.done and not facts.survey.for_now
    ready = facts.cloud_ready and known and not facts.pool.deleting
    still = not under_way(facts) and not facts.tally["unread",]
    return ready and still and unclaimed(facts) == facts.target


def better(facts: PoolFacts, layout: Layout) -> CreateVm | None:
    """A build after which, when another VM has left, the rules are broken less.

    What is best to add and what is best to take away are looked for together: a place that is as
    good as another for one VM more may be the worse one as soon as one has left. Where Nova chooses
    the host nobody knows, and it is worth a try.
    """
    if facts.survey.sites is None:
        return fills(facts, layout.copied())
    held = [Place("", *mark[1:]) for mark, n in facts.tally.items() if mark[0] == HERE and n > 0]
    cost, best = layout.cost(), None
    for place in candidates(facts, layout):
        thought = layout.copied()
        thought.shift(place, 1)
        after = min((thought.cost_after(crowd, -1) for crowd in _fullest(held, thought)), default=0)
        if after < cost:
            cost, best = after, place
    return None if best is None else aimed_at(facts, best)


def _fullest(places: Iterable[Place], layout: Layout) -> Iterable[Place]:
    """The fullest of each rack: a VM of it costs no more than of another there."""
    counts = layout.counts[DomainName.HYPERVISOR]
    best: dict[tuple[str, str], Place] = {}
    for place in places:
        held = best.setdefault((place.zone, place.rack), place)
        if counts[place.hypervisor] > counts[held.hypervisor]:
            best[place.zone, place.rack] = place
    return best.values()
