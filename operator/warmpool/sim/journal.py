"""What was asked for servers and what became of them, for whoever holds a client to its word."""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

KEPT: Final = 100_000
"""Entries that are kept, the newest: hours of a busy client, and some tens of MB."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that befell a server."""

    at: datetime
    what: str
    """`posted` (accepted, also of one that then vanishes), `active` (built), `delete`, `gone`,
    `metadata`, `tags`, `update`, or the key of an action: `rebuild`."""
    server: str
    """Its id."""
    name: str
    tags: tuple[str, ...]
    """As they were just before."""


class Journal:
    """The newest entries, in order."""

    def __init__(self, kept: int = KEPT) -> None:
        self._entries: deque[Entry] = deque(maxlen=kept)
        self.dropped = 0
        """Entries that are not kept any more."""

    def add(self, entry: Entry) -> None:
        """Take one more down."""
        self.dropped += len(self._entries) == self._entries.maxlen
        self._entries.append(entry)

    def entries(self) -> list[Entry]:
        """All that are kept, the oldest first."""
        return list(self._entries)
