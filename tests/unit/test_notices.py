"""When people are told: gathered, not too often, and nothing is lost on the way."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from builders import NOW
from warmpool.domain.notices import Lane, News, NoticeKind, Outbox, Route, Topic
from warmpool.planning.letters import letter
from warmpool.planning.notices import (
    RETRY_FIRST,
    RETRY_MAX,
    SAMPLES,
    TOPICS,
    URGENT_GATHER,
    add,
    begun,
    due,
    not_sent,
    resumed,
    sent,
    wake_at,
)

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ONCALL = Route("oncall", ("mailto://oncall",))


def failure(number: int = 0, at: datetime = NOW, pool: str = "search/data") -> News:
    topic = Topic(NoticeKind.BUILDS_FAILING, pool.partition("/")[0], pool, "NoValidHost")
    return News(topic, at, f"zone az1: no valid host for VM {number}")


def starving(at: datetime = NOW, pool: str = "search/data") -> News:
    topic = Topic(NoticeKind.POOL_STARVING, pool.partition("/")[0], pool, "QuotaExceeded")
    return News(topic, at, "no VM is ready")


def told(outbox: Outbox, now: datetime, routes: Iterable[Route] = (ONCALL,)) -> Outbox:
    """All that is due arrives."""
    for each in due(outbox, routes, now):
        outbox = sent(begun(outbox, each), each, now)
    return outbox


def test_five_hundred_failures_in_a_minute_make_one_letter() -> None:
    outbox, letters = Outbox(), []
    for second in range(3600):
        now = NOW + second * SECOND
        failures = [failure(n, now) for n in range(9 if second % 3 else 7)] if second < 60 else []
        outbox = add(outbox, failures, [ONCALL])
        for each in due(outbox, [ONCALL], now):
            letters.append((now, letter(each)))
            outbox = sent(begun(outbox, each), each, now)
    assert [at for at, _ in letters] == [NOW + ONCALL.gather]
    assert letters[0][1].title == "warmpool: search/data: 500 builds failed (NoValidHost)"


def test_two_digests_are_a_pause_apart() -> None:
    outbox = told(add(Outbox(), [failure()], [ONCALL]), NOW + ONCALL.gather)
    outbox = add(outbox, [failure(1, NOW + 3 * MINUTE)], [ONCALL])
    assert due(outbox, [ONCALL], NOW + 10 * MINUTE) == []
    assert wake_at(outbox, [ONCALL]) == NOW + ONCALL.gather + ONCALL.pause


def test_what_is_urgent_goes_after_seconds_and_by_itself() -> None:
    outbox = add(Outbox(), [failure(), starving()], [ONCALL])
    assert due(outbox, [ONCALL], NOW) == []
    (first,) = due(outbox, [ONCALL], NOW + URGENT_GATHER)
    assert [b.topic.kind for b in first.bundles] == [NoticeKind.POOL_STARVING]
    assert not first.digest


def test_an_urgent_topic_is_told_again_only_after_the_pause_but_others_are() -> None:
    outbox = told(add(Outbox(), [starving()], [ONCALL]), NOW + URGENT_GATHER)
    later = NOW + MINUTE
    outbox = add(outbox, [starving(later), starving(later, "search/other")], [ONCALL])
    (each,) = due(outbox, [ONCALL], later + URGENT_GATHER)
    assert [b.topic.subject for b in each.bundles] == ["search/other"]
    outbox = told(outbox, later + URGENT_GATHER)
    assert wake_at(outbox, [ONCALL]) == NOW + URGENT_GATHER + ONCALL.pause


def test_a_digest_takes_along_what_is_urgent() -> None:
    outbox = add(Outbox(), [failure(), starving(NOW + ONCALL.gather)], [ONCALL])
    (each,) = due(outbox, [ONCALL], NOW + ONCALL.gather)
    assert len(each.bundles) == 2
    assert each.digest


def test_each_route_gets_what_it_wants() -> None:
    search = Route("search", ("mailto://s",), namespaces=("sea*",))
    leaders = Route("leaders", ("mailto://l",), kinds=frozenset({NoticeKind.LEADER_CHANGED}))
    leader = News(Topic(NoticeKind.LEADER_CHANGED, "", "replica-a", ""), NOW, "leads")
    news = [failure(), failure(pool="kafka/data"), leader]
    outbox = add(Outbox(), news, [search, leaders, ONCALL])
    assert {n: len(lane.pending) for n, lane in outbox.lanes.items()} == {
        "search": 1,
        "leaders": 1,
        "oncall": 3,
    }


def test_news_waits_for_routes_that_are_not_known_yet() -> None:
    outbox = add(Outbox(), [failure()], None)
    assert outbox.waiting == 1
    outbox = add(outbox, [failure(1)], [ONCALL])
    (bundle,) = outbox.lanes["oncall"].pending.values()
    assert bundle.count == 2
    assert outbox.unrouted == {}


def test_a_route_that_is_gone_is_told_nothing_more() -> None:
    outbox = add(Outbox(), [failure()], [ONCALL])
    (each,) = due(outbox, [ONCALL], NOW + ONCALL.gather)
    outbox = add(begun(outbox, each), [], [])
    assert outbox.lanes == {}
    assert sent(outbox, each, NOW) == outbox
    assert not_sent(outbox, each, NOW) == outbox


def test_what_could_not_be_sent_is_tried_again_with_what_came_meanwhile() -> None:
    now, outbox = NOW + ONCALL.gather, add(Outbox(), [failure()], [ONCALL])
    pauses = []
    for n in range(8):
        (each,) = due(outbox, [ONCALL], now)
        outbox = add(begun(outbox, each), [failure(n, now)], [ONCALL])
        assert due(outbox, [ONCALL], now) == []  # one letter at a time
        assert wake_at(outbox, [ONCALL]) is None
        outbox = not_sent(outbox, each, now)
        again = wake_at(outbox, [ONCALL])
        assert again is not None
        pauses.append(again - now)
        now = again
    assert pauses[0] == RETRY_FIRST
    assert pauses[-1] == RETRY_MAX
    (bundle,) = outbox.lanes["oncall"].pending.values()
    assert bundle.count == 9


def test_a_crash_while_sending_sends_once_more() -> None:
    outbox = add(Outbox(), [failure()], [ONCALL])
    (each,) = due(outbox, [ONCALL], NOW + ONCALL.gather)
    after = resumed(begun(outbox, each))
    assert after.lanes["oncall"].pending == outbox.lanes["oncall"].pending
    assert after.lanes["oncall"].sending == {}


def test_too_many_topics_leave_out_the_oldest_and_say_so() -> None:
    news = [failure(n, NOW + n * SECOND, f"search/p{n:03}") for n in range(TOPICS + 5)]
    outbox = add(Outbox(), [*news, starving()], [ONCALL])
    lane = outbox.lanes["oncall"]
    assert len(lane.pending) == TOPICS
    assert lane.dropped == 6
    assert starving().topic in lane.pending
    (each,) = due(outbox, [ONCALL], NOW + 10 * MINUTE)
    assert "6 more pieces of news did not fit" in letter(each).body
    assert told(outbox, NOW + 10 * MINUTE).lanes["oncall"].dropped == 0


def test_a_few_texts_that_differ_are_kept() -> None:
    outbox = add(Outbox(), [failure(n % 7) for n in range(100)], [ONCALL])
    (bundle,) = outbox.lanes["oncall"].pending.values()
    assert len(bundle.samples) == SAMPLES
    assert bundle.samples[0].endswith("VM 0")


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 400),
            st.lists(st.sampled_from([failure, starving]), max_size=4),
            st.sampled_from(["arrives", "fails", "crash before", "crash after"]),
        ),
        max_size=30,
    )
)
def test_all_news_is_told_whatever_fails(
    steps: list[tuple[int, list[object], str]],
) -> None:
    """Exactly once without a crash after a letter arrived; never less than once."""
    outbox, now, happened, read, twice = Outbox(), NOW, 0, 0, 0
    for seconds, makers, end in [*steps, (3600, [], "arrives"), (3600, [], "arrives")]:
        now += seconds * SECOND
        news = [failure(0, now) if make is failure else starving(now) for make in makers]
        happened += len(news)
        outbox = add(outbox, news, [ONCALL])
        for each in due(outbox, [ONCALL], now):
            count = sum(bundle.count for bundle in each.bundles)
            outbox = begun(outbox, each)
            if end == "arrives":
                outbox, read = sent(outbox, each, now), read + count
            elif end == "fails":
                outbox = not_sent(outbox, each, now)
            else:
                outbox, twice = resumed(outbox), twice + count * (end == "crash after")
    assert read == happened
    assert outbox.waiting == 0
    assert outbox.lanes["oncall"].failures == 0
    assert twice >= 0


def test_nothing_is_due_in_an_empty_outbox() -> None:
    assert due(Outbox(), [ONCALL], NOW) == []
    assert wake_at(Outbox(lanes={"oncall": Lane()}), [ONCALL]) is None
