"""Where records of what happened are kept, and asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from warmpool.domain.errors import WarmpoolError
from warmpool.domain.history import Facet, Record

PAGE: Final = 500
"""Records of one answer, at most."""


class HistoryUnavailable(WarmpoolError):
    """The store did not do it, or perhaps did: the same again later does no harm."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records."""

    since: datetime | None = None
    """From this moment on."""
    until: datetime | None = None
    """Before this moment."""
    where: Mapping[Facet, frozenset[str]] = field(default_factory=dict)
    """Of each facet that is named, one of these values. The empty one: it has no such facet."""


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Where in the order of records an answer ended: by time, then by id, the newest first."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Group:
    """Records that are counted together."""

    start: datetime | None
    """Of their span of time, where counted by time."""
    values: tuple[str, ...]
    """Of the facets, in the order asked for. Empty: the records have no such facet."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the store will never take."""

    id: str
    why: str


class History(Protocol):
    """A store of records. It may forget those that are too old, or too many: the oldest first."""

    async def append(self, records: Sequence[Record]) -> Sequence[Refused]:
        """Keep records. One whose id is kept already stays as it is.

        Returns:
            Those that it will never take; all others are kept.

        Raises:
            HistoryUnavailable: try again; none, some or all are kept.
        """
        ...

    async def find(
        self, wanted: Wanted, *, limit: int = PAGE, after: Cursor | None = None
    ) -> Sequence[Record]:
        """Records, the newest first, at most `limit` (up to `PAGE`), from behind `after`.

        Raises:
            HistoryUnavailable: try again.
        """
        ...

    async def count(
        self, wanted: Wanted, by: Sequence[Facet] = (), *, every: timedelta | None = None
    ) -> Mapping[Group, int]:
        """How many records there are of each group that has any.

        Args:
            wanted: which records.
            by: what tells the groups apart.
            every: and the span of time; spans begin at whole multiples of it since 1970.

        Raises:
            HistoryUnavailable: try again.
        """
        ...

    async def close(self) -> None:
        """End. Nothing else may be asked then."""
        ...


class Spool(Protocol):
    """Records on their way to a store: first in, first out, and still there after a crash."""

    async def put(self, records: Sequence[Record]) -> int:
        """Keep records, on disk when this returns.

        Returns:
            How many older ones had to be dropped for want of room.

        Raises:
            HistoryUnavailable: none is kept.
        """
        ...

    async def peek(self, limit: int) -> tuple[int, Sequence[Record]]:
        """The oldest records, and a mark that `drop` takes.

        Raises:
            HistoryUnavailable: try again.
        """
        ...

    async def drop(self, mark: int) -> None:
        """Forget the records of a `peek`: the store has them.

        Raises:
            HistoryUnavailable: they come again.
        """
        ...

    async def size(self) -> int:
        """How many records are in it."""
        ...

    async def close(self) -> None:
        """End. Nothing else may be asked then."""
        ...
