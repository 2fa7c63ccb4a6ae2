"""Claims turned into what the planner understands: demands, their order, their ends."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.base import seconds
from warmpool.api.v1alpha1.claim import Constraint
from warmpool.api.v1alpha1.pool import NamespacesFrom
from warmpool.domain.claims import Ask, Demand, Domain, Limit, Shortage, Undecided
from warmpool.domain.facts import Claim, Pool
from warmpool.domain.ids import Ref
from warmpool.planning.modes import mode_limits

RESERVE_PRIORITY = 1000
"""Claims of this priority and above may take a pool's reserve."""


def demand_of(claim: Claim) -> Demand:
    """What a claim asks for; mode and constraints as limits that must all hold."""
    asks = tuple(
        Ask(request.name, pool, request.count)
        for request, pool in zip(claim.spec.requests, pools_of(claim), strict=True)
    )
    spelled = tuple(_limit(c, asks) for c in claim.spec.constraints)
    return Demand(asks, mode_limits(claim.spec.mode, asks) + spelled)


def pools_of(claim: Claim) -> list[Ref]:
    """The pools that a claim asks, in the order of its requests."""
    return [Ref(r.pool.namespace or claim.ref.namespace, r.pool.name) for r in claim.spec.requests]


def _limit(constraint: Constraint, asks: Iterable[Ask]) -> Limit:
    named = frozenset(constraint.requests) or frozenset(ask.name for ask in asks)
    return Limit(
        Domain(constraint.domain.value),
        named,
        max_per_domain=constraint.max_per_domain,
        min_domains=constraint.min_domains,
        max_skew=constraint.max_skew,
    )


def in_order(claims: Iterable[Claim]) -> list[Claim]:
    """Priority, then first come, first served; ties by name, so that every leader decides alike."""
    return sorted(claims, key=lambda claim: (-claim.spec.priority, claim.created, claim.ref))


def reserve_for(claim: Claim, pool: Pool) -> int:
    """How many of a pool's ready VMs this claim must leave."""
    return 0 if claim.spec.priority >= RESERVE_PRIORITY else pool.spec.reserve


def deadline(claim: Claim) -> datetime:
    """When a claim that waits is given up."""
    return claim.created + seconds(claim.spec.timeout)


UNKNOWN_NAMESPACE: Final = "there is no such namespace, or it has just been made"


def refusal(
    claim: Claim, pools: Iterable[Pool], labels: Mapping[str, Mapping[str, str]]
) -> Shortage | Undecided | None:
    """Why the pools do not serve this claim, if they do not.

    A refusal is for good, so there is none for labels that nobody has seen yet: the claim may be
    known before its namespace.

    Args:
        claim: who asks.
        pools: all the pools it asks.
        labels: of each namespace that is known.
    """
    namespace = claim.ref.namespace
    for pool in pools:
        admitted = _admits(pool, namespace, labels.get(namespace))
        if admitted is None:
            return Undecided(UNKNOWN_NAMESPACE)
        if not admitted:
            text = (
                f"pool {pool.ref} does not serve claims of namespace {namespace!r}:"
                " its spec.claims.namespaces says who may claim"
            )
            return Shortage(Reason.NOT_PERMITTED, text)
    return None


def _admits(pool: Pool, namespace: str, labels: Mapping[str, str] | None) -> bool | None:
    """None: it hangs on labels, and these are not known."""
    rule = pool.spec.claims.namespaces
    match rule.from_:
        case NamespacesFrom.ALL:
            return True
        case NamespacesFrom.SELECTOR:
            if namespace == pool.ref.namespace:
                return True
            return None if labels is None else rule.match_labels.items() <= labels.items()
        case NamespacesFrom.SAME:  # pragma: no branch - there is no other rule
            return namespace == pool.ref.namespace


def lifetime(claim: Claim, pools: Iterable[Pool]) -> timedelta | None:
    """How long the claim keeps its VMs; None: until it is deleted.

    What the claim names comes first, then the shortest of the pools' defaults; the pools' maxima
    bound both. Zero means without end, and is not the same as unset.
    """
    listed = list(pools)
    if claim.spec.lifetime is not None:
        wanted = [seconds(claim.spec.lifetime)]
    else:
        wanted = [seconds(p.spec.claims.default_lifetime) for p in listed]
    bounds = [seconds(p.spec.claims.max_lifetime) for p in listed]
    ends = [span for span in (*wanted, *bounds) if span]
    return min(ends, default=None)
