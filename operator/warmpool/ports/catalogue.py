"""The catalogue: what names mean."""

from collections.abc import Callable
from typing import Protocol

from warmpool.domain.catalogue import Found

Changed = Callable[[str], None]
"""Told the name of an entry that means something else now, or nothing any more."""


class Catalogue(Protocol):
    """Entries by name, kept in memory: asking takes no time and never fails.

    What cannot be read, or is malformed, leaves the last good value in force, and says so.
    """

    def find(self, name: str) -> Found:
        """What a name means now."""
        ...

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Be told of changes; the answer is what ends that."""
        ...

    async def run(self, beat: Callable[[], None]) -> None:
        """Keep current until cancelled. `beat` is called at each turn: every minute at least."""
        ...
