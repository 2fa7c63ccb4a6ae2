"""Records find their way, whatever is down on it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest

from doubles.history import MemoryHistory, a_build
from warmpool.domain.history import Record
from warmpool.ports.history import HistoryUnavailable, Refused
from warmpool.reconcile import shipping
from warmpool.reconcile.shipping import IN_MEMORY, Shipping

pytestmark = pytest.mark.looptime


class MemorySpool:
    """A spool with room for so many records, on a disk that may fail."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.works = True
        self.kept: list[tuple[int, Record]] = []
        self._next = 1

    async def put(self, records: Sequence[Record]) -> int:
        await asyncio.sleep(0.01)
        if not self.works:
            raise HistoryUnavailable("disk full")
        for record in records:
            self.kept.append((self._next, record))
            self._next += 1
        dropped = max(0, len(self.kept) - self.room)
        del self.kept[:dropped]
        return dropped

    async def peek(self, limit: int) -> tuple[int, Sequence[Record]]:
        first = self.kept[:limit]
        return (first[-1][0] if first else 0), [r for _, r in first]

    async def drop(self, mark: int) -> None:
        self.kept = [each for each in self.kept if each[0] > mark]

    async def size(self) -> int:
        return len(self.kept)

    async def close(self) -> None:
        pass


def shipped(
    spool: MemorySpool, history: MemoryHistory, in_burst: Callable[[], bool] = lambda: False
) -> contextlib.AbstractAsyncContextManager[Shipping]:
    return Shipping(spool, history, in_burst).running()


async def until(holds: Callable[[], object], within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - the loop's own, faked time
            await asyncio.sleep(0.05)


async def test_records_are_brought_within_two_seconds() -> None:
    history = MemoryHistory()
    async with shipped(MemorySpool(), history) as under:
        for n in range(1000):
            under.take(a_build(n))
        await until(lambda: len(history.kept) == 1000, within=2)
        await until(lambda: under.waiting == 0, within=1)
    assert history.appends <= 4


async def test_records_of_a_burst_are_synced_after_it_but_not_without_end() -> None:
    spool, history, burst = MemorySpool(), MemoryHistory(), True
    async with shipped(spool, history, lambda: burst) as under:
        history.up = False
        under.take(a_build(0))
        await asyncio.sleep(shipping.GATHER_IN_BURST / 2)
        assert not spool.kept
        burst = False
        await asyncio.sleep(2 * shipping.GATHER)
        assert spool.kept, "the burst is over"
        burst = True
        under.take(a_build(1))
        await asyncio.sleep(shipping.GATHER_IN_BURST + 2 * shipping.GATHER)
        assert [record.id for _, record in spool.kept] == [a_build(n).id for n in range(2)]


async def test_nothing_is_lost_while_the_store_is_down_for_an_hour() -> None:
    history, spool = MemoryHistory(), MemorySpool()
    async with shipped(spool, history) as under:
        history.up = False
        for n in range(60):
            under.take(a_build(n))
            await asyncio.sleep(60)
        assert under.trouble == "it is down"
        assert history.appends <= 3600 / shipping.RETRY_MAX + 10, "it is not hammered"
        history.up = True
        await until(lambda: len(history.kept) == 60)
        await until(lambda: not under.trouble)
    assert under.dropped == 0
    assert spool.kept == []


async def test_what_the_spool_has_no_room_for_is_counted_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    history, spool = MemoryHistory(), MemorySpool(room=10)
    async with shipped(spool, history) as under:
        history.up = False
        for n in range(25):
            under.take(a_build(n))
        await until(lambda: under.dropped == 15)
        assert "15 records of history are lost" in caplog.text
        history.up = True
        await until(lambda: len(history.kept) == 10)
    assert list(history.kept) == [a_build(n).id for n in range(15, 25)]


async def test_records_wait_in_memory_while_the_disk_is_full() -> None:
    history, spool = MemoryHistory(), MemorySpool()
    async with shipped(spool, history) as under:
        spool.works = False
        for n in range(20):
            under.take(a_build(n))
            await asyncio.sleep(1)
        assert "disk full" in under.trouble
        spool.works = True
        await until(lambda: len(history.kept) == 20, within=5)
        await until(lambda: not under.trouble)
    assert list(history.kept) == [a_build(n).id for n in range(20)], "in their order"


async def test_memory_is_bounded_too() -> None:
    spool = MemorySpool()
    spool.works = False
    async with shipped(spool, MemoryHistory()) as under:
        for n in range(IN_MEMORY + 5):
            under.take(a_build(n))
        assert under.dropped == 5


async def test_a_record_that_the_store_refuses_does_not_hold_up_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    history = MemoryHistory()
    history.refuses = {a_build(1).id}
    async with shipped(MemorySpool(), history) as under:
        for n in range(3):
            under.take(a_build(n))
        await until(lambda: len(history.kept) == 2)
        await until(lambda: under.dropped == 1)
    assert "cannot be mapped" in caplog.text


async def test_what_was_told_last_is_in_the_spool_when_the_process_ends() -> None:
    spool = MemorySpool()
    async with shipped(spool, MemoryHistory()) as under:
        await asyncio.sleep(1)
        under.take(a_build(1))
    assert [record for _, record in spool.kept] == [a_build(1)]


async def test_what_an_earlier_process_left_is_brought_at_the_start() -> None:
    history, spool = MemoryHistory(), MemorySpool()
    await spool.put([a_build(1)])
    async with shipped(spool, history):
        await until(lambda: len(history.kept) == 1, within=2)


async def test_a_fault_of_ours_stops_nothing_for_good(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(MemoryHistory):
        async def append(self, records: Sequence[Record]) -> Sequence[Refused]:
            if not self.appends:
                self.appends = 1
                raise ZeroDivisionError
            return await super().append(records)

    history = Faulty()
    async with shipped(MemorySpool(), history) as under:
        under.take(a_build(1))
        await until(lambda: len(history.kept) == 1)
    assert "not brought any further" in caplog.text
