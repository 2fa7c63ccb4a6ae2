"""Letters on their way through apprise: mail, chat, and all else it knows.

The only module that knows it. It takes half a second to import, so nobody does who sends nothing.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from warmpool.domain.notices import Letter
from warmpool.effects.threads import Daemons
from warmpool.ports.notices import NotSent

WITHIN: Final = 60.0
"""Seconds for one letter to all its addresses. Later it may still arrive: it is sent again."""


THREADS: Final = 2
"""A letter that hangs shall not keep the next one."""


class AppriseSender:
    """A `Sender`."""

    def __init__(self) -> None:
        self._threads = Daemons(THREADS, "notices")

    async def send(self, letter: Letter, to: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WITHIN):
                wrong = await loop.run_in_executor(self._threads, _send, letter, to)
        except TimeoutError as error:
            raise NotSent(f"no answer within {WITHIN:g} s") from error
        except Exception as error:
            raise NotSent(f"it failed with {type(error).__name__}") from error
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
