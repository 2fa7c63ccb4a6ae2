"""What can wait for a lull, and how long it does."""

import asyncio

import pytest

from doubles.virtual_time import LoopClock
from warmpool.reconcile.traffic import BURST, CALM, FEW, THRONG, Traffic

pytestmark = pytest.mark.looptime


async def took(waiting: "asyncio.Future[None]") -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await waiting
    return loop.time() - began


def lull(traffic: Traffic, within: float) -> "asyncio.Future[None]":
    return asyncio.ensure_future(traffic.lull(within))


async def test_nothing_waits_where_nobody_is_answered() -> None:
    assert await took(lull(Traffic(LoopClock()), 1)) == 0


async def test_a_lull_begins_with_the_last_answer() -> None:
    traffic = Traffic(LoopClock())
    for _ in range(2):
        traffic.began(1)
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, traffic.ended, 1)
    loop.call_later(0.3, traffic.ended, 1)
    assert await took(lull(traffic, 1)) == pytest.approx(0.3)


async def test_a_burst_is_over_a_while_after_its_last_answer() -> None:
    traffic = Traffic(LoopClock())
    traffic.began(BURST)
    asyncio.get_running_loop().call_later(0.2, traffic.ended, BURST)
    assert await took(lull(traffic, 1)) == pytest.approx(0.2 + CALM, abs=0.002)


async def test_a_lull_that_does_not_come_is_not_waited_for_without_end() -> None:
    for vms in (1, BURST):
        traffic = Traffic(LoopClock())
        traffic.began(vms)
        assert await took(lull(traffic, 0.5)) == pytest.approx(0.5)


async def test_a_burst_that_gets_no_answers_for_a_while_is_not_over() -> None:
    """An API server that stood still was given the rest of the work, too."""
    traffic = Traffic(LoopClock())
    traffic.began(BURST)
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert not await traffic.calm(began + 0.5)
    assert loop.time() - began == pytest.approx(0.5)
    loop.call_later(0.2, traffic.ended, BURST)
    assert await traffic.calm(began + 2)
    assert loop.time() - began == pytest.approx(0.7 + CALM, abs=CALM)


async def test_few_are_few() -> None:
    traffic = Traffic(LoopClock())
    for _ in range(FEW + 1):
        traffic.began(1)
    asyncio.get_running_loop().call_later(0.2, traffic.ended, 1)
    assert await took(asyncio.ensure_future(traffic.few(1))) == pytest.approx(0.2)
    assert await took(asyncio.ensure_future(traffic.few(1))) == 0


async def test_it_is_quiet_a_while_after_the_last_answer() -> None:
    traffic = Traffic(LoopClock())
    assert traffic.is_quiet
    with traffic.answer():
        await asyncio.sleep(1)
        assert not traffic.is_quiet
    assert await took(lull(traffic, 1)) == 0, "nobody is answered now"
    await asyncio.sleep(CALM - 0.01)
    assert not traffic.is_quiet
    await asyncio.sleep(0.02)
    assert traffic.is_quiet


async def test_a_throng_is_of_claims_that_have_no_answer_yet() -> None:
    """However many VMs they want: few answers to wait for are few."""
    traffic = Traffic(LoopClock())
    for _ in range(THRONG - 1):
        traffic.began(15)
    assert not traffic.is_throng
    traffic.began(1)
    assert traffic.is_throng
    traffic.ended(1)
    assert not traffic.is_throng
