"""What a replica tells: records to where history is kept, metrics and the page to who asks."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from warmpool.domain.errors import WarmpoolError
from warmpool.domain.history import Record
from warmpool.domain.ids import Ref
from warmpool.effects.history_sqlite import SqliteHistory
from warmpool.effects.metrics import Metrics
from warmpool.effects.notice_routes import ReadSecret, SecretRoutes
from warmpool.effects.notify import AppriseSender
from warmpool.effects.outbox import FileBox
from warmpool.effects.spool import SqliteSpool
from warmpool.handlers import scrapes
from warmpool.handlers.page import Page
from warmpool.ports.clock import Clock
from warmpool.ports.history import History, Spool
from warmpool.ports.metrics import Sample
from warmpool.ports.reviews import Reviews
from warmpool.reconcile.metering import Refills, claims_waiting, measure_lag, pool_samples
from warmpool.reconcile.notifying import Notifying
from warmpool.reconcile.shipping import Shipping
from warmpool.reconcile.store import Store
from warmpool.settings import Settings

log = logging.getLogger(__name__)

MEGABYTE: Final = 1 << 20

HISTORY_IN_MEMORY: Final = 32 * MEGABYTE
SPOOL_IN_MEMORY: Final = 16 * MEGABYTE
"""Where there is no directory: a replica shall stay small."""


class Takes(Protocol):
    """Takes records over."""

    def take(self, record: Record) -> None:
        """Returns at once."""


class Telling:
    """Takes what the loops of a replica tell."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        *,
        identity: str,
        leads: Callable[[], bool],
        in_burst: Callable[[], bool],
    ) -> None:
        """Nothing is opened before `running`.

        `leads`: whether this replica leads now; `in_burst`: and answers a burst of claims.
        """
        self._settings = settings
        self._store = store
        self._clock = clock
        self._leads = leads
        history = open_history(settings, clock)
        self._shipping = Shipping(open_spool(settings), history, in_burst)
        self._notifying: Notifying | None = None
        self._identity = identity
        self._traces: Takes | None = None
        self._page = Page(store, history, clock, identity, leads)
        self.metrics = Metrics(self._sample)
        store.listen(Refills(store, clock, self.metrics, leads).changed)

    def emit(self, record: Record) -> None:
        """Take a record over. In the loop's own thread; returns at once."""
        self.metrics.record(record)
        self._shipping.take(record)
        if self._notifying is not None:
            self._notifying.take(record)
        if self._traces is not None:
            self._traces.take(record)

    @contextlib.asynccontextmanager
    async def running(self, reviews: Reviews, read_secret: ReadSecret) -> AsyncIterator[None]:
        """Bring records on, tell people, and serve metrics and the page meanwhile.

        Args:
            reviews: asked who may see them, where they are bound beyond loopback.
            read_secret: reads whom to tell.

        Raises:
            OSError: a port cannot be had.
            WarmpoolError: traces are asked for, and what makes them is not installed.
        """
        settings = self._settings
        if settings.history_dir is None:
            log.info("WARMPOOL_HISTORY_DIR is unset: history ends with this process, if it is here")
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._shipping.running())
            if settings.notices_secret is not None:
                secret = Ref(settings.namespace, settings.notices_secret)
                await stack.enter_async_context(self._telling_people(secret, read_secret))
            if settings.traces_url is not None:
                await stack.enter_async_context(self._tracing(settings.traces_url))
            if settings.metrics_port is not None:
                address, port = settings.metrics_address, settings.metrics_port
                scrape = self.metrics.scrape
                serving = scrapes.serving(scrape, reviews, self._clock, address, port)
                log.info("metrics at %s", await stack.enter_async_context(serving))
            if settings.page_port is not None:
                address, port = settings.page_address, settings.page_port
                serving = self._page.serving(reviews, address, port)
                log.info("the page is at %s", await stack.enter_async_context(serving))
            measuring = asyncio.ensure_future(measure_lag(self._clock, self.metrics))
            try:
                yield
            finally:
                measuring.cancel()
                await asyncio.gather(measuring, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _tracing(self, url: str) -> AsyncIterator[None]:
        # Its SDK takes memory and time to import, and is not there where nobody asked for it.
        try:
            from warmpool.effects.traces import open_traces  # noqa: PLC0415
        except ImportError as error:
            raise WarmpoolError(
                "WARMPOOL_TRACES_URL is set, but OpenTelemetry's SDK is not installed: it comes"
                f" with warmpool[traces] ({error})"
            ) from error
        self._traces = traces = open_traces(url, identity=self._identity)
        try:
            yield
        finally:
            await traces.close()

    @contextlib.asynccontextmanager
    async def _telling_people(self, secret: Ref, read_secret: ReadSecret) -> AsyncIterator[None]:
        directory = self._settings.history_dir
        notifying = Notifying(
            self._store,
            self._clock,
            box=FileBox(None if directory is None else directory / "outbox.json"),
            routes=SecretRoutes(read_secret, secret),
            sender=AppriseSender(),
            leads=self._leads,
        )
        async with notifying.running():
            self._notifying = notifying
            unlisten = self._store.listen(notifying.changed)
            try:
                yield
            finally:
                unlisten()

    def _sample(self) -> Sample:
        return Sample(
            leads=self._leads(),
            pools=pool_samples(self._store),
            claims_waiting=claims_waiting(self._store),
            spool_records=self._shipping.waiting,
            history_lost=self._shipping.dropped,
            notices_waiting=0 if self._notifying is None else self._notifying.waiting,
        )


def open_spool(settings: Settings) -> Spool:
    """The spool that the settings name."""
    if settings.history_dir is None:
        return SqliteSpool(None, max_bytes=SPOOL_IN_MEMORY)
    path = settings.history_dir / "spool.sqlite"
    return SqliteSpool(path, max_bytes=settings.spool_megabytes * MEGABYTE)


def open_history(settings: Settings, clock: Clock) -> History:
    """Where the settings say that history is kept."""
    if settings.elasticsearch_urls:
        # Its client takes memory and time to import, which only who has one shall pay.
        from warmpool.embed.elastic import open_elastic  # noqa: PLC0415

        return open_elastic(settings)
    path, size = None, HISTORY_IN_MEMORY
    if settings.history_dir is not None:
        path = settings.history_dir / "history.sqlite"
        size = settings.history_megabytes * MEGABYTE
    return SqliteHistory(path, clock, max_age=settings.history_age, max_bytes=size)
