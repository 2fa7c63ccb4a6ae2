"""The loops of a leader turn, busy or idle, and one that hangs is told from the others."""

import asyncio
from typing import Any

import pytest

from lab import Lab
from warmpool.reconcile.capacity import Capacity
from warmpool.reconcile.sweeper import READ_WITHIN
from warmpool.reconcile.vitals import STUCK_AFTER, TURN_EVERY
from warmpool.reconcile.workers import WORKED_WITHIN
from warmpool.sim.faults import ApiFault

pytestmark = pytest.mark.looptime

OF_A_LEADER = {"binder", "clerk", "pools", "keeper", "events", "sweeper", "orphans"}


def stuck(lab: Lab) -> list[str]:
    return [turn.name for turn in lab.vitals.turns() if turn.stuck]


def slowest(lab: Lab) -> float:
    return max(turn.ago for turn in lab.vitals.turns())


async def hang(*_: object, **__: object) -> Any:
    await asyncio.Event().wait()


async def test_every_loop_has_a_pulse_and_all_of_them_turn() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        names = {turn.name for turn in lab.vitals.turns()}
        cloud = "cloud lab of search/lab-cloud"
        of_a_cloud = {cloud, f"room in {cloud}", f"racks of {cloud}"}
        assert names == {*OF_A_LEADER, "pool search/data", *of_a_cloud}
        await lab.always(lambda: slowest(lab) < STUCK_AFTER / 2, STUCK_AFTER)


async def test_an_idle_leader_turns() -> None:
    async with Lab() as lab:
        await asyncio.sleep(2 * STUCK_AFTER)
        turns = {turn.name: turn.ago for turn in lab.vitals.turns()}
        assert set(turns) == OF_A_LEADER
        assert (
            max(turns[name] for name in OF_A_LEADER - {"sweeper", "orphans", "clerk"})
            <= TURN_EVERY + 1
        )


async def test_a_cloud_that_is_down_makes_no_loop_hang() -> None:
    """To restart the operator would not mend the cloud."""
    async with Lab() as lab:
        lab.arm(ApiFault(effect="status", status=503, seconds=2 * STUCK_AFTER))
        lab.pool(replicas=3)
        await lab.until(lambda: {turn.name for turn in lab.vitals.turns()} > OF_A_LEADER)
        await lab.always(lambda: slowest(lab) < STUCK_AFTER / 2, STUCK_AFTER)


async def test_a_binder_that_hangs_is_named_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        monkeypatch.setattr(lab.cluster, "replace", hang)  # the ledger's writes
        lab.claim()
        await lab.always(lambda: stuck(lab) == [], STUCK_AFTER - TURN_EVERY)
        await asyncio.sleep(2 * TURN_EVERY)
        assert stuck(lab) == ["binder"]


async def test_a_takeover_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Lab() as lab:
        monkeypatch.setattr(lab.cluster, "list", hang)
        await lab.restart()
        await lab.always(lambda: stuck(lab) == [], READ_WITHIN - 1)
        await asyncio.sleep(2)
        assert stuck(lab) == ["takeover"]


async def test_a_look_at_the_clouds_room_that_hangs_is_named_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        monkeypatch.setattr(Capacity, "_read_due", hang)
        lab.claim()
        await asyncio.sleep(STUCK_AFTER + TURN_EVERY)
        assert stuck(lab) == ["room in cloud lab of search/lab-cloud"]


async def test_a_pool_that_hangs_is_named_and_no_other_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Lab() as lab:
        monkeypatch.setattr(lab.cluster, "secret", hang)
        lab.pool("data", replicas=1)
        await asyncio.sleep(1)
        monkeypatch.undo()
        pool = lab.pool("other", replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        await lab.always(lambda: stuck(lab) == [], WORKED_WITHIN - TURN_EVERY)
        await asyncio.sleep(2 * TURN_EVERY)
        assert stuck(lab) == ["pool search/data"]
