"""`/metrics`, for Prometheus. Read-only, and without anything secret.

Beyond loopback it is answered to whom Kubernetes lets read metrics.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from warmpool.handlers.access import SCRAPES, Guard, is_loopback
from warmpool.handlers.listening import listening
from warmpool.ports.clock import Clock
from warmpool.ports.reviews import Reviews

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def serving(
    scrape: Callable[[], Callable[[], bytes]],
    reviews: Reviews,
    clock: Clock,
    address: str,
    port: int,
) -> AsyncIterator[str]:
    """Answer while inside; the URL. Port 0 is one that is free.

    `scrape` looks at what there is, in the loop, and returns what a thread makes a text of.

    Raises:
        OSError: the address or the port cannot be had.
    """

    async def scraped(_request: web.Request) -> web.Response:
        text = await asyncio.to_thread(scrape())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    guard = Guard(reviews, clock, SCRAPES).middleware
    app = web.Application(middlewares=[] if is_loopback(address) else [guard])
    app.add_routes([web.get("/metrics", scraped)])
    async with listening(app, address, port) as url:
        yield f"{url}/metrics"
