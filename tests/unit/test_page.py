"""The page: what it is told, whom it answers, and that it changes by itself."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NoReturn

import aiohttp
import pytest

from builders import NOW, a_pool_body
from doubles.fleet import a_fleet
from doubles.history import MemoryHistory, a_history
from warmpool.api.names import Kind
from warmpool.domain.history import BuildRecord, ClaimRecord, RemovalRecord, Result
from warmpool.effects.history_sqlite import SqliteHistory
from warmpool.handlers.page import HEADERS, STATIC, Page
from warmpool.ports.history import History, HistoryUnavailable
from warmpool.reconcile.store import Store

LOCAL = "127.0.0.1"


class Nobody:
    """An API server that must not be asked."""

    async def review(self, group: str, kind: str, spec: object) -> NoReturn:
        raise AssertionError(f"{group} {kind} {spec}")


NOBODY = Nobody()


class Then:
    """The moment at which the records of `a_history` end."""

    def now(self) -> Any:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def page(store: Store, history: History) -> Page:
    return Page(store, history, Then(), "replica-a", lambda: True)


@pytest.fixture
async def history() -> AsyncIterator[SqliteHistory]:
    opened = SqliteHistory(None, Then(), max_age=timedelta(days=99), max_bytes=1 << 30)
    await opened.append(a_history(2000))
    yield opened
    await opened.close()


async def ask(url: str, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url + path, headers=headers) as said:
        return said.status, await said.text()


async def told(url: str, path: str) -> Any:
    status, text = await ask(url, path)
    assert status == 200, text
    return json.loads(text)


async def test_pools_are_told_as_they_are(history: SqliteHistory) -> None:
    async with page(a_fleet(20, 2000), history).serving(NOBODY, LOCAL, 0) as url:
        now = await told(url, "api/now")
        assert (now["identity"], now["leads"], len(now["pools"])) == ("replica-a", True, 20)
        assert sum(pool["ready"] for pool in now["pools"]) == 1400
        assert sum(pool["claimed"] for pool in now["pools"]) == 400


async def test_density_adds_up_to_the_pools_vms(history: SqliteHistory) -> None:
    async with page(a_fleet(20, 2000), history).serving(NOBODY, LOCAL, 0) as url:
        found = await told(url, "api/pools/search/pool-3")
        hosts = [host for rack in found["racks"] for host in rack["hypervisors"]]
        by_state = [host["vms"] for host in hosts]
        assert sum(sum(states.values()) for states in by_state) == len(found["vms"]) == 100
        assert sum(states.get("claimed", 0) for states in by_state) == found["pool"]["claimed"]
        assert (await ask(url, "api/pools/search/no-such"))[0] == 404


async def test_reports_are_of_their_hours_and_their_pool(history: SqliteHistory) -> None:
    week, pool = NOW - timedelta(days=7), "search/pool-3"
    mine = [
        r
        for r in a_history(2000)
        if r.at >= week and isinstance(r, BuildRecord) and str(r.vm.pool) == pool
    ]
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        found = await told(url, f"api/builds?hours=168&pool={pool}")
        assert sum(found["results"].values()) == len(mine)
        assert sum(sum(bar["results"].values()) for bar in found["bars"]) == len(mine)
        bad = sum(r.result is not Result.READY for r in mine)
        assert sum(error["count"] for error in found["errors"]) == len(found["failures"]) == bad
        assert found["took"]["p50"] <= found["took"]["p90"] <= found["took"]["p99"]


@pytest.mark.parametrize(
    ("report", "key", "kind"),
    [("claims", "claims", ClaimRecord), ("removals", "removals", RemovalRecord)],
)
async def test_lists_are_of_the_newest_and_counts_of_all(
    history: SqliteHistory, report: str, key: str, kind: type[Any]
) -> None:
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        found = await told(url, f"api/{report}?hours=2160")
    expected = sorted((r for r in a_history(2000) if isinstance(r, kind)), key=lambda r: r.at)
    assert sum(reason["count"] for reason in found["reasons"]) == len(expected)
    assert found[key][0]["id"] == expected[-1].id


async def test_one_vms_story_is_in_its_order(history: SqliteHistory) -> None:
    record = next(r for r in a_history(2000) if isinstance(r, RemovalRecord))
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        found = await told(url, f"api/vms/{record.vm.ref.namespace}/{record.vm.ref.name}")
    assert record.id in {each["id"] for each in found["records"]}
    times = [each["at"] for each in found["records"]]
    assert times == sorted(times)


async def test_leaders_are_told(history: SqliteHistory) -> None:
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        assert (await told(url, "api/leaderships?hours=2160"))["changes"]


@pytest.mark.parametrize("hours", ["0", "-1", "x", "99999999999999999999", "\u0661"])
async def test_hours_that_are_none_are_refused(history: SqliteHistory, hours: str) -> None:
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        assert (await ask(url, f"api/builds?hours={hours}"))[0] == 400


async def test_a_history_that_cannot_be_asked_is_told_as_such() -> None:
    class Down(MemoryHistory):
        async def count(self, *_: Any, **__: Any) -> Any:
            raise HistoryUnavailable("Elasticsearch: no answer")

    async with page(Store(), Down()).serving(NOBODY, LOCAL, 0) as url:
        status, text = await ask(url, "api/builds")
        assert (status, text) == (503, "history cannot be asked now: Elasticsearch: no answer")
        assert (await ask(url, "api/now"))[0] == 200, "what is now is in memory"


# --- who is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]:80", ""])
async def test_only_loopbacks_names_are_answered(history: SqliteHistory, host: str) -> None:
    """A page elsewhere may have its own name point to 127.0.0.1."""
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        assert (await ask(url, "api/now", Host=host))[0] == 403


@pytest.mark.parametrize("host", ["localhost:8080", "localhost", "127.0.0.1:1", "[::1]:80"])
async def test_a_forwarded_port_has_any_number(history: SqliteHistory, host: str) -> None:
    async with page(Store(), history).serving(NOBODY, LOCAL, 0) as url:
        assert (await ask(url, "api/now", Host=host))[0] == 200


async def test_the_page_reads_only(history: SqliteHistory) -> None:
    async with (
        page(Store(), history).serving(NOBODY, LOCAL, 0) as url,
        aiohttp.ClientSession() as session,
    ):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            async with session.request(method, f"{url}api/now") as answer:
                assert answer.status == 405


# --- files --------------------------------------------------------------------------------------


async def test_files_are_served_with_what_keeps_them_in(history: SqliteHistory) -> None:
    async with (
        page(Store(), history).serving(NOBODY, LOCAL, 0) as url,
        aiohttp.ClientSession() as session,
    ):
        for path in ("", "app.js", "style.css"):
            async with session.get(url + path) as answer:
                assert answer.status == 200
                assert all(answer.headers[name] == value for name, value in HEADERS.items())
        for path in ("page.js", "..%2fpage.py", "static/app.js", "app.JS"):
            assert (await ask(url, path))[0] == 404


def test_nothing_comes_from_the_network_and_nothing_is_put_in_as_html() -> None:
    for path in STATIC.iterdir():
        text = path.read_text()
        found = re.findall(r"https?://[^\s\"')]+", text)
        assert set(found) <= {"http://www.w3.org/2000/svg"}, path.name
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"):
            assert word not in text, path.name


# --- live ---------------------------------------------------------------------------------------


async def test_a_change_is_told_to_whoever_looks(history: SqliteHistory) -> None:
    store = a_fleet(2, 20)
    async with (
        page(store, history).serving(NOBODY, LOCAL, 0) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}api/live") as stream,
    ):
        assert stream.headers["Content-Type"] == "text/event-stream"
        lines = stream.content

        async def message() -> Any:
            async with asyncio.timeout(20):
                async for line in lines:
                    if line.startswith(b"data: "):
                        return json.loads(line[6:])
            raise AssertionError("the stream has ended")

        assert len((await message())["pools"]) == 2
        for pool in list(store.pools()):
            store.apply(Kind.WARM_POOL, a_pool_body(pool.ref, version=99), deleted=True)
        assert (await message())["pools"] == []
