"""Brings records from the loops to where history is kept: through a spool, never in anybody's way.

Two tasks. One takes what the loops tell, a few times a second, and has it synced to the spool: what
is there survives whatever comes. The other carries the spool to the store for as long as that
takes. A record may be brought twice; its id makes one of it. Where records must be dropped, since
the store is away for too long or the disk is full, their number is told, loudly.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Self

from warmpool.domain.history import Record
from warmpool.ports.history import History, HistoryUnavailable, Spool

log = logging.getLogger(__name__)

GATHER: Final = 0.2
"""Seconds that records gather before they are synced: what a crash of the process may cost..."""

GATHER_IN_BURST: Final = 1.0
"""...and so many at most while a burst of claims is being answered: the thread that writes records
down takes a tenth of the loop's time then."""

IN_MEMORY: Final = 20_000
"""Records that wait for a disk that does not take them; beyond that the oldest are dropped."""

SETTLE: Final = 1.0
"""Seconds that what is synced waits before it is brought on: by then a burst of claims is over."""

BATCH: Final = 500
"""Records brought to the store at a time."""

RETRY_FIRST: Final = 1.0
"""Seconds until a store that was not there is tried again, twice as long each time..."""

RETRY_MAX: Final = 30.0
"""...up to this."""

LAST_CALL: Final = 3.0
"""Seconds that the end of the process may take for what is still to be synced."""


class Shipping:
    """Ships for one replica, whether it leads or not: a former leader has records left."""

    def __init__(self, spool: Spool, history: History, in_burst: Callable[[], bool]) -> None:
        """`in_burst`: whether a burst of claims is being answered now."""
        self._spool = spool
        self._history = history
        self._in_burst = in_burst
        self._taken: deque[Record] = deque()
        self._some = asyncio.Event()
        self._spooled = asyncio.Event()
        self.dropped = 0
        """Records lost so far."""
        self.waiting = 0
        """Records in the spool, when last seen."""
        self.trouble = ""
        """Why nothing is shipped. Empty: it is."""

    def take(self, record: Record) -> None:
        """Take a record over. To be called in the loop's own thread; returns at once."""
        self._taken.append(record)
        if len(self._taken) > IN_MEMORY:
            self._taken.popleft()
            self._lost(1, "the disk of the spool does not take them")
        self._some.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Ship meanwhile; then have what is left synced, and close both.

        Whatever goes wrong in here is logged and stays in here: nobody goes without VMs because
        of what is told about them.
        """
        self._spooled.set()
        running = asyncio.ensure_future(self._run())
        try:
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            with contextlib.suppress(TimeoutError, HistoryUnavailable):
                async with asyncio.timeout(LAST_CALL):
                    await self._put()
            await self._spool.close()
            await self._history.close()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._take_in(), name="history-spool")
                    tasks.create_task(self._carry(), name="history-carry")
            except Exception:
                log.exception("history is not brought any further for now")
                self._some.set()
                self._spooled.set()
                await asyncio.sleep(RETRY_MAX)

    # -- into the spool -----------------------------------------------------------------------

    async def _take_in(self) -> None:
        while True:
            await self._some.wait()
            await self._gather()
            self._some.clear()
            try:
                await self._put()
            except HistoryUnavailable as error:
                self._say(f"the spool takes nothing: {error}")
                self._some.set()
                await asyncio.sleep(RETRY_FIRST)

    async def _gather(self) -> None:
        gathered = 0.0
        while gathered < (GATHER_IN_BURST if self._in_burst() else GATHER):
            await asyncio.sleep(GATHER)
            gathered += GATHER

    async def _put(self) -> None:
        records = list(self._taken)
        if not records:
            return
        self._taken.clear()
        try:
            dropped = await self._spool.put(records)
        except BaseException:
            self._taken.extendleft(reversed(records))
            raise
        self._lost(dropped, "the spool is full")
        self._spooled.set()

    # -- and on -------------------------------------------------------------------------------

    async def _carry(self) -> None:
        pause = RETRY_FIRST
        while True:
            await self._spooled.wait()
            await asyncio.sleep(SETTLE)
            self._spooled.clear()
            try:
                await self._carry_all()
            except HistoryUnavailable as error:
                self._say(str(error))
                self._spooled.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_MAX)
            else:
                self._say("")
                pause = RETRY_FIRST

    async def _carry_all(self) -> None:
        while True:
            mark, records = await self._spool.peek(BATCH)
            self.waiting = await self._spool.size()
            if not mark:
                return
            for refused in await self._history.append(records) if records else ():
                log.error("record %s is refused: %s", refused.id, refused.why)
                self._lost(1, "the store refuses them")
            await self._spool.drop(mark)

    # -- telling ------------------------------------------------------------------------------

    def _lost(self, count: int, why: str) -> None:
        if count:
            self.dropped += count
            log.error("%d records of history are lost: %s; %d so far", count, why, self.dropped)

    def _say(self, trouble: str) -> None:
        if bool(trouble) != bool(self.trouble):
            if trouble:
                log.warning("history is kept in the spool for now: %s", trouble)
            else:
                log.info("history is brought to its store again")
        self.trouble = trouble
