"""Records on their way to where history is kept, in an SQLite file that is synced at every put.

Its bound is told in bytes of records. Beyond it the oldest go, and whoever puts is told how many.
"""

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warmpool.domain.history import Record
from warmpool.domain.history_text import from_text, to_text
from warmpool.effects.sqlite import Database, insert

log = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spool (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, bytes INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS total (records INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO total SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM total);
"""

_FIRST: Final = """
SELECT MAX(seq), GROUP_CONCAT(body, CHAR(10)) FROM (
  SELECT seq, body FROM spool ORDER BY seq LIMIT ?
)
"""
"""As one row, each record a line of it: the interpreter is let go around every row."""


class SqliteSpool:
    """A `Spool` in one file, or in memory where there is none."""

    def __init__(self, path: Path | None, *, max_bytes: int) -> None:
        self._database = Database(path, _SCHEMA, synchronous="FULL")
        self._max_bytes = max_bytes

    async def put(self, records: Sequence[Record]) -> int:
        def work(connection: sqlite3.Connection) -> int:
            rows = [(len(text.encode()), text) for text in map(to_text, records)]
            insert(connection, "spool (bytes, body)", rows)
            total = _add(connection, len(rows), sum(size for size, _ in rows))
            return _make_room(connection, total - self._max_bytes)

        return await self._database.do(work)

    async def peek(self, limit: int) -> tuple[int, Sequence[Record]]:
        def work(connection: sqlite3.Connection) -> tuple[int, Sequence[Record]]:
            mark, lines = connection.execute(_FIRST, (limit,)).fetchone()
            bodies = lines.split("\n") if mark else ()
            return mark or 0, [r for body in bodies if (r := _read(body)) is not None]

        return await self._database.do(work)

    async def drop(self, mark: int) -> None:
        await self._database.do(lambda db: _drop(db, mark))

    async def size(self) -> int:
        query = "SELECT records FROM total"
        (count,) = await self._database.do(lambda db: db.execute(query).fetchone())
        return int(count)

    async def close(self) -> None:
        await self._database.close()


def _make_room(connection: sqlite3.Connection, excess: int) -> int:
    """Drop the oldest until so many bytes are free; how many that were."""
    if excess <= 0:
        return 0
    dropped, last = 0, 0
    for seq, size in connection.execute("SELECT seq, bytes FROM spool ORDER BY seq"):
        if excess <= 0:
            break
        dropped, last, excess = dropped + 1, seq, excess - size
    _drop(connection, last)
    return dropped


def _drop(connection: sqlite3.Connection, mark: int) -> None:
    query = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM spool WHERE seq <= ?"
    count, size = connection.execute(query, (mark,)).fetchone()
    connection.execute("DELETE FROM spool WHERE seq <= ?", (mark,))
    _add(connection, -count, -size)


def _add(connection: sqlite3.Connection, records: int, size: int) -> int:
    """Bytes of all records, with so many more."""
    query = "UPDATE total SET records = records + ?, bytes = bytes + ? RETURNING bytes"
    (total,) = connection.execute(query, (records, size)).fetchone()
    return int(total)


def _read(body: str) -> Record | None:
    try:
        return from_text(body)
    except ValueError as error:
        log.error("a record in the spool cannot be read, and is dropped: %s", error)  # noqa: TRY400
        return None
