"""When Kubernetes Events are written, and which of too many."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from doubles.cluster import FakeCluster
from doubles.virtual_time import LoopClock
from warmpool.api.names import Kind, Reason
from warmpool.api.v1alpha1.base import micro_timestamp
from warmpool.domain.errors import ClusterUnavailable
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body
from warmpool.reconcile.events import BURST, CALM_WITHIN, EVERY, Announcer, Event
from warmpool.reconcile.traffic import BURST as A_BURST
from warmpool.reconcile.traffic import CALM, Traffic

pytestmark = pytest.mark.looptime


class Clerk(FakeCluster):
    """An API server that remembers when each Event came, and refuses the first of them."""

    def __init__(self, refusals: int = 0) -> None:
        super().__init__(LoopClock().now)
        self.refusals = refusals
        self.came_at: list[float] = []

    async def event(self, namespace: str, body: Body) -> None:
        self.came_at.append(asyncio.get_running_loop().time())
        if self.refusals:
            self.refusals -= 1
            raise ClusterUnavailable("not now")
        await super().event(namespace, body)

    @property
    def notes(self) -> Sequence[Any]:
        return [body["note"] for _, body in self.events]


@contextlib.asynccontextmanager
async def announcing(clerk: Clerk, traffic: Traffic) -> AsyncIterator[Announcer]:
    announcer = Announcer(clerk, LoopClock(), "me", traffic)
    running = asyncio.ensure_future(announcer.run(lambda: None))
    try:
        yield announcer
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def an_event(note: str) -> Event:
    return Event(Kind.VM_CLAIM, Ref("ns", "c"), "uid-c", Reason.BOUND, note)


async def test_an_event_is_written_at_once_and_the_next_a_while_later() -> None:
    clerk = Clerk()
    async with announcing(clerk, Traffic(LoopClock())) as announcer:
        began = asyncio.get_running_loop().time()
        announcer.say(an_event("one"))
        announcer.say(an_event("two"))
        await asyncio.sleep(2 * EVERY)
    assert clerk.notes == ["one", "two"]
    assert [at - began for at in clerk.came_at] == pytest.approx([0, EVERY], abs=0.05)


@contextlib.contextmanager
def a_burst(traffic: Traffic) -> Iterator[None]:
    """Claims that are being answered, and none of them is for now."""
    traffic.began(A_BURST)
    try:
        yield
    finally:
        traffic.ended(A_BURST)


async def test_events_wait_for_the_end_of_a_burst_and_bear_the_time_of_what_they_tell() -> None:
    clerk, traffic = Clerk(), Traffic(LoopClock())
    async with announcing(clerk, traffic) as announcer:
        with a_burst(traffic):
            told, began = LoopClock().now(), asyncio.get_running_loop().time()
            announcer.say(an_event("bound"))
            await asyncio.sleep(0.3)
            assert clerk.came_at == []
        await asyncio.sleep(2 * CALM)
    assert clerk.came_at[0] - began == pytest.approx(0.3 + CALM, abs=0.01)
    assert clerk.events[0][1]["eventTime"] == micro_timestamp(told)


async def test_a_burst_without_end_is_not_waited_for_without_end() -> None:
    clerk, traffic = Clerk(), Traffic(LoopClock())
    with a_burst(traffic):
        async with announcing(clerk, traffic) as announcer:
            began = asyncio.get_running_loop().time()
            announcer.say(an_event("bound"))
            await asyncio.sleep(CALM_WITHIN + 0.1)
    assert clerk.came_at[0] - began == pytest.approx(CALM_WITHIN, abs=0.01)


@pytest.mark.parametrize("bursts", [False, True])
async def test_of_too_many_the_newest_are_written(bursts: bool) -> None:
    clerk, traffic = Clerk(), Traffic(LoopClock())
    async with announcing(clerk, traffic) as announcer:
        with a_burst(traffic) if bursts else contextlib.nullcontext():
            announcer.say(an_event("0"))
            if bursts:
                await asyncio.sleep(CALM)  # the first waits for the end of it as the others do
            for number in range(1, BURST + 5):
                announcer.say(an_event(f"{number}"))
        await asyncio.sleep((BURST + 5) * (EVERY + 0.1))
    assert clerk.notes == [f"{number}" for number in range(5, BURST + 5)]


async def test_who_writes_events_all_the_time_is_seen_to_live() -> None:
    clerk, beats = Clerk(), []
    announcer = Announcer(clerk, LoopClock(), "me", Traffic(LoopClock()))
    loop = asyncio.get_running_loop()
    for number in range(10):
        announcer.say(an_event(f"{number}"))
    running = asyncio.ensure_future(announcer.run(lambda: beats.append(loop.time())))
    await asyncio.sleep(10 * (EVERY + 0.1))
    running.cancel()
    assert len(clerk.notes) == 10
    assert len(beats) > 10


async def test_one_that_cannot_be_written_keeps_none_back() -> None:
    clerk = Clerk(refusals=1)
    async with announcing(clerk, Traffic(LoopClock())) as announcer:
        announcer.say(an_event("one"))
        announcer.say(an_event("two"))
        await asyncio.sleep(3 * EVERY)
    assert clerk.notes == ["two"]
