"""The read-only web page: files beside this module, what it asks for as JSON, and live changes.

On loopback it asks nobody who they are: `kubectl port-forward` is who lets people in. So that no
web page elsewhere can read it through a browser that is let in, only requests for loopback's own
names are answered there. On other addresses it answers whom Kubernetes lets list what it shows.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from warmpool.domain.ids import Ref
from warmpool.handlers.access import SEES_ALL, Guard, is_loopback
from warmpool.handlers.listening import listening
from warmpool.ports.clock import Clock
from warmpool.ports.history import History, HistoryUnavailable
from warmpool.ports.reviews import Reviews
from warmpool.reconcile import overview, reports
from warmpool.reconcile.reports import Scope
from warmpool.reconcile.store import Change, Store

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).with_name("static")

TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}

LOCAL: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

GATHER: Final = 0.5
"""Seconds that changes gather before they are shown: nobody reads faster."""

STILL_HERE: Final = 15.0
"""Seconds between signs of life on a stream where nothing happens."""

STREAM_LASTS: Final = 600.0
"""Seconds of one stream: then the browser opens another, if it may still see it."""

STREAMS: Final = 100
"""Pages that are shown changes at a time."""

HOURS: Final = 24 * 90

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """What the page is told, from one replica's memory and from its history."""

    def __init__(
        self,
        store: Store,
        history: History,
        clock: Clock,
        identity: str,
        leads: Callable[[], bool],
    ) -> None:
        self._store = store
        self._history = history
        self._clock = clock
        self._identity = identity
        self._leads = leads
        self._waiting: set[asyncio.Event] = set()
        store.listen(self._changed)

    @asynccontextmanager
    async def serving(self, reviews: Reviews, address: str, port: int) -> AsyncIterator[str]:
        """Answer while inside; the URL. Port 0 is one that is free.

        Raises:
            OSError: the address or the port cannot be had.
        """
        guard = Guard(reviews, self._clock, SEES_ALL).middleware
        inner = _loopback if is_loopback(address) else guard
        app = web.Application(middlewares=[_polite, inner])
        app.add_routes(self._routes())
        async with listening(app, address, port) as url:
            yield f"{url}/"

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", _file),
            web.get("/{file:[a-z]+[.](?:js|css)}", _file),
            web.get("/api/now", self._now),
            web.get("/api/live", self._live),
            web.get("/api/pools/{namespace}/{name}", self._density),
            web.get("/api/vms/{namespace}/{name}", self._story),
            web.get("/api/{report:builds|claims|removals|leaderships}", self._report),
        ]

    # -- now ----------------------------------------------------------------------------------

    def _all(self) -> dict[str, Any]:
        return {
            "identity": self._identity,
            "leads": self._leads(),
            "time": self._clock.now().isoformat(timespec="seconds"),
            "pools": overview.pools(self._store),
        }

    async def _now(self, _request: web.Request) -> web.Response:
        return web.json_response(self._all())

    async def _density(self, request: web.Request) -> web.Response:
        found = overview.density(self._store, _ref(request))
        if found is None:
            raise web.HTTPNotFound(text="there is no such pool")
        return web.json_response(found)

    def _changed(self, _change: Change) -> None:
        for woken in self._waiting:
            woken.set()

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: everything at once, then again whenever it has changed."""
        if len(self._waiting) >= STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages are open")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        await stream.prepare(request)
        woken, told = asyncio.Event(), ""
        ends = self._clock.monotonic() + STREAM_LASTS
        self._waiting.add(woken)
        try:
            while self._clock.monotonic() < ends:
                pools = self._all()
                text = json.dumps({**pools, "time": ""})
                said = f"data: {json.dumps(pools)}\n\n" if text != told else ": still here\n\n"
                await stream.write(said.encode())
                told = text
                woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(STILL_HERE):
                        await woken.wait()
                await asyncio.sleep(GATHER)
        except ConnectionResetError:
            log.debug("a page was closed")
        finally:
            self._waiting.discard(woken)
        return stream

    # -- history ------------------------------------------------------------------------------

    async def _story(self, request: web.Request) -> web.Response:
        return web.json_response(await reports.story(self._history, _ref(request)))

    async def _report(self, request: web.Request) -> web.Response:
        scope = self._scope(request)
        match request.match_info["report"]:
            case "builds":
                return web.json_response(await reports.builds(self._history, scope))
            case "claims":
                return web.json_response(await reports.claims(self._history, scope))
            case "removals":
                return web.json_response(await reports.removals(self._history, scope))
            case _:
                return web.json_response(await reports.leaderships(self._history, scope))

    def _scope(self, request: web.Request) -> Scope:
        now = self._clock.now() + timedelta(seconds=1)
        hours = request.query.get("hours", "24")
        if not hours.isascii() or not hours.isdigit() or not 1 <= int(hours[:6]) <= HOURS:
            raise web.HTTPBadRequest(text=f"hours: a number from 1 to {HOURS}")
        namespace, _, name = request.query.get("pool", "").partition("/")
        pool = Ref(namespace, name) if name else None
        return Scope(now - timedelta(hours=int(hours)), now, pool)


@web.middleware
async def _loopback(request: web.Request, handler: Handler) -> web.StreamResponse:
    host = request.host.rsplit(":", 1)[0] if request.host[-1:] != "]" else request.host
    if host not in LOCAL:
        raise web.HTTPForbidden(text="ask for localhost")
    return await handler(request)


@web.middleware
async def _polite(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What went wrong is told as a text, and every answer has its headers."""
    try:
        answer = await handler(request)
    except HistoryUnavailable as error:
        answer = web.Response(status=503, text=f"history cannot be asked now: {error}")
    except web.HTTPException as error:
        answer = web.Response(status=error.status, text=error.text or error.reason)
    if not answer.prepared:
        answer.headers.update(HEADERS)
    return answer


async def _file(request: web.Request) -> web.Response:
    path = STATIC / request.match_info.get("file", "index.html")
    if not path.is_file():
        raise web.HTTPNotFound(text="there is no such file")
    body = await asyncio.to_thread(path.read_text)
    return web.Response(text=body, content_type=TYPES[path.suffix], charset="utf-8")


def _ref(request: web.Request) -> Ref:
    return Ref(request.match_info["namespace"], request.match_info["name"])
