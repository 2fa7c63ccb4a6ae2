"""Where the watch streams run: in our own loop, or apart from a loop that is somebody else's.

kopf takes a loop for its own: at its end it cancels every task there that is younger than itself,
and in the main thread it takes over SIGINT and SIGTERM. In somebody else's loop it has no place. It
then gets a thread with a loop of its own, and what it sees is posted into the other one.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from warmpool.handlers.intake import Post

Watch = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event, of the loop it runs in, is set."""


def into(loop: asyncio.AbstractEventLoop) -> Post:
    """Post into another thread's loop."""

    def post(call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed: nobody is there any more
            loop.call_soon_threadsafe(call, *args)

    return post


async def apart(watch: Watch, stop: asyncio.Event) -> None:
    """Run in a thread with a loop of its own until `stop`, of this loop, is set, or it ends."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    ended: Future[None] = Future()
    thread = threading.Thread(target=_run, args=(watch, begun, ended), name="watches", daemon=True)
    thread.start()
    other, stop_there = await asyncio.wrap_future(begun)
    stopping = asyncio.ensure_future(stop.wait())
    over = asyncio.wrap_future(ended)
    try:
        await asyncio.wait((stopping, over), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not ended.done():
            other.call_soon_threadsafe(stop_there.set)
    await over


def _run(
    watch: Watch,
    begun: "Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]",
    ended: "Future[None]",
) -> None:
    async def main() -> None:
        stop = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), stop))
        await watch(stop)

    try:
        asyncio.run(main())
    except BaseException as error:  # noqa: BLE001 - whoever waits is told
        if not begun.done():
            begun.set_exception(error)
        ended.set_exception(error)
    else:
        ended.set_result(None)
