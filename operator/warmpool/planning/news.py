"""What of all that happens is news for people. Pure.

What a record tells is news at once. Of pools their state is looked at and held against what people
know, so nothing is missed while nobody looks, and nothing is told twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.names import PoolCondition, Reason
from warmpool.api.v1alpha1.base import Condition, ConditionStatus
from warmpool.domain.facts import Pool
from warmpool.domain.history import BuildRecord, ClaimRecord, LeadershipRecord, Record, Result
from warmpool.domain.notices import Mood, News, NoticeKind, Topic

STARVING_AFTER: Final = timedelta(seconds=60)
"""A pool that is empty for less has only been claimed empty."""

WALLS: Final = (PoolCondition.DEPENDENCIES_RESOLVED, PoolCondition.CAPACITY_AVAILABLE)

NOT_ENOUGH: Final = frozenset(
    {
        Reason.NOT_ENOUGH_READY,
        Reason.NOT_ENOUGH_RACKS,
        Reason.NOT_ENOUGH_HYPERVISORS,
        Reason.NOT_ENOUGH_ZONES,
        Reason.CONSTRAINTS_UNSATISFIED,
        Reason.MAX_SIZE_REACHED,
        Reason.QUOTA_EXCEEDED,
        Reason.NO_VALID_HOST,
        Reason.TIMED_OUT,
    }
)
"""Reasons of a refusal that more VMs would have helped against."""


def news_of(record: Record) -> News | None:
    """What people are told of a record. None: nothing."""
    match record:
        case BuildRecord(result=Result.FAILED | Result.REFUSED, vm=vm):
            where = f"zone {vm.place.zone}: " if vm.place.zone else ""
            reason = record.reason or ""
            topic = Topic(NoticeKind.BUILDS_FAILING, vm.pool.namespace, str(vm.pool), str(reason))
            return News(topic, record.at, f"{where}{record.message}")
        case ClaimRecord(result=Result.REFUSED, reason=reason, claim=claim) if reason in NOT_ENOUGH:
            pools = ", ".join(sorted({str(ask.pool) for ask in record.asks}))
            topic = Topic(NoticeKind.CLAIM_REFUSED, claim.namespace, pools, reason)
            text = f"claim {claim} of {record.size} VMs, {record.mode}: {record.message}"
            return News(topic, record.at, text)
        case LeadershipRecord(result=Result.BEGAN):
            topic = Topic(NoticeKind.LEADER_CHANGED, "", record.identity, "")
            return News(topic, record.at, f"leads since {record.at:%H:%M:%S} UTC")
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Look:
    """What came of looking at a pool."""

    news: tuple[News, ...]
    mood: Mood
    again: datetime | None
    """When to look again, though nothing may have changed."""


def look_at(pool: Pool, mood: Mood | None, now: datetime) -> Look:
    """Hold a pool against what people know of it."""
    wanted, ready = pool.spec.replicas, pool.status.ready
    full = ready >= wanted > 0
    mood = mood or Mood(wanted, full=full)
    if wanted > mood.wanted:
        mood = replace(mood, full=False)
    mood = replace(mood, wanted=wanted)
    looks = (_credentials, _starving, _built_up) if not pool.spec.paused else ()
    news: list[News] = []
    for look in looks:
        told, mood = look(pool, mood, now)
        if told is not None:
            news.append(told)
    waits = mood.empty_since is not None and not mood.starving
    again = mood.empty_since + STARVING_AFTER if waits and mood.empty_since else None
    return Look(tuple(news), mood, again)


def _credentials(pool: Pool, mood: Mood, now: datetime) -> tuple[News | None, Mood]:
    wall = next((w for w in _walls(pool) if w.reason == Reason.CREDENTIALS_REFUSED), None)
    if wall is None:
        return None, replace(mood, refused=False)
    if mood.refused:
        return None, mood
    kind = NoticeKind.CREDENTIALS_REFUSED
    return _news(kind, pool, now, wall.message), replace(mood, refused=True, full=False)


def _starving(pool: Pool, mood: Mood, now: datetime) -> tuple[News | None, Mood]:
    """An empty pool starves, unless it has never been full and nothing is in its way yet."""
    wall = next(iter(_walls(pool)), None)
    empty = pool.status.ready == 0 < pool.spec.replicas and not mood.refused
    if not empty or not (wall is not None or mood.full or mood.starving):
        starving = mood.starving and pool.status.ready == 0
        return None, replace(mood, empty_since=None, starving=starving)
    since = mood.empty_since or now
    mood = replace(mood, empty_since=since)
    if mood.starving or now < since + STARVING_AFTER:
        return None, mood
    text = f"no VM is ready since {since:%H:%M:%S} UTC, {pool.spec.replicas} are wanted"
    why = f"{text}: {wall.message}" if wall is not None else text
    reason = wall.reason if wall is not None else ""
    news = _news(NoticeKind.POOL_STARVING, pool, now, why, reason)
    return news, replace(mood, starving=True, full=False)


def _built_up(pool: Pool, mood: Mood, now: datetime) -> tuple[News | None, Mood]:
    wanted, ready = pool.spec.replicas, pool.status.ready
    if mood.full or not ready >= wanted > 0:
        return None, mood
    news = _news(NoticeKind.POOL_BUILT_UP, pool, now, f"{ready} of {wanted} VMs are ready")
    return news, replace(mood, full=True)


def _walls(pool: Pool) -> Iterable[Condition]:
    """Conditions that say why nothing can be built."""
    for condition in pool.status.conditions:
        if condition.type in WALLS and condition.status is ConditionStatus.FALSE:
            yield condition


def _news(kind: NoticeKind, pool: Pool, at: datetime, text: str, reason: str = "") -> News:
    return News(Topic(kind, pool.ref.namespace, str(pool.ref), reason), at, text)
