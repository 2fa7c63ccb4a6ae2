"""What of all that happens is news for people."""

from datetime import timedelta

import pytest

from builders import NOW, POOL, a_pool
from doubles.history import a_build
from warmpool.api.names import PoolCondition, Reason
from warmpool.api.v1alpha1.base import Condition, ConditionStatus
from warmpool.api.v1alpha1.pool import WarmPoolStatus
from warmpool.domain.facts import Pool
from warmpool.domain.history import AskRecord, ClaimRecord, LeadershipRecord, Record, Result
from warmpool.domain.ids import Ref
from warmpool.domain.notices import Mood, News, NoticeKind
from warmpool.planning.news import STARVING_AFTER, look_at, news_of

SECOND = timedelta(seconds=1)


def pool(ready: int, *walls: Condition, **spec: object) -> Pool:
    """A pool of 3 with so many ready, and what is in its way."""
    return a_pool(status=WarmPoolStatus(ready=ready, conditions=list(walls)), **spec)


def wall(reason: Reason, kind: PoolCondition = PoolCondition.CAPACITY_AVAILABLE) -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus.FALSE,
        reason=reason,
        message=f"{reason} it is",
        last_transition_time=NOW,
    )


def kinds(news: tuple[News, ...]) -> list[NoticeKind]:
    return [each.topic.kind for each in news]


def a_claim(result: Result, reason: Reason) -> ClaimRecord:
    return ClaimRecord(
        id="claim:1",
        at=NOW,
        claim=Ref("search", "logs-7"),
        uid="1",
        asks=(AskRecord("data", POOL, 12), AskRecord("more", POOL, 3)),
        mode="RackAware",
        on_unsatisfied="Fail",
        result=result,
        reason=reason,
        message="3 racks have ready VMs, 5 are needed",
        wait=0.1,
    )


# -- records ------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [Result.FAILED, Result.REFUSED])
def test_a_build_that_came_to_nothing_is_news_of_its_pool(result: Result) -> None:
    record = a_build(1, result=result, reason=Reason.NO_VALID_HOST, message="no host")
    news = news_of(record)
    assert news is not None
    assert news.topic.kind is NoticeKind.BUILDS_FAILING
    assert (news.topic.subject, news.topic.reason) == ("search/data", "NoValidHost")
    assert news.text == "zone az2: no host"


def test_a_claim_that_was_too_large_is_news() -> None:
    news = news_of(a_claim(Result.REFUSED, Reason.NOT_ENOUGH_RACKS))
    assert news is not None
    assert news.topic.kind is NoticeKind.CLAIM_REFUSED
    assert news.topic.subject == str(POOL)
    assert news.text == (
        "claim search/logs-7 of 15 VMs, RackAware: 3 racks have ready VMs, 5 are needed"
    )


def test_a_new_leader_is_news_of_the_operator() -> None:
    news = news_of(LeadershipRecord("l", NOW, "replica-a", 7, Result.BEGAN))
    assert news is not None
    assert (news.topic.kind, news.topic.namespace) == (NoticeKind.LEADER_CHANGED, "")


@pytest.mark.parametrize(
    "record",
    [
        a_build(),
        a_claim(Result.BOUND, Reason.BOUND),
        a_claim(Result.REFUSED, Reason.POOL_NOT_FOUND),
        LeadershipRecord("l", NOW, "replica-a", 7, Result.ENDED, 60),
    ],
    ids=["built", "bound", "no such pool", "ended"],
)
def test_the_rest_is_none(record: Record) -> None:
    assert news_of(record) is None


# -- pools --------------------------------------------------------------------------------------


def test_a_pool_that_was_full_when_first_seen_is_no_news() -> None:
    look = look_at(pool(3), None, NOW)
    assert look.news == ()
    assert look.mood.full


def test_a_new_pool_is_told_when_it_is_built_up_and_once() -> None:
    building = look_at(pool(1), None, NOW)
    assert building.news == ()
    full = look_at(pool(3), building.mood, NOW)
    assert kinds(full.news) == [NoticeKind.POOL_BUILT_UP]
    assert full.news[0].text == "3 of 3 VMs are ready"
    assert look_at(pool(2), full.mood, NOW).news == ()
    assert look_at(pool(3), look_at(pool(2), full.mood, NOW).mood, NOW).news == ()


def test_a_pool_that_shall_be_larger_is_told_again() -> None:
    mood = look_at(pool(3), None, NOW).mood
    larger = look_at(pool(3, replicas=5), mood, NOW)
    assert larger.news == ()
    assert kinds(look_at(pool(5, replicas=5), larger.mood, NOW).news) == [NoticeKind.POOL_BUILT_UP]


def test_an_empty_pool_starves_after_a_minute() -> None:
    first = look_at(pool(0), Mood(3, full=True), NOW)
    assert first.news == ()
    assert first.again == NOW + STARVING_AFTER
    soon = look_at(pool(0), first.mood, NOW + STARVING_AFTER - SECOND)
    assert soon.news == ()
    late = look_at(pool(0), soon.mood, NOW + STARVING_AFTER)
    assert kinds(late.news) == [NoticeKind.POOL_STARVING]
    assert late.again is None
    assert look_at(pool(0), late.mood, NOW + 2 * STARVING_AFTER).news == ()
    full = look_at(pool(3), late.mood, NOW + 3 * STARVING_AFTER)
    assert kinds(full.news) == [NoticeKind.POOL_BUILT_UP]
    assert not full.mood.starving


def test_a_pool_that_is_claimed_empty_for_a_moment_does_not() -> None:
    empty = look_at(pool(0), Mood(3, full=True), NOW)
    again = look_at(pool(1), empty.mood, NOW + 30 * SECOND)
    assert again.mood.empty_since is None
    assert look_at(pool(0), again.mood, NOW + 70 * SECOND).news == ()


def test_a_pool_that_is_being_filled_does_not_starve_unless_something_is_in_its_way() -> None:
    new = Mood(3)
    assert look_at(pool(0), new, NOW).again is None
    held = look_at(pool(0, wall(Reason.QUOTA_EXCEEDED)), new, NOW)
    late = look_at(pool(0, wall(Reason.QUOTA_EXCEEDED)), held.mood, NOW + STARVING_AFTER)
    assert late.news[0].topic.reason == "QuotaExceeded"
    assert late.news[0].text.endswith("3 are wanted: QuotaExceeded it is")


@pytest.mark.parametrize("kind", [PoolCondition.DEPENDENCIES_RESOLVED, "CapacityAvailable"])
def test_refused_credentials_are_told_once_until_they_are_taken_again(kind: PoolCondition) -> None:
    refused = pool(0, wall(Reason.CREDENTIALS_REFUSED, kind))
    first = look_at(refused, Mood(3, full=True), NOW)
    assert kinds(first.news) == [NoticeKind.CREDENTIALS_REFUSED]
    assert look_at(refused, first.mood, NOW + 2 * STARVING_AFTER).news == ()
    mended = look_at(pool(3), first.mood, NOW)
    assert kinds(mended.news) == [NoticeKind.POOL_BUILT_UP]
    assert kinds(look_at(refused, mended.mood, NOW).news) == [NoticeKind.CREDENTIALS_REFUSED]


def test_a_condition_that_holds_is_in_nobodys_way() -> None:
    fine = wall(Reason.CAPACITY_OK).model_copy(update={"status": ConditionStatus.TRUE})
    assert look_at(pool(0, fine), Mood(3), NOW).again is None


def test_of_a_paused_pool_nobody_is_told() -> None:
    mood = Mood(3, full=True, empty_since=NOW)
    look = look_at(pool(0, paused=True), mood, NOW + 2 * STARVING_AFTER)
    assert look.news == ()


def test_a_pool_that_shall_have_none_is_neither_empty_nor_full() -> None:
    assert look_at(pool(0, replicas=0), Mood(3), NOW).news == ()
