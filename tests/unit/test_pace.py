"""The token bucket of a pool, and back-off."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOW, after
from warmpool.api.v1alpha1.pool import Refill
from warmpool.planning.pace import (
    BACKOFF_FIRST,
    BACKOFF_MAX,
    Bucket,
    backoff,
    filled,
    full,
    next_token,
    spend,
    whole,
)

TEN_A_MINUTE = Refill(max_per_cycle=10, cycle="1m")


def test_a_bucket_starts_full() -> None:
    assert full(TEN_A_MINUTE, NOW) == Bucket(10, NOW)


def test_tokens_drip_in_over_the_cycle() -> None:
    assert filled(Bucket(0, NOW), TEN_A_MINUTE, after(30)) == Bucket(5, after(30))


def test_a_bucket_holds_no_more_than_a_cycle_gives() -> None:
    assert filled(Bucket(9, NOW), TEN_A_MINUTE, after(600)).tokens == 10


def test_a_clock_that_steps_back_drips_nothing() -> None:
    assert filled(Bucket(4, NOW), TEN_A_MINUTE, after(-60)) == Bucket(4, after(-60))


def test_tokens_are_spent_and_given_back() -> None:
    assert spend(spend(Bucket(4, NOW), 3), -1).tokens == 2


def test_a_bucket_with_a_whole_token_waits_for_none() -> None:
    assert next_token(Bucket(1, NOW), TEN_A_MINUTE) is None


def test_a_token_that_lacks_a_rounding_is_whole() -> None:
    """A pool that was woken a microsecond too early span until the clock had moved."""
    nearly = Bucket(1 - 1e-9, NOW)
    assert whole(nearly) == 1
    assert next_token(nearly, TEN_A_MINUTE) is None
    assert whole(Bucket(0.99, NOW)) == 0


def test_an_empty_bucket_says_when_the_next_whole_token_is_there() -> None:
    assert next_token(Bucket(0.5, NOW), TEN_A_MINUTE) == after(3)


@settings(max_examples=settings().max_examples // 5)
@given(
    st.lists(st.tuples(st.floats(0, 300), st.integers(0, 12)), max_size=20),
    st.integers(1, 20),
)
def test_over_any_time_no_more_is_spent_than_one_full_bucket_and_what_dripped_in(
    spells: list[tuple[float, int]], per_cycle: int
) -> None:
    refill = Refill(max_per_cycle=per_cycle, cycle="1m")
    bucket, moment, spent = full(refill, NOW), NOW, 0
    for passed, wish in spells:
        moment += timedelta(seconds=passed)
        bucket = filled(bucket, refill, moment)
        taken = min(wish, int(bucket.tokens))
        bucket, spent = spend(bucket, taken), spent + taken
    assert spent <= per_cycle * (1 + (moment - NOW) / timedelta(minutes=1)) + 1e-6


@settings(max_examples=settings().max_examples // 5)
@given(st.floats(0, 0.999), st.integers(1, 50))
def test_the_next_token_is_there_when_it_was_said_to_be(tokens: float, per_cycle: int) -> None:
    refill = Refill(max_per_cycle=per_cycle, cycle="15m")
    at = next_token(Bucket(tokens, NOW), refill)
    assert at is not None
    assert filled(Bucket(tokens, NOW), refill, at).tokens == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 2), (2, 4), (4, 16), (5, 32), (6, 45), (99, 45)]
)
def test_back_off_doubles_up_to_its_bound(count: int, seconds: int) -> None:
    assert backoff(count, 0) == timedelta(seconds=seconds)


def test_jitter_takes_off_a_third_at_most() -> None:
    assert BACKOFF_FIRST * 2 / 3 < backoff(1, 0.999) < BACKOFF_FIRST
    assert backoff(99, 0.999) > BACKOFF_MAX * 2 / 3


def test_a_longer_bound_may_be_given() -> None:
    assert backoff(99, 0, timedelta(minutes=10)) == timedelta(minutes=10)
