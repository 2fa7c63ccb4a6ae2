"""How long a pool waits after what went wrong, and what ends the waiting."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.pool import CloudRef, Template, WarmPoolSpec
from warmpool.domain.ids import Ref, VmUid
from warmpool.reconcile.setbacks import Setbacks

OLD, NEW = VmUid("old"), VmUid("new")


class Clock:
    """Stands still until it is pushed."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def push(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def setbacks(clock: Clock) -> Setbacks:
    return Setbacks(Ref("search", "es-data"), clock, random.Random(1))  # noqa: S311 - jitter


def a_spec(*, image: str = "debian", replicas: int = 1) -> WarmPoolSpec:
    return WarmPoolSpec(
        replicas=replicas,
        cloud_ref=CloudRef(secret_name="cloud", cloud="lab"),  # noqa: S106 - a Secret's name
        template=Template(flavor="small", image=image),
    )


def test_a_refusal_holds_its_zone_and_no_other(setbacks: Setbacks, clock: Clock) -> None:
    setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "2 of 2")
    assert set(setbacks.holds()) == {"az1"}
    clock.push(60)
    assert setbacks.holds() == {}


def test_each_refusal_holds_longer(setbacks: Setbacks, clock: Clock) -> None:
    waits = []
    for _ in range(4):
        setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "2 of 2")
        waits.append((setbacks.holds()["az1"].until - clock.now()).total_seconds())
        clock.push(120)
    assert waits == sorted(waits)
    assert waits[-1] > 3 * waits[0]


def test_of_builds_refused_together_one_counts(setbacks: Setbacks) -> None:
    for _ in range(5):
        setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "2 of 2")
    assert setbacks.holds()["az1"].count == 1


def test_a_build_taken_before_a_refusal_does_not_end_it(setbacks: Setbacks, clock: Clock) -> None:
    """Its success showed a pool without a failure, and had it ask the full project at once."""
    setbacks.posted(OLD)
    clock.push(0.1)
    setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "2 of 2")
    clock.push(0.5)
    setbacks.succeeded(OLD, "az1")
    assert set(setbacks.holds()) == {"az1"}
    assert setbacks.last is not None
    assert setbacks.last.reason == "QuotaExceeded"


def test_a_build_taken_after_a_refusal_ends_it(setbacks: Setbacks, clock: Clock) -> None:
    setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "2 of 2")
    clock.push(10)
    setbacks.posted(NEW)
    setbacks.succeeded(NEW, "az1")
    assert setbacks.last is None
    setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "4 of 4")
    assert setbacks.holds()["az1"].count == 1


def test_a_refusal_in_one_zone_outlasts_a_success_in_another(
    setbacks: Setbacks, clock: Clock
) -> None:
    setbacks.refused("az1", Reason.NO_VALID_HOST, "none")
    clock.push(1)
    setbacks.posted(NEW)
    setbacks.succeeded(NEW, "az2")
    assert set(setbacks.holds()) == {"az1"}
    assert setbacks.last is not None


def test_a_failure_is_shown_until_the_pool_is_full(setbacks: Setbacks, clock: Clock) -> None:
    """A zone that was full once, and not needed since, had its failure shown for ever."""
    setbacks.refused("az1", Reason.QUOTA_EXCEEDED, "2 of 2")
    assert setbacks.showing(full=True) is not None
    clock.push(60)
    assert setbacks.showing(full=False) is not None
    assert setbacks.showing(full=True) is None


def test_a_first_failure_is_made_good_at_once_and_the_next_ones_slowly(setbacks: Setbacks) -> None:
    setbacks.failed(Reason.BUILD_FAULT, "aborted")
    assert setbacks.holds() == {}
    setbacks.failed(Reason.BUILD_FAULT, "aborted")
    assert setbacks.holds()[""].reason is Reason.BUILD_FAULT
    assert setbacks.last is not None
    assert setbacks.last.count == 2
    setbacks.succeeded(NEW, "az1")
    assert setbacks.holds() == {}
    assert setbacks.last is None


def test_a_template_that_is_changed_is_tried_at_once(setbacks: Setbacks) -> None:
    """A pool held for minutes because of an image went on waiting when it was given another."""
    setbacks.heed(a_spec())
    for _ in range(6):
        setbacks.failed(Reason.BUILD_FAULT, "aborted")
    setbacks.heed(a_spec(replicas=9))
    assert setbacks.holds() != {}
    setbacks.heed(a_spec(image="another"))
    assert setbacks.holds() == {}
    assert setbacks.last is None
