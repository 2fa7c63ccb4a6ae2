"""How often a cloud is listed, how far back, and what is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.domain.ids import VmUid
from warmpool.reconcile.rhythm import (
    AGAIN_EVERY,
    DOUBT_FOR,
    FULL_EVERY,
    POLL_MAX,
    POLL_MIN,
    QUICK,
    WIDE,
    WIDE_EVERY,
    Rhythm,
)

TEN = [VmUid(f"vm-{n}") for n in range(10)]


def begun() -> Rhythm:
    """One that has had a complete listing at time 0."""
    rhythm = Rhythm()
    assert rhythm.is_all_due(0)
    rhythm.listed_all(0, whole=True)
    return rhythm


def test_the_first_listing_is_complete_and_those_after_it_are_quick() -> None:
    rhythm = begun()
    assert not rhythm.is_all_due(1)
    assert rhythm.look_back(1) == QUICK
    assert rhythm.look_back(WIDE_EVERY - 1) == QUICK


def test_now_and_then_a_listing_looks_far_back() -> None:
    rhythm = begun()
    assert rhythm.look_back(WIDE_EVERY) == WIDE
    rhythm.listed(WIDE_EVERY, WIDE)
    assert rhythm.look_back(WIDE_EVERY + 1) == QUICK
    assert rhythm.look_back(2 * WIDE_EVERY) == WIDE


def test_rarely_one_is_complete() -> None:
    rhythm = begun()
    assert not rhythm.is_all_due(FULL_EVERY - 1)
    assert rhythm.is_all_due(FULL_EVERY)


def test_those_far_back_go_on_while_a_complete_one_takes_its_time() -> None:
    rhythm = begun()
    rhythm.listed(FULL_EVERY + 100, WIDE)
    rhythm.listed_all(FULL_EVERY, whole=True)
    assert rhythm.look_back(FULL_EVERY + 101) == QUICK
    assert rhythm.look_back(FULL_EVERY + 100 + WIDE_EVERY) == WIDE
    assert rhythm.is_all_due(2 * FULL_EVERY)


def test_a_listing_that_failed_is_tried_again_as_it_was() -> None:
    rhythm = begun()
    assert rhythm.look_back(WIDE_EVERY) == WIDE
    assert rhythm.look_back(WIDE_EVERY + 1) == WIDE
    assert rhythm.is_all_due(FULL_EVERY)
    assert rhythm.is_all_due(FULL_EVERY + 1)


def test_one_that_should_be_complete_and_is_not_is_followed_by_another_soon() -> None:
    """A cell of Nova's is down: nobody knows what it holds."""
    rhythm = Rhythm()
    rhythm.listed_all(0, whole=False)
    assert not rhythm.is_all_due(AGAIN_EVERY - 1)
    assert rhythm.is_all_due(AGAIN_EVERY)


def test_a_cloud_that_is_long_broken_is_not_hammered_with_complete_listings() -> None:
    rhythm, now, pauses = Rhythm(), 0.0, []
    for _ in range(10):
        rhythm.listed_all(now, whole=False)
        pauses.append(next(n for n in range(1000) if rhythm.is_all_due(now + n)))
        now += pauses[-1]
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300, 300]
    rhythm.listed_all(now, whole=True)
    rhythm.listed_all(now + FULL_EVERY, whole=False)
    assert rhythm.is_all_due(now + FULL_EVERY + AGAIN_EVERY)


# --- doubt ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "doubted"),
    [(10, False), (7, False), (6, True), (0, True)],
)
def test_a_listing_that_lacks_many_is_doubted(seen: int, doubted: bool) -> None:
    assert begun().doubts(5, TEN, set(TEN[:seen])) is doubted


def test_of_many_servers_a_few_may_be_lacking() -> None:
    known = [VmUid(str(n)) for n in range(1000)]
    assert not begun().doubts(5, known, set(known[150:]))
    assert begun().doubts(5, known, set(known[200:]))


def test_what_is_doubted_is_asked_for_again_soon_and_believed_in_the_end() -> None:
    rhythm, now = begun(), 100.0
    while rhythm.doubts(now, TEN, set()):
        assert rhythm.is_all_due(now + AGAIN_EVERY)
        now += AGAIN_EVERY
    assert now - 100 == pytest.approx(DOUBT_FOR, abs=AGAIN_EVERY)


def test_a_doubt_that_is_cleared_up_is_forgotten() -> None:
    rhythm = begun()
    assert rhythm.doubts(0, TEN, set())
    assert not rhythm.doubts(DOUBT_FOR, TEN, set(TEN))
    assert rhythm.doubts(2 * DOUBT_FOR, TEN, set())


# --- pace -----------------------------------------------------------------------------------


def test_until_a_build_was_seen_the_pace_is_quick() -> None:
    assert begun().pause() == POLL_MIN


def test_a_slow_cloud_is_not_asked_all_the_time() -> None:
    rhythm = begun()
    rhythm.took(1.5)
    assert rhythm.pause() == 1.5
    rhythm.took(99.0)
    assert rhythm.pause() == POLL_MAX


@pytest.mark.parametrize(("build", "pause"), [(2.0, POLL_MIN), (20.0, 1.0), (600.0, POLL_MAX)])
def test_the_pace_is_a_share_of_what_a_build_takes(build: float, pause: float) -> None:
    rhythm = begun()
    for _ in range(50):
        rhythm.built(build)
    assert rhythm.pause() == pytest.approx(pause)


@given(st.lists(st.floats(0, 10_000), max_size=20))
def test_the_pace_is_within_its_bounds_whatever_builds_take(builds: list[float]) -> None:
    rhythm = begun()
    for seconds in builds:
        rhythm.built(seconds)
    assert POLL_MIN <= rhythm.pause() <= POLL_MAX
