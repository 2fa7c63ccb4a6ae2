"""The status of a pool, computed from the facts. Pure: the same facts give the same status."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from warmpool.api.names import LABEL_POOL, PoolCondition, Reason
from warmpool.api.v1alpha1.base import Condition
from warmpool.api.v1alpha1.pool import (
    Claimable,
    DomainCount,
    Failure,
    ResolvedTemplate,
    WarmPoolStatus,
)
from warmpool.domain.pools import Mark, PoolFacts
from warmpool.planning import racks
from warmpool.planning.balance import balance
from warmpool.planning.condition import condition
from warmpool.planning.filling import stop, to_build, wall
from warmpool.planning.health import tolerated, unhealthy
from warmpool.planning.sizing import unclaimed, under_way
from warmpool.planning.turnover import is_rolling, is_stopped, outdated


@dataclass(frozen=True, slots=True)
class Finding:
    """What a condition shall say."""

    kind: PoolCondition
    holds: bool | None
    reason: Reason
    message: str


def pool_status(
    facts: PoolFacts, claimable: Claimable, last_failure: Failure | None
) -> WarmPoolStatus:
    """The whole status of a pool."""
    pool, tally = facts.pool, facts.tally
    findings = [
        _ready(facts),
        _progressing(facts),
        _capacity(facts),
        _dependencies(facts),
        _healthy(facts),
        _up_to_date(facts),
        Finding(PoolCondition.BALANCED, *balance(facts)),
        Finding(PoolCondition.RACKS_KNOWN, *racks.finding(facts.racks)),
    ]
    return WarmPoolStatus(
        observed_generation=pool.generation,
        replicas=unclaimed(facts),
        ready=tally["ready",],
        building=under_way(facts),
        claimed=tally["claimed",],
        retained=tally["retained",],
        failed=tally["failed",],
        revision=pool.revision,
        updated=tally["revision", pool.revision],
        server_group=facts.group,
        resolved=_resolved(facts),
        selector=f"{LABEL_POOL}={pool.ref.name}",
        state=_state(facts, findings).value,
        claimable=claimable,
        domains=list(_domains(tally)),
        last_failure=last_failure,
        conditions=[_condition(f, facts, pool.status.conditions) for f in findings],
    )


def _condition(finding: Finding, facts: PoolFacts, before: Iterable[Condition]) -> Condition:
    return condition(
        finding.kind,
        holds=finding.holds,
        reason=finding.reason,
        message=finding.message,
        now=facts.now.replace(microsecond=0),
        generation=facts.pool.generation,
        before=before,
    )


def _ready(facts: PoolFacts) -> Finding:
    wanted, ready = facts.pool.spec.replicas, facts.tally["ready",]
    if ready >= wanted:
        return Finding(PoolCondition.READY, True, Reason.POOL_FULL, f"{ready} of {wanted} ready")
    why = _why_not_full(facts)
    return Finding(PoolCondition.READY, False, why, f"{ready} of {wanted} ready")


def _why_not_full(facts: PoolFacts) -> Reason:
    return next(_walls(facts))


def _walls(facts: PoolFacts) -> Iterator[Reason]:
    """What keeps a pool from being full, the weightiest first."""
    if facts.pool.deleting:
        yield Reason.DELETING
    if facts.problem is not None:
        yield facts.problem.reason
    if facts.pool.spec.paused:
        yield Reason.PAUSED
    if facts.holds:
        yield min(facts.holds.items())[1].reason
    if (full := wall(facts)) is not None:
        yield full.reason
    if unhealthy(facts) and unclaimed(facts) >= facts.target and not under_way(facts):
        yield _about_the_sick(facts).reason
    if is_rolling(facts):
        yield Reason.ROLLING_OUT
    yield Reason.FILLING


def _progressing(facts: PoolFacts) -> Finding:
    spec, kind = facts.pool.spec, PoolCondition.PROGRESSING
    if facts.pool.deleting:
        return _going(facts)
    if spec.paused:
        return Finding(kind, False, Reason.PAUSED, "paused: nothing is built or deleted")
    building = under_way(facts)
    leaving = facts.tally["deleting",]
    if building or leaving:
        text = f"{building} building, {leaving} on their way out"
        return Finding(kind, True, Reason.FILLING if building else Reason.SHRINKING, text)
    if unclaimed(facts) >= facts.target and unhealthy(facts):
        sick = _about_the_sick(facts)
        return Finding(kind, sick.holds, sick.reason, sick.message)
    if unclaimed(facts) >= facts.target:
        return Finding(kind, False, Reason.POOL_FULL, "nothing to do")
    return Finding(kind, bool(to_build(facts)), _why_not_full(facts), _what_stops(facts))


def _going(facts: PoolFacts) -> Finding:
    """A pool that is being deleted waits for its claimed VMs, and for retained ones."""
    claimed, retained = facts.tally["claimed",], facts.tally["retained",]
    if not claimed and not retained:
        text = f"{facts.tally['vm',]} VMs are left"
        return Finding(PoolCondition.PROGRESSING, True, Reason.DELETING, text)
    waits = [
        f"{claimed} VMs are claimed: the pool goes when their claims are deleted" * bool(claimed),
        f"{retained} VMs are retained: delete those WarmVMs" * bool(retained),
    ]
    text = "; ".join(filter(None, waits))
    return Finding(PoolCondition.PROGRESSING, True, Reason.WAITING_FOR_CLAIMS, text)


def _what_stops(facts: PoolFacts) -> str:
    stopped = stop(facts)
    if stopped is not None:
        return stopped.message
    if facts.next_token is not None:
        return f"waiting for the refill pace until {facts.next_token:%H:%M:%S} UTC"
    return "about to build"


def _capacity(facts: PoolFacts) -> Finding:
    kind = PoolCondition.CAPACITY_AVAILABLE
    if facts.holds:
        zone, hold = min(facts.holds.items())
        where = f" in zone {zone!r}" if zone else ""
        text = f"builds{where} wait until {hold.until:%H:%M:%S} UTC: {hold.message}"
        return Finding(kind, False, hold.reason, text)
    full = wall(facts)
    if full is not None:
        return Finding(kind, False, full.reason, full.message)
    return Finding(kind, True, Reason.CAPACITY_OK, "the cloud takes builds")


def _dependencies(facts: PoolFacts) -> Finding:
    kind, problem = PoolCondition.DEPENDENCIES_RESOLVED, facts.problem
    if problem is not None:
        where = f"{problem.field}: " if problem.field else ""
        return Finding(kind, False, problem.reason, where + problem.message)
    if not facts.cloud_ready:
        return Finding(kind, None, Reason.FILLING, "the cloud has not been looked at yet")
    text = "credentials, flavor, image and networks are there"
    if facts.stale is not None:
        text = f"{text}, as the catalogue had them last: {facts.stale.message}"
        return Finding(kind, True, facts.stale.reason, text)
    return Finding(kind, True, Reason.RESOLVED, text)


def _resolved(facts: PoolFacts) -> ResolvedTemplate | None:
    """What the entry came to; what it came to before, while that is not known."""
    if facts.pool.spec.template.flavor_ref is None:
        return None
    if facts.withdrawn:
        return None
    return facts.resolved or facts.pool.status.resolved


def _healthy(facts: PoolFacts) -> Finding:
    """Whether the VMs that are ready stay so. A few that do not are the pool's own business."""
    if unhealthy(facts):
        return _about_the_sick(facts)
    text = f"{facts.tally['ready',]} ready VMs work"
    return Finding(PoolCondition.HEALTHY, True, Reason.ALL_HEALTHY, text)


def _about_the_sick(facts: PoolFacts) -> Finding:
    kind, sick = PoolCondition.HEALTHY, unhealthy(facts)
    checked = facts.tally["ready",] + sick
    text = f"{sick} of {checked} fail their checks"
    if sick > tolerated(facts):
        wall = f"health.maxUnhealthy allows {tolerated(facts)}"
        text = f"{text}, {wall}: none of them is deleted until fewer fail, or that is raised"
        return Finding(kind, False, Reason.TOO_MANY_UNHEALTHY, text)
    limit = facts.pool.spec.health.failure_threshold
    text = f"{text}: each is replaced after {limit} in a row"
    return Finding(kind, True, Reason.REPLACING_UNHEALTHY, text)


def _up_to_date(facts: PoolFacts) -> Finding:
    """Whether all unclaimed VMs are of the template as it is now."""
    kind, old, whole = PoolCondition.UP_TO_DATE, outdated(facts), unclaimed(facts)
    revision, strategy = facts.pool.revision, facts.pool.spec.update_strategy
    if not old:
        return Finding(kind, True, Reason.UP_TO_DATE, f"{whole} VMs are of revision {revision}")
    text = f"{old} of {whole} unclaimed VMs are older than revision {revision}"
    if not is_rolling(facts):
        text = f"{text}: {strategy.type.value} keeps them until they are claimed or too old"
        return Finding(kind, False, Reason.OLDER_KEPT, text)
    if is_stopped(facts):
        text = f"{text}, and wait: {_what_stops(facts)}"
    return Finding(kind, False, Reason.ROLLING_OUT, text)


def _state(facts: PoolFacts, findings: list[Finding]) -> Reason:
    if facts.pool.deleting:
        return Reason.DELETING
    return next(f.reason for f in findings if f.kind is PoolCondition.READY)


def _domains(tally: Mapping[Mark, int]) -> Iterable[DomainCount]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for mark, number in tally.items():
        if mark[0] == "rack" and number:
            counts[mark[1]][mark[2]] = number
    for rack in sorted(counts):
        yield DomainCount(rack=rack, **counts[rack])
