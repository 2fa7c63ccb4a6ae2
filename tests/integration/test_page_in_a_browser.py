"""The page in Chromium, with 20 pools and 2,000 VMs: what is shown is what the API says."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from builders import NOW, a_pool_body
from doubles.browser import Browser, browser, chromium
from doubles.fleet import a_fleet
from doubles.history import a_history
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.effects.clock import SystemClock
from warmpool.effects.history_sqlite import SqliteHistory
from warmpool.handlers.page import Page
from warmpool.reconcile.store import Store

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium on PATH")

VIEWS = {
    "": "Pools",
    "pool/search/pool-3": "Pool search/pool-3",
    "builds": "Builds",
    "claims": "Claims",
    "removals": "Removals from pools",
    "leaders": "Leaders",
}

SHOWN = "document.getElementById('status')?.textContent.includes('live') && "
TITLE = "document.querySelector('main h1')?.textContent"


class Strangers:
    """Loopback asks nobody who they are."""

    async def review(self, *_: object) -> NoReturn:
        raise AssertionError


@pytest.fixture
def fleet() -> Store:
    return a_fleet(20, 2000)


@pytest.fixture
async def url(fleet: Store) -> AsyncIterator[str]:
    clock = SystemClock()
    history = SqliteHistory(None, clock, max_age=timedelta(days=99), max_bytes=1 << 30)
    later = clock.now().replace(microsecond=0) - NOW
    await history.append([replace(r, at=r.at + later) for r in a_history(3000)])
    page = Page(fleet, history, clock, "replica-a", lambda: True)
    async with page.serving(Strangers(), "127.0.0.1", 0) as served:
        yield served
    await history.close()


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser(tmp_path) as opened:
        yield opened
        assert opened.complaints == []


async def see(tab: Browser, url: str, view: str, title: str) -> None:
    await tab.go(f"{url}#/{view}")
    await tab.until(f"{SHOWN} {TITLE} === {title!r}")


async def cells(tab: Browser, caption: str) -> list[list[str]]:
    """Texts of a table's rows."""
    found: list[list[str]] = await tab.js(
        "[...[...document.querySelectorAll('table')]"
        f".find(table => table.caption.textContent === {caption!r})"
        ".tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


async def test_every_view_fits_every_window_in_light_and_dark(tab: Browser, url: str) -> None:
    for width, scheme in ((1280, "light"), (390, "dark")):
        await tab.window(width, 800, scheme)
        for view, title in VIEWS.items():
            await see(tab, url, view, title)
            over = await tab.js("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, (view, width)


async def test_the_numbers_are_those_of_the_pools(tab: Browser, url: str) -> None:
    await see(tab, url, "", "Pools")
    await tab.until("document.querySelectorAll('tbody tr').length === 20")
    rows = await cells(tab, "All pools, now")
    assert rows[3][:4] == ["search/pool-3", "70 / 80", "10", "20"]
    assert await tab.js("[...document.querySelectorAll('dd')].map(d => d.textContent)") == [
        "20",
        "1400",
        "1600",
        "200",
        "400",
        "0",
    ]


async def test_a_change_is_shown_without_a_reload(tab: Browser, url: str, fleet: Store) -> None:
    await see(tab, url, "", "Pools")
    await tab.until("document.querySelectorAll('tbody tr').length === 20")
    await tab.js("window.still = true")
    body = a_pool_body(Ref("search", "pool-3"), version=99999, status={"ready": 7})
    fleet.apply(Kind.WARM_POOL, body)
    await tab.until("document.querySelectorAll('tbody tr')[3].textContent.includes('7 / 3')")
    assert await tab.js("window.still") is True


FOCUSED = "document.activeElement.textContent"


async def press(tab: Browser, key: str) -> None:
    text = {"Enter": "\r"}.get(key, "")
    for kind in ("rawKeyDown", "char", "keyUp"):
        await tab.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, code=key)


async def test_one_gets_from_a_removal_to_the_vms_story_by_keyboard(tab: Browser, url: str) -> None:
    await see(tab, url, "removals", VIEWS["removals"])
    await tab.until("document.querySelector('td a') !== null")
    await tab.js("document.querySelector('td a').focus()")
    await press(tab, "Enter")
    await tab.until(f"{TITLE}?.startsWith('VM ')")
    assert "left pool" in await tab.js("document.querySelector('ol.story').textContent")
    assert await tab.js("document.activeElement.id") == "main", "the reader is told of the change"


async def test_live_updates_leave_the_focus_where_it_is(
    tab: Browser, url: str, fleet: Store
) -> None:
    """They drew the view anew, and whoever reads by keyboard began at its top again."""
    await see(tab, url, "", "Pools")
    await tab.until("document.querySelectorAll('tbody tr').length === 20")
    await tab.js("document.querySelectorAll('td a')[3].focus()")
    assert await tab.js(FOCUSED) == "search/pool-3"
    before = Ref("search", "pool-0a")
    for ready in (7, 8, 9):
        version = 99990 + ready
        change = a_pool_body(Ref("search", "pool-3"), version=version, status={"ready": ready})
        fleet.apply(Kind.WARM_POOL, change)
        if ready == 8:
            fleet.apply(Kind.WARM_POOL, a_pool_body(before, version=version, uid="new"))
        if ready == 9:
            fleet.apply(
                Kind.WARM_POOL, a_pool_body(before, version=version, uid="new"), deleted=True
            )
        rows = 21 if ready == 8 else 20
        await tab.until(
            f"document.querySelector('main').textContent.includes('{ready} / 3')"
            f" && document.querySelectorAll('tbody tr').length === {rows}"
        )
        assert await tab.js(FOCUSED) == "search/pool-3", ready
    await press(tab, "Enter")
    await tab.until(f"{TITLE} === 'Pool search/pool-3'")


async def test_what_was_opened_stays_open(tab: Browser, url: str, fleet: Store) -> None:
    await see(tab, url, "pool/search/pool-3", VIEWS["pool/search/pool-3"])
    await tab.until("document.querySelector('details') !== null")
    await tab.js("document.querySelector('summary').focus()")
    await tab.js("document.querySelector('summary').click()")
    change = a_pool_body(Ref("search", "pool-3"), version=99999, status={"ready": 7})
    fleet.apply(Kind.WARM_POOL, change)
    await tab.until("document.querySelector('dd').textContent === '7 / 3'")
    assert await tab.js("document.querySelector('details').open") is True
    assert await tab.js("document.activeElement.tagName") == "SUMMARY"


async def test_a_vm_that_is_not_known_is_told_so(tab: Browser, url: str) -> None:
    await see(tab, url, "vm/search/no-such", "VM search/no-such")
    assert "tells nothing of it" in await tab.js("document.body.textContent")


async def test_texts_of_others_are_never_html(tab: Browser, url: str, fleet: Store) -> None:
    message = '<img src=x onerror="window.broken = true"><script>window.broken = true</script>'
    failure = {"reason": "BuildFault", "message": message, "time": "2030-01-01T00:00:00Z"}
    status = {"ready": 7, "lastFailure": {**failure, "count": 1}}
    fleet.apply(Kind.WARM_POOL, a_pool_body(Ref("search", "pool-3"), version=99999, status=status))
    await see(tab, url, "pool/search/pool-3", VIEWS["pool/search/pool-3"])
    assert message in await tab.js("document.body.textContent")
    assert await tab.js("window.broken") is None
