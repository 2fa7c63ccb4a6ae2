"""Alive is who turns, ready is who lacks nothing."""

import asyncio

import pytest

from builders import NOW
from warmpool.reconcile.vitals import STUCK_AFTER, Beat, Vitals
from warmpool.sim.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def vitals(clock: ManualClock) -> Vitals:
    return Vitals(clock)


def stuck(vitals: Vitals) -> list[str]:
    return [turn.name for turn in vitals.turns() if turn.stuck]


def test_a_loop_that_turns_is_alive(vitals: Vitals, clock: ManualClock) -> None:
    with vitals.pulse("binder") as beat:
        for _ in range(5):
            clock.advance(STUCK_AFTER)
            assert stuck(vitals) == []
            beat()


def test_a_loop_that_does_not_turn_hangs(vitals: Vitals, clock: ManualClock) -> None:
    with vitals.pulse("binder"), vitals.pulse("keeper") as beat:
        clock.advance(STUCK_AFTER)
        beat()
        clock.advance(1)
        assert stuck(vitals) == ["binder"]


def test_a_loop_may_have_a_pace_of_its_own(vitals: Vitals, clock: ManualClock) -> None:
    with vitals.pulse("comparer", 1000), vitals.pulse("binder", 5):
        clock.advance(10)
        assert stuck(vitals) == ["binder"]


def test_a_loop_that_has_ended_need_not_turn(vitals: Vitals, clock: ManualClock) -> None:
    with vitals.pulse("binder"):
        pass
    clock.advance(2 * STUCK_AFTER)
    assert vitals.turns() == []


def test_two_loops_of_one_name_are_two(vitals: Vitals, clock: ManualClock) -> None:
    """A pool deleted and created again has two workers for a moment."""
    with vitals.pulse("pool a/b"):
        with vitals.pulse("pool a/b"):
            assert len(vitals.turns()) == 2
        clock.advance(2 * STUCK_AFTER)
        assert stuck(vitals) == ["pool a/b"]


async def test_a_loop_is_watched_for_as_long_as_it_runs(vitals: Vitals, clock: ManualClock) -> None:
    async def loop(beat: Beat) -> None:
        beat()
        clock.advance(STUCK_AFTER + 1)
        assert stuck(vitals) == ["loop"]
        raise KeyError("it dies")

    with pytest.raises(KeyError):
        await vitals.watch("loop", loop)
    assert vitals.turns() == []


async def test_ready_is_who_lacks_nothing(vitals: Vitals) -> None:
    vitals.need("objects")
    vitals.need("streams")
    seen = asyncio.ensure_future(vitals.ready())
    vitals.has("objects")
    await asyncio.sleep(0)
    assert vitals.lacks() == ["streams"]
    assert not seen.done()
    vitals.has("streams")
    async with asyncio.timeout(5):
        await seen
    assert vitals.lacks() == []
