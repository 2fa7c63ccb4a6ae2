"""An HTTP server for as long as a context lasts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

GRACE: Final = 1.0
"""Seconds that a request under way may take when the server ends."""


@asynccontextmanager
async def listening(app: web.Application, address: str, port: int) -> AsyncIterator[str]:
    """Serve while inside; the URL, without a path. Port 0 is one that is free.

    Raises:
        OSError: the address or the port cannot be had.
    """
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=GRACE)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        host, bound = runner.addresses[0][:2]
        yield f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
    finally:
        await runner.cleanup()
