"""Whom people's news goes to, how it gets there, and where it waits."""

from collections.abc import Sequence
from typing import Protocol

from warmpool.domain.errors import WarmpoolError
from warmpool.domain.notices import Letter, Outbox, Route


class RoutesUnknown(WarmpoolError):
    """They cannot be read, or not understood: news waits until they can."""


class NotSent(WarmpoolError):
    """The letter has not arrived, or perhaps has: send it again later."""


class OutboxUnavailable(WarmpoolError):
    """The outbox did not take it: it is kept in memory only."""


class Routes(Protocol):
    """Who wants to be told what."""

    async def read(self) -> Sequence[Route]:
        """All routes, as they are now.

        Raises:
            RoutesUnknown: see there.
        """
        ...


class Sender(Protocol):
    """Brings letters to people."""

    async def send(self, letter: Letter, to: Sequence[str]) -> None:
        """Send a letter to all of these addresses.

        Raises:
            NotSent: to one of them at least.
        """
        ...


class Box(Protocol):
    """Where the outbox is kept."""

    async def load(self) -> Outbox:
        """What was saved last; an empty one where there is none, or none that can be read."""
        ...

    async def save(self, outbox: Outbox) -> None:
        """Keep it, on disk when this returns.

        Raises:
            OutboxUnavailable: the one before is still there.
        """
        ...
