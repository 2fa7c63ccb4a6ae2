"""History in an SQLite file: what a replica keeps where nothing else is configured.

A row holds the record as text, and its facets in columns of their own. It is bounded by age and by
size; the oldest go first.
"""

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from warmpool.domain.history import Facet, Record, facets
from warmpool.domain.history_text import from_text, to_text
from warmpool.effects.sqlite import Database, insert, size_of
from warmpool.ports.clock import Clock
from warmpool.ports.history import PAGE, Cursor, Group, Refused, Wanted

log = logging.getLogger(__name__)

TRIM_EVERY: Final = 60.0
"""Seconds between looks whether there is too much."""

TRIM_PART: Final = 50
"""When there is too much, one record in so many goes at a time."""

MILLISECOND: Final = timedelta(milliseconds=1)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS: Final = {facet: f"f_{facet.value}" for facet in Facet}

_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS records (
  id TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL, body TEXT NOT NULL,
  {", ".join(f"{column} TEXT NOT NULL DEFAULT ''" for column in _COLUMNS.values())}
);
CREATE INDEX IF NOT EXISTS by_time ON records (at, id);
CREATE INDEX IF NOT EXISTS by_kind ON records (f_kind, at, id);
CREATE INDEX IF NOT EXISTS by_pool ON records (f_pool, f_kind, at);
CREATE INDEX IF NOT EXISTS by_vm ON records (f_vm) WHERE f_vm <> '';
CREATE INDEX IF NOT EXISTS by_claim ON records (f_claim) WHERE f_claim <> '';
"""

_INTO: Final = f"records (id, at, body, {', '.join(_COLUMNS.values())})"


class SqliteHistory:
    """A `History` in one file, or in memory where there is none."""

    def __init__(
        self, path: Path | None, clock: Clock, *, max_age: timedelta, max_bytes: int
    ) -> None:
        """Records older than `max_age` go, and the oldest when there are more than `max_bytes`."""
        self._database = Database(path, _SCHEMA, synchronous="NORMAL")
        self._clock = clock
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._trimmed_at = float("-inf")

    async def append(self, records: Sequence[Record]) -> Sequence[Refused]:
        trim = self._clock.monotonic() >= self._trimmed_at + TRIM_EVERY
        oldest = _milliseconds(self._clock.now() - self._max_age)

        def work(connection: sqlite3.Connection) -> None:
            insert(connection, _INTO, [*map(_row, records)], "ON CONFLICT (id) DO NOTHING")
            if trim:
                _trim(connection, oldest, self._max_bytes)

        await self._database.do(work)
        if trim:
            self._trimmed_at = self._clock.monotonic()
        return ()

    async def find(
        self, wanted: Wanted, *, limit: int = PAGE, after: Cursor | None = None
    ) -> Sequence[Record]:
        where, values = _where(wanted)
        if after is not None:
            where, values = f"{where} AND (at, id) < (?, ?)", [*values, _milliseconds(after.at)]
            values.append(after.id)
        query = f"SELECT body FROM records WHERE {where} ORDER BY at DESC, id DESC LIMIT ?"  # noqa: S608 - values are bound
        values.append(min(limit, PAGE))
        return await self._database.do(
            lambda db: [from_text(body) for (body,) in db.execute(query, values)]
        )

    async def count(
        self, wanted: Wanted, by: Sequence[Facet] = (), *, every: timedelta | None = None
    ) -> Mapping[Group, int]:
        where, values = _where(wanted)
        width = every // MILLISECOND if every is not None else None
        start = f"at - at % {width}" if width is not None else "NULL"
        columns = ", ".join([start, *(_COLUMNS[facet] for facet in by)])
        numbers = ", ".join(str(n + 1) for n in range(1 + len(by)))
        query = f"SELECT {columns}, COUNT(*) FROM records WHERE {where} GROUP BY {numbers}"  # noqa: S608 - values are bound
        rows = await self._database.do(lambda db: db.execute(query, values).fetchall())
        return {Group(_moment(row[0]), tuple(row[1:-1])): row[-1] for row in rows}

    async def close(self) -> None:
        await self._database.close()


def _row(record: Record) -> tuple[str | int, ...]:
    found = facets(record)
    return (
        record.id,
        _milliseconds(record.at),
        to_text(record),
        *(found.get(facet, "") for facet in _COLUMNS),
    )


def _where(wanted: Wanted) -> tuple[str, list[str | int]]:
    """A condition, and what is bound in it."""
    terms: list[str] = ["1"]
    values: list[str | int] = []
    for moment, compare in ((wanted.since, ">="), (wanted.until, "<")):
        if moment is not None:
            terms.append(f"at {compare} ?")
            values.append(_milliseconds(moment))
    for facet, among in wanted.where.items():
        terms.append(f"{_COLUMNS[facet]} IN ({', '.join('?' * len(among))})")
        values.extend(sorted(among))
    return " AND ".join(terms), values


def _trim(connection: sqlite3.Connection, oldest: int, max_bytes: int) -> None:
    gone = connection.execute("DELETE FROM records WHERE at < ?", (oldest,)).rowcount
    dropped = 0
    while size_of(connection) > max_bytes:
        (count,) = connection.execute("SELECT COUNT(*) FROM records").fetchone()
        if not count:
            break
        part = max(1, count // TRIM_PART)
        query = "DELETE FROM records WHERE id IN (SELECT id FROM records ORDER BY at, id LIMIT ?)"
        dropped += connection.execute(query, (part,)).rowcount
    if gone or dropped:
        log.info("history forgot %d records for their age, %d for their number", gone, dropped)
        connection.execute("PRAGMA incremental_vacuum")


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else EPOCH + milliseconds * MILLISECOND
