"""Letters on their way through apprise: mail, chat, and all else it knows.

The only module that knows it. It takes half a second to import, so nobody does who sends nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from warmpool.domain.notices import Letter
from warmpool.ports.notices import NotSent

WITHIN: Final = 60.0
"""Seconds for one letter to all its addresses. Later it may still arrive: it is sent again."""


class AppriseSender:
    """A `Sender`."""

    async def send(self, letter: Letter, to: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(WITHIN):
                wrong = await _aside(lambda: _send(letter, to))
        except TimeoutError as error:
            raise NotSent(f"no answer within {WITHIN:g} s") from error
        if wrong:
            raise NotSent(wrong)


def _send(letter: Letter, to: Sequence[str]) -> str:
    """What went wrong, without an address: those may hold passwords."""
    import apprise  # noqa: PLC0415 - see above

    # Its own log tells addresses; what matters of it is in the answer.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    kind = apprise.NotifyType.WARNING if letter.urgent else apprise.NotifyType.INFO
    failed = []
    for number, url in enumerate(to, 1):
        targets = apprise.Apprise()
        if not targets.add(url):
            failed.append(f"address {number} ({_scheme(url)}) is none that apprise knows")
        elif not targets.notify(
            body=letter.body,
            title=letter.title,
            notify_type=kind,
            body_format=apprise.NotifyFormat.TEXT,
        ):
            failed.append(f"address {number} ({_scheme(url)}) does not take it")
    return "; ".join(failed)


def _scheme(url: str) -> str:
    scheme, found, _ = url.partition("://")
    return f"{scheme[:20]}://" if found and scheme.isalnum() else "without a scheme"


async def _aside(work: Callable[[], str]) -> str:
    """Run in a thread that nobody waits for at the end: a mail server may be silent for long."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[str] = loop.create_future()

    def tell(result: str | Exception) -> None:
        if done.done():
            return
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)

    def run() -> None:
        try:
            result: str | Exception = work()
        except Exception as error:  # noqa: BLE001 - its plugins raise what they please
            result = NotSent(f"it failed with {type(error).__name__}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, name="notices", daemon=True).start()
    return await done
