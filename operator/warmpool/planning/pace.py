"""Pace: the token bucket of `spec.refill`, and back-off after failures. Values, not objects."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.v1alpha1.base import seconds
from warmpool.api.v1alpha1.pool import Refill

BACKOFF_FIRST: Final = timedelta(seconds=2)
"""After a first failure: most are over by then."""

BACKOFF_MAX: Final = timedelta(seconds=45)
"""Longer, and a pool would not notice within a minute that the cause has ended."""

TEMPLATE_BACKOFF_MAX: Final = timedelta(minutes=10)
"""A template whose servers keep failing: each attempt costs the cloud a build."""


GRAIN: Final = 1e-4
"""Of a token: what lacks less than this is whole, else a wait could end a rounding too early."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens left, as of a moment."""

    tokens: float
    at: datetime


def full(refill: Refill, now: datetime) -> Bucket:
    """A new bucket: it starts full."""
    return Bucket(float(refill.max_per_cycle), now)


def filled(bucket: Bucket, refill: Refill, now: datetime) -> Bucket:
    """The bucket with what has dripped in since. A clock that steps back drips nothing."""
    passed = max(now - bucket.at, timedelta())
    dripped = refill.max_per_cycle * (passed / seconds(refill.cycle))
    return Bucket(min(bucket.tokens + dripped, float(refill.max_per_cycle)), now)


def spend(bucket: Bucket, number: int) -> Bucket:
    """Take tokens out; negative numbers give them back."""
    return replace(bucket, tokens=bucket.tokens - number)


def whole(bucket: Bucket) -> int:
    """Tokens that can be spent."""
    return int(bucket.tokens + GRAIN)


def next_token(bucket: Bucket, refill: Refill) -> datetime | None:
    """When a whole token will be there; None if there is one."""
    if whole(bucket) >= 1:
        return None
    return bucket.at + (1 - bucket.tokens) / refill.max_per_cycle * seconds(refill.cycle)


def backoff(count: int, jitter: float, longest: timedelta = BACKOFF_MAX) -> timedelta:
    """How long to wait after the `count`-th failure in a row.

    Args:
        count: 1 for the first.
        jitter: a random number in [0, 1): up to a third is taken off, so that pools that failed
            together do not come back together.
        longest: no longer than this.
    """
    doubled: timedelta = BACKOFF_FIRST * (1 << min(count - 1, 20))
    return min(doubled, longest) * (1 - jitter / 3)
