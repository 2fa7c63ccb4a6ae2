"""How kopf is told to run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import Any

import pytest

from warmpool.handlers.hosting import LAST_BACKOFF, kopf_settings, unless_closing

ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


def test_an_api_server_that_is_away_is_waited_for_without_end_and_asked_often() -> None:
    """Once the pauses were used up after three minutes, and kopf stopped, and the replica too."""
    backoffs = kopf_settings().networking.error_backoffs
    assert isinstance(backoffs, Iterable)
    for _ in ("of one request", "of the next one"):
        pauses = list(islice(backoffs, 1000))
        assert len(pauses) == 1000
        assert pauses[0] < 1
        assert max(pauses) <= LAST_BACKOFF


@contextlib.asynccontextmanager
async def a_block() -> AsyncIterator[None]:
    try:
        yield
    finally:
        await asyncio.sleep(0)


async def a_stream() -> AsyncIterator[int]:
    async with a_block():
        while True:
            yield 1


@pytest.mark.parametrize("handler", [None, unless_closing])
def test_a_stream_that_is_left_open_is_no_error_at_the_end(
    handler: ExceptionHandler | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Kopf leaves one when it is cancelled while it shows an event."""
    streams = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(handler)
        streams.append(a_stream())
        await anext(streams[0])

    asyncio.run(main())
    assert bool(caplog.records) is (handler is None), "the loop says so if it is let"


def test_what_nobody_has_caught_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(unless_closing)
        loop.call_soon(divmod, 1, 0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert "ZeroDivisionError" in caplog.text
