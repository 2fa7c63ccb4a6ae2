"""What a pool says of its spread: which skew there is, and why it stays. Pure."""

from collections.abc import Iterator

from warmpool.api.names import Reason
from warmpool.domain.pools import PoolFacts
from warmpool.planning.filling import Stop, stop
from warmpool.planning.layout import Layout, Ruled, layout_of
from warmpool.planning.mending import better
from warmpool.planning.sizing import surge, unclaimed, under_way

MAX_NAMED = 3
"""Domains that a message names; the rest it counts."""


def balance(facts: PoolFacts) -> tuple[bool | None, Reason, str]:
    """Whether the rules of `spread` are kept, why or why not, and that in numbers."""
    if not facts.pool.spec.spread:
        return True, Reason.NO_SPREAD_ASKED, "spread has no rule"
    layout = layout_of(facts)
    unknown = [r for r in layout.ruled if not r.used and layout.counts[r.rule.domain][""] > 0]
    if unknown:
        level = unknown[0].rule.domain.value
        why = facts.survey.unaimed or "the cloud does not tell"
        return None, Reason.RACKS_UNKNOWN, f"no {level} of a VM is known: {why}"
    if not layout.cost():
        return True, Reason.SPREAD_KEPT, "; ".join(map(_span, layout.ruled))
    reason, why = _why(facts, layout)
    return False, reason, "; ".join([*_broken(layout), why])


def _span(ruled: Ruled) -> str:
    low, high = ruled.span()
    level, used = ruled.rule.domain.value, ruled.used
    between = f"{low}" if low == high else f"{low} to {high}"
    return f"{between} VMs per {level}, {used} {level}s used"


def _broken(layout: Layout) -> Iterator[str]:
    """What each rule that is broken says against how things are."""
    for ruled in layout.ruled:
        if not ruled.cost():
            continue
        rule, (low, high) = ruled.rule, ruled.span()
        level = rule.domain.value
        if ruled.short_of():
            yield f"{ruled.used} {level}s are used, minDomains {rule.min_domains} is asked"
        if rule.max_skew is not None and high - low > rule.max_skew:
            held = f"{_named(ruled, high)} has {high}, {_named(ruled, low)} {low}"
            yield f"{held}, maxSkew {rule.max_skew} is asked"
        if rule.max_per_domain is not None and high > rule.max_per_domain:
            yield f"{_named(ruled, high)} has {high}, maxPerDomain {rule.max_per_domain} is asked"


def _named(ruled: Ruled, height: int) -> str:
    """The domains with so many VMs."""
    names = sorted(name for name, held in ruled.counts.items() if held == height)
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{ruled.rule.domain.value} {', '.join(names[:MAX_NAMED])}{more}"


def _why(facts: PoolFacts, layout: Layout) -> tuple[Reason, str]:
    """Why what lies askew stays so, for now or for longer."""
    if surge(facts):
        return Reason.MENDING, "one VM more is being built, then one is given up"
    if under_way(facts) or unclaimed(facts) != facts.target:
        return Reason.FILLING, "the pool is not full yet"
    stopped = stop(facts) or _paced(facts)
    if stopped is not None:
        return stopped.reason, f"no VM more can be built meanwhile: {stopped.message}"
    if facts.survey.sites is not None and better(facts, layout) is None:
        return Reason.NO_ROOM_ELSEWHERE, "no hypervisor has room where it would help"
    when = f"; tried again at {facts.mending.until:%H:%M:%S} UTC" if facts.mending.until else ""
    if facts.survey.sites is None:
        return Reason.NOVA_CHOOSES, f"Nova chooses the hosts ({facts.survey.unaimed}){when}"
    return Reason.MENDING, f"one VM more is about to be built, then one is given up{when}"


def _paced(facts: PoolFacts) -> Stop | None:
    if facts.tokens != 0 or facts.next_token is None:
        return None
    text = f"waiting for the refill pace until {facts.next_token:%H:%M:%S} UTC"
    return Stop(Reason.FILLING, text)
