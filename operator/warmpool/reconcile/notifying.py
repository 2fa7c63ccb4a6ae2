"""Tells people: takes what the loops tell, keeps it in the outbox, has it sent when it is due.

It is never in anybody's way: what cannot be sent waits, what cannot be saved is kept in memory.
Every replica runs it: one that leads no more may still have something to tell.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from warmpool.api.names import Kind
from warmpool.domain.history import Record
from warmpool.domain.ids import Ref
from warmpool.domain.notices import News, Outbox, Route
from warmpool.planning import notices
from warmpool.planning.letters import letter
from warmpool.planning.news import look_at, news_of
from warmpool.ports.clock import Clock
from warmpool.ports.notices import Box, NotSent, OutboxUnavailable, Routes, RoutesUnknown, Sender
from warmpool.reconcile.store import Change, Store

log = logging.getLogger(__name__)

GATHER: Final = 0.5
"""Seconds that news gathers before the outbox is saved: what a crash of the process may cost."""

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at pools and routes, though nothing was told."""

READ_EVERY: Final = 30.0
"""Seconds after which the routes are read again."""

IN_MEMORY: Final = 10_000
"""Pieces of news that are not in the outbox yet; beyond that the oldest are dropped."""


class Notifying:
    """Notices of one replica."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        store: Store,
        clock: Clock,
        *,
        box: Box,
        routes: Routes,
        sender: Sender,
        leads: Callable[[], bool],
    ) -> None:
        """`leads`: whether this replica looks at pools, of all that see the same."""
        self._store = store
        self._clock = clock
        self._box = box
        self._source = routes
        self._sender = sender
        self._leads = leads
        self._outbox = Outbox()
        self._saved = Outbox()
        self._routes: Sequence[Route] | None = None
        self._read_at = float("-inf")
        self._taken: deque[News] = deque(maxlen=IN_MEMORY)
        self._touched: set[Ref] = set()
        self._looks: dict[Ref, datetime] = {}
        self._some = asyncio.Event()
        self._more = asyncio.Event()
        self._saving = asyncio.Lock()
        self._trouble: dict[str, str] = {}

    @property
    def waiting(self) -> int:
        """What people have not been told yet."""
        return self._outbox.waiting

    def take(self, record: Record) -> None:
        """Take a record over, if it is news. In the loop's own thread; returns at once."""
        if (news := news_of(record)) is not None:
            self._taken.append(news)
            self._some.set()

    def changed(self, change: Change) -> None:
        """A pool may have news. To be told of every change in the store."""
        if change.kind is Kind.WARM_POOL and change.pool is not None:
            self._touched.add(change.pool)
            self._some.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell people meanwhile; then have what is left saved."""
        self._outbox = self._saved = notices.resumed(await self._box.load())
        running = asyncio.ensure_future(self._run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self._gather_in()
            await self._save()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._take_in(), name="notices-outbox")
                    tasks.create_task(self._send_all(), name="notices-send")
            except Exception:
                log.exception("nobody is told anything for now")
                await asyncio.sleep(READ_EVERY)

    # -- into the outbox ----------------------------------------------------------------------

    async def _take_in(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._some.wait()
            await asyncio.sleep(GATHER)
            self._some.clear()
            await self._read_routes()
            self._gather_in()
            await self._save()
            self._more.set()

    async def _read_routes(self) -> None:
        if self._clock.monotonic() < self._read_at + READ_EVERY:
            return
        self._read_at = self._clock.monotonic()
        try:
            self._routes = await self._source.read()
        except RoutesUnknown as error:  # those that were known are as good as any
            self._say("routes", str(error))
        else:
            self._say("routes", "")

    def _gather_in(self) -> None:
        news = [*self._taken, *(self._look_at_pools() if self._leads() else ())]
        self._taken.clear()
        if news or self._outbox.unrouted or self._routes is not None:
            self._outbox = notices.add(self._outbox, news, self._routes)

    def _look_at_pools(self) -> list[News]:
        now, moods = self._clock.now(), dict(self._outbox.moods)
        news: list[News] = []
        touched = self._touched | {ref for ref, at in self._looks.items() if at <= now}
        self._touched = set()
        for ref in sorted(touched):
            self._looks.pop(ref, None)
            pool = self._store.pool(ref)
            if pool is None or pool.deleting:
                continue
            look = look_at(pool, moods.get(pool.uid), now)
            moods[pool.uid] = look.mood
            news.extend(look.news)
            if look.again is not None:
                self._looks[ref] = look.again
        if touched:
            known = {pool.uid for pool in self._store.pools()}
            moods = {uid: mood for uid, mood in moods.items() if uid in known}
        self._outbox = replace(self._outbox, moods=moods)
        return news

    async def _save(self) -> None:
        async with self._saving:
            outbox = self._outbox
            if outbox == self._saved:
                return
            try:
                await self._box.save(outbox)
            except OutboxUnavailable as error:
                self._say("outbox", str(error))
            else:
                self._saved = outbox
                self._say("outbox", "")

    # -- and on -------------------------------------------------------------------------------

    async def _send_all(self) -> None:
        while True:
            self._more.clear()
            for due in notices.due(self._outbox, self._routes or (), self._clock.now()):
                await self._send(due)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_in()):
                    await self._more.wait()

    def _next_in(self) -> float:
        at = notices.wake_at(self._outbox, self._routes or ())
        left = READ_EVERY if at is None else (at - self._clock.now()).total_seconds()
        return min(max(GATHER, left), READ_EVERY)

    async def _send(self, due: notices.Due) -> None:
        self._outbox = notices.begun(self._outbox, due)
        await self._save()
        try:
            await self._sender.send(letter(due), due.route.to)
        except NotSent as error:
            self._outbox = notices.not_sent(self._outbox, due, self._clock.now())
            self._say(f"route {due.route.name}", str(error))
        else:
            self._outbox = notices.sent(self._outbox, due, self._clock.now())
            self._say(f"route {due.route.name}", "")
        await self._save()

    def _say(self, what: str, trouble: str) -> None:
        """Log trouble when it begins, changes and ends."""
        if trouble == self._trouble.get(what, ""):
            return
        self._trouble[what] = trouble
        if trouble:
            log.warning("notices wait, %s: %s", what, trouble)
        else:
            log.info("notices, %s: all is well again", what)
