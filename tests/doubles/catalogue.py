"""A catalogue that may be away, in memory."""

from collections.abc import Callable

from warmpool.api.names import Reason
from warmpool.domain.catalogue import Entry, Found, NoEntry
from warmpool.ports.catalogue import Changed

AWAY = NoEntry(Reason.CATALOGUE_UNAVAILABLE, "MongoDB: it cannot be reached")


class Shelf:
    """`ports.catalogue.Catalogue`."""

    def __init__(self, *entries: Entry) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._listeners: list[Changed] = []
        self._why: NoEntry | None = None
        self._forgets = False

    def find(self, name: str) -> Found:
        if self._why is not None and (self._forgets or name not in self._entries):
            return Found(self._why)
        if name in self._entries:
            return Found(self._entries[name], self._why)
        return Found(NoEntry(Reason.ENTRY_NOT_FOUND, f"there is no {name!r}"))

    def listen(self, changed: Changed) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def put(self, entry: Entry) -> None:
        self._entries[entry.name] = entry
        self._tell()

    def remove(self, name: str) -> None:
        del self._entries[name]
        self._tell()

    def goes(self, why: NoEntry = AWAY, *, forgets: bool = False) -> None:
        """It cannot say, for this reason; if it `forgets`, as one that was never read."""
        self._why, self._forgets = why, forgets
        self._tell()

    def comes_back(self) -> None:
        self._why = None
        self._tell()

    def _tell(self) -> None:
        for name in self._entries:
            for listener in self._listeners:
                listener(name)
