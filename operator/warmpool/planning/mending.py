"""Mending the spread of a full pool: one VM more at a better place, then one less at a worse.

While the one is built there is a surge of one (`sizing.surge`); what leaves then is chosen so that
the rules are broken the least (`sizing.leavers`).
"""

from datetime import timedelta
from typing import Final

from warmpool.domain.actions import CreateVm
from warmpool.domain.cloud import Place
from warmpool.domain.pools import Mending, PoolFacts
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
    return ready and not under_way(facts) and unclaimed(facts) == facts.target


def better(facts: PoolFacts, layout: Layout) -> CreateVm | None:
    """A build after which, when another VM has left, the rules are broken less.

    Where Nova chooses the host nobody knows, and it is worth a try.
    """
    thought = layout.copied()
    build = fills(facts, thought)
    if build is None or facts.survey.sites is None:
        return build
    places = {Place("", *mark[1:]) for mark, n in facts.tally.items() if mark[0] == HERE and n > 0}
    after = min((thought.cost_after(place, -1) for place in places), default=0)
    return build if after < layout.cost() else None
