"""SQLite with a thread of its own: the event loop waits for no disk.

One connection, used by one thread only. A file that is no database, or a broken one, is set aside
under another name, loudly: what it holds may still be read by hand, and nothing stops for it.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from warmpool.ports.history import HistoryUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT: Final = 5.0
"""Seconds that another process may keep us waiting."""

IN_MEMORY: Final = ":memory:"

VALUES: Final = 999
"""Of one statement, in all versions of SQLite."""


class Database:
    """One SQLite file, or one in memory."""

    def __init__(self, path: Path | None, schema: str, *, synchronous: str) -> None:
        """Nothing is opened before it is first used. `synchronous`: FULL or NORMAL, as SQLite's."""
        self._path = path
        self._schema = schema
        self._synchronous = synchronous
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run something in a transaction.

        Raises:
            HistoryUnavailable: it did not happen.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, partial(self._do, work))
        except (sqlite3.Error, OSError) as error:
            raise HistoryUnavailable(f"{self._path or IN_MEMORY}: {error}") from error

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    # -- in the thread ------------------------------------------------------------------------

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._open()
        try:
            with self._connection:
                return work(self._connection)
        except sqlite3.DatabaseError as error:
            if _is_broken(error):
                self._set_aside(error)
            raise

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_broken(error):
                raise
            self._set_aside(error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path or IN_MEMORY, timeout=BUSY_TIMEOUT)
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.executescript(self._schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, error: sqlite3.Error) -> None:
        self._close()
        if self._path is None:
            return
        aside = self._path.with_name(f"{self._path.name}.broken")
        log.error("%s is broken (%s): set aside as %s", self._path, error, aside.name)
        self._path.replace(aside)
        for rest in ("-wal", "-shm"):
            self._path.with_name(self._path.name + rest).unlink(missing_ok=True)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def insert(
    connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[str | int]], then: str = ""
) -> None:
    """Insert rows of one length, many with each statement.

    `into` is the table and its columns, as in `spool (bytes, body)`; `then` follows the values, as
    `ON CONFLICT (id) DO NOTHING` does.

    Around each statement the interpreter is let go, and whoever has taken it gives it back after a
    switch interval. Row by row, 200 records beside a busy event loop took 105 to 157 ms instead of
    12, and the loop had to ask for the interpreter after each.
    """
    width = len(rows[0]) if rows else 1
    place = f"({', '.join('?' * width)})"
    for first in range(0, len(rows), VALUES // width):
        some = rows[first : first + VALUES // width]
        query = f"INSERT INTO {into} VALUES {', '.join([place] * len(some))} {then}"  # noqa: S608 - our own words; values are bound
        connection.execute(query, [value for row in some for value in row])


def _is_broken(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def size_of(connection: sqlite3.Connection) -> int:
    """Bytes that the data takes; pages that are free do not count."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    return (int(pages) - int(free)) * int(page)
