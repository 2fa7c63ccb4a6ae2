"""What a pool builds now, and what stops it: counts and places. Pure."""

from dataclasses import dataclass

from warmpool.api.names import Reason
from warmpool.domain.actions import CreateVm
from warmpool.domain.pools import UNDER_WAY, PoolFacts, VmView
from warmpool.planning.aiming import builds, open_sites, usable_zones
from warmpool.planning.grouping import at_once, why_full, why_no_room
from warmpool.planning.layout import Layout, layout_of
from warmpool.planning.sizing import group_room, servers, to_create, unclaimed


@dataclass(frozen=True, slots=True)
class Stop:
    """Why nothing more is built, although VMs are missing."""

    reason: Reason
    message: str


def to_build(facts: PoolFacts, posts: int = 0) -> list[CreateVm]:
    """The builds to start now; the quota has to do for `posts` others besides."""
    number = to_create(facts)
    if facts.survey.headroom.left is not None:
        number = max(0, min(number, facts.survey.headroom.left - posts))
    if facts.group and facts.survey.sites is None:
        number = at_once(facts, number)
    if not number or not _may_build(facts):
        return []
    return builds(facts, layout_of(facts), number)


def _may_build(facts: PoolFacts) -> bool:
    return facts.cloud_ready and facts.survey.done and facts.problem is None


def stop(facts: PoolFacts) -> Stop | None:
    """What stands in the way of building one VM more, whatever the pace."""
    spec = facts.pool.spec
    if facts.problem is not None:
        return Stop(facts.problem.reason, facts.problem.message)
    if spec.paused:
        return Stop(Reason.PAUSED, "paused: nothing is built or deleted")
    if facts.holds:
        hold = min(facts.holds.items())[1]
        return Stop(hold.reason, hold.message)
    return _size(facts) or _group(facts) or _quota(facts) or _room(facts)


def wall(facts: PoolFacts) -> Stop | None:
    """What is full, where VMs are missing or wait for a server."""
    if unclaimed(facts) < facts.target:
        return _size(facts) or _group(facts) or _quota(facts) or _room(facts)
    return _quota(facts) if any(map(lacks_server, facts.vms)) else None


def lacks_server(view: VmView) -> bool:
    """It is to be built, and no server is known."""
    return view.server is None and view.vm.phase in UNDER_WAY and not view.vm.deleting


def _size(facts: PoolFacts) -> Stop | None:
    most = facts.pool.spec.max_size
    if most is None or servers(facts) < most:
        return None
    text = f"maxSize {most} is reached: raise it, or release claimed VMs"
    return Stop(Reason.MAX_SIZE_REACHED, text)


def _group(facts: PoolFacts) -> Stop | None:
    return Stop(Reason.QUOTA_EXCEEDED, why_full(facts)) if group_room(facts) == 0 else None


def _quota(facts: PoolFacts) -> Stop | None:
    left = facts.survey.headroom.left
    if left is None or left > 0:
        return None
    return Stop(Reason.QUOTA_EXCEEDED, facts.survey.headroom.message)


def _room(facts: PoolFacts) -> Stop | None:
    if not usable_zones(facts):
        return None
    if facts.survey.sites is not None and not open_sites(facts):
        if facts.group and any(site.room != 0 for site in facts.survey.sites):
            return Stop(Reason.SPREAD_EXHAUSTED, why_no_room(facts))
        return Stop(Reason.NO_VALID_HOST, _no_room(facts))
    if not any(rule.max_per_domain for rule in facts.pool.spec.spread):
        return None  # a place that is open takes another: this is asked at every status
    if builds(facts, layout_of(facts), 1):
        return None
    return Stop(Reason.SPREAD_EXHAUSTED, _spread_out(facts))


def _no_room(facts: PoolFacts) -> str:
    spec = facts.pool.spec
    zones = set(usable_zones(facts))
    there = [
        s for s in facts.survey.sites or () if s.place.zone in zones or not spec.availability_zones
    ]
    where = f" in {', '.join(sorted(zones))}" if spec.availability_zones else ""
    if not there:
        return f"no hypervisor{where} takes builds: all are down or disabled"
    flavor = spec.template.flavor_called
    return f"none of {len(there)} hypervisors{where} has room for flavor {flavor!r}"


def _spread_out(facts: PoolFacts) -> str:
    caps = [
        f"{rule.max_per_domain} per {rule.domain.value}"
        for rule in facts.pool.spec.spread
        if rule.max_per_domain is not None
    ]
    return (
        f"wherever there is room stand as many VMs as maxPerDomain allows ({', '.join(caps)}):"
        " raise it, lower replicas, or add hosts"
    )


def fills(facts: PoolFacts, layout: Layout) -> CreateVm | None:
    """One more build, on the layout, if there is a place for it."""
    return next(iter(builds(facts, layout, 1)), None)
