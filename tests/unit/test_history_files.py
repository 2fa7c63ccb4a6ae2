"""History and spool on disk: bounds, broken files, full disks, kill -9."""

import asyncio
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import NOW
from doubles.history import a_build
from warmpool.domain.history import Record
from warmpool.domain.history_text import to_text
from warmpool.effects.history_sqlite import TRIM_EVERY, SqliteHistory
from warmpool.effects.spool import SqliteSpool
from warmpool.effects.sqlite import Database
from warmpool.ports.history import Group, HistoryUnavailable, Wanted


class HandClock:
    """Time goes on when told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


def builds(first: int, last: int) -> list[Record]:
    """Of the same length all."""
    return [
        a_build(1, at=NOW + timedelta(seconds=10 + n), id=f"build:{n:06}")
        for n in range(first, last)
    ]


async def ids(spool: SqliteSpool) -> list[str]:
    _, records = await spool.peek(10_000)
    return [record.id for record in records]


# --- the store --------------------------------------------------------------------------------


async def test_records_that_are_too_old_are_forgotten(tmp_path: Path) -> None:
    clock = HandClock()
    history = SqliteHistory(
        tmp_path / "h.sqlite", clock, max_age=timedelta(days=1), max_bytes=1 << 30
    )
    await history.append(builds(0, 10))
    clock.passed = timedelta(days=1).total_seconds() + 15
    await history.append([])
    assert [r.id for r in await history.find(Wanted())] == [r.id for r in builds(5, 10)][::-1]
    await history.close()


async def test_a_file_stays_about_as_small_as_it_is_told(tmp_path: Path) -> None:
    clock, path, bound = HandClock(), tmp_path / "h.sqlite", 2_000_000
    history = SqliteHistory(path, clock, max_age=timedelta(days=99), max_bytes=bound)
    for batch in range(20):
        clock.passed += TRIM_EVERY
        await history.append(builds(batch * 500, batch * 500 + 500))
    newest, *_ = await history.find(Wanted())
    assert newest.id == "build:009999", "the oldest go first"
    counted = sum((await history.count(Wanted())).values())
    assert 500 < counted < 9000
    await history.close()
    assert path.stat().st_size < 1.5 * bound


async def test_history_is_there_after_a_restart(tmp_path: Path) -> None:
    for n in range(2):
        path = tmp_path / "deep" / "h.sqlite"
        history = SqliteHistory(path, HandClock(), max_age=timedelta(days=1), max_bytes=1 << 30)
        await history.append(builds(n, n + 1))
        found = await history.find(Wanted())
        await history.close()
    assert len(found) == 2


async def test_a_file_that_is_no_database_is_set_aside_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    history = SqliteHistory(path, HandClock(), max_age=timedelta(days=1), max_bytes=1 << 30)
    await history.append(builds(0, 1))
    assert len(await history.find(Wanted())) == 1
    assert (tmp_path / "h.sqlite.broken").read_bytes().startswith(b"not a database")
    assert "set aside" in caplog.text
    await history.close()


async def test_a_directory_that_cannot_be_made_is_told_of_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    history = SqliteHistory(
        tmp_path / "file" / "h.sqlite", HandClock(), max_age=timedelta(days=1), max_bytes=1 << 30
    )
    with pytest.raises(HistoryUnavailable, match=r"h\.sqlite"):
        await history.append(builds(0, 1))
    (tmp_path / "file").unlink()
    await history.append(builds(0, 1))
    assert len(await history.find(Wanted())) == 1
    await history.close()


# --- the spool --------------------------------------------------------------------------------


async def test_the_spool_gives_the_oldest_first_until_they_are_dropped(tmp_path: Path) -> None:
    spool = SqliteSpool(tmp_path / "s.sqlite", max_bytes=1 << 20)
    assert await spool.put(builds(0, 5)) == 0
    mark, records = await spool.peek(3)
    assert [r.id for r in records] == [r.id for r in builds(0, 3)]
    assert await ids(spool) == [r.id for r in builds(0, 5)], "a peek takes nothing"
    await spool.drop(mark)
    assert await ids(spool) == [r.id for r in builds(3, 5)]
    assert await spool.size() == 2
    await spool.close()


async def test_a_full_spool_drops_the_oldest_and_says_how_many(tmp_path: Path) -> None:
    room = 10 * len(to_text(builds(0, 1)[0]))
    spool = SqliteSpool(tmp_path / "s.sqlite", max_bytes=room)
    assert await spool.put(builds(0, 8)) == 0
    assert await spool.put(builds(8, 13)) == 3
    assert await ids(spool) == [r.id for r in builds(3, 13)]
    assert await spool.size() == 10
    await spool.close()


async def test_a_spool_that_is_emptied_takes_as_much_as_before(tmp_path: Path) -> None:
    room = 10 * len(to_text(builds(0, 1)[0]))
    spool = SqliteSpool(tmp_path / "s.sqlite", max_bytes=room)
    for start in range(0, 50, 10):
        assert await spool.put(builds(start, start + 10)) == 0
        mark, _ = await spool.peek(10)
        await spool.drop(mark)
    assert await spool.size() == 0
    await spool.close()


async def test_a_record_of_a_later_version_does_not_block_those_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    spool = SqliteSpool(path, max_bytes=1 << 20)
    await spool.put(builds(0, 1))
    with sqlite3.connect(path) as other:
        other.execute('INSERT INTO spool (bytes, body) VALUES (18, \'{"kind": "feast"}\')')
    other.close()
    await spool.put(builds(1, 2))
    mark, records = await spool.peek(10)
    assert [r.id for r in records] == [r.id for r in builds(0, 2)]
    await spool.drop(mark)
    assert await spool.peek(10) == (0, [])
    await spool.close()


async def test_a_full_disk_is_told_of_and_breaks_nothing(tmp_path: Path) -> None:
    database = Database(
        tmp_path / "s.sqlite", "CREATE TABLE IF NOT EXISTS t (x)", synchronous="FULL"
    )

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 10")
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")

    with pytest.raises(HistoryUnavailable, match="full"):
        await database.do(fill)
    await database.do(lambda db: db.execute("INSERT INTO t VALUES (1)"))
    assert await database.do(lambda db: db.execute("SELECT x FROM t").fetchall()) == [(1,)]
    await database.close()


PUTS_WITHOUT_END = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from doubles.history import a_build
from warmpool.effects.spool import SqliteSpool

async def work():
    spool = SqliteSpool(Path(sys.argv[2]), max_bytes=1 << 30)
    start = 0
    while True:
        await spool.put([a_build(1, id=f"build:{n:06}") for n in range(start, start + 10)])
        start += 10
        print(start, flush=True)

asyncio.run(work())
"""
"""Tells after each put how many records are safe."""


async def test_records_go_in_many_with_each_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around each one the event loop and the thread that writes hand the interpreter over."""
    said: list[str] = []

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*args, **kwargs)
        connection.set_trace_callback(said.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    records = builds(0, 500)
    history = SqliteHistory(None, HandClock(), max_age=timedelta(days=1), max_bytes=1 << 30)
    spool = SqliteSpool(None, max_bytes=1 << 30)

    for _ in range(2):  # one that comes again is known
        await history.append(records)
    await spool.put(records)
    mark, _ = await spool.peek(500)
    assert len([text for text in said if text.startswith("INSERT INTO records")]) <= 20
    assert len([text for text in said if text.startswith("INSERT INTO spool")]) <= 2

    assert await history.count(Wanted()) == {Group(None, ()): 500}
    assert mark == 500
    assert await ids(spool) == [record.id for record in records]
    await history.close()
    await spool.close()


async def test_what_was_put_is_there_after_kill_9(tmp_path: Path) -> None:
    path, tests = tmp_path / "s.sqlite", Path(__file__).parents[1]
    command = [sys.executable, "-c", PUTS_WITHOUT_END, str(tests), str(path)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 200:
        acknowledged = int(await process.stdout.readline())
    process.kill()
    for line in (await process.stdout.read()).splitlines():
        acknowledged = int(line)
    await process.wait()
    spool = SqliteSpool(path, max_bytes=1 << 30)
    found = await ids(spool)
    assert found == [r.id for r in builds(0, len(found))]
    assert len(found) in (acknowledged, acknowledged + 10)
    await spool.close()
