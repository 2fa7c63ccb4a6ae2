"""How soon the page shows what there is, and what has changed, in a browser, while much changes.

A page over 20 pools of 2,000 VMs in all and a history of 20,000 records, served by this process;
Chromium without a window loads each view anew, several times: from the beginning of the navigation
until the view has its heading and its tables. Then a pool changes, and its number has to appear:
from the change in the store, as a watch brings it, to the moment the browser has it in its tree.
The page gathers changes for half a second, which is part of that. Both are done at rest, and with
200 changes of VMs a second and 20 more pages that listen.

Writes a table to stdout and the figures to `benchmarks/results/page.json`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Any, Final, NoReturn

import aiohttp
from stand import conclude, percentile, say

from builders import NOW, a_pool_body, a_vm_body
from doubles.browser import Browser, browser
from doubles.fleet import a_fleet
from doubles.history import a_history
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.effects.clock import SystemClock
from warmpool.effects.history_sqlite import SqliteHistory
from warmpool.handlers.page import Page
from warmpool.reconcile.store import Store
from warmpool.tools.processes import temporary_directory

RESULTS: Final = Path(__file__).parent / "results" / "page.json"
POOLS: Final = 20
VMS: Final = 2000
RECORDS: Final = 20_000
CHANGES: Final = 200
"""Of VMs, a second, under load."""
LISTENERS: Final = 20
"""Pages that listen beside, under load."""
WATCHED: Final = Ref("search", "pool-3")

VIEWS: Final = {
    "pools": ("", "tbody tr"),
    "one pool": ("pool/search/pool-3", "ul.hosts li"),
    "builds": ("builds", "svg.builds rect"),
    "claims": ("claims", "tbody tr"),
    "removals": ("removals", "tbody tr"),
    "leaders": ("leaders", "main h1"),
    "one VM": ("vm/search/pool-3-3", "main h1"),
}
"""Each view's address, and what is there when it is drawn."""

Json = dict[str, Any]
_versions = count(1_000_000)


class Nobody:
    async def review(self, *_: object) -> NoReturn:
        raise AssertionError


@contextlib.asynccontextmanager
async def served(store: Store) -> AsyncIterator[str]:
    clock = SystemClock()
    history = SqliteHistory(None, clock, max_age=timedelta(days=99), max_bytes=1 << 30)
    later = clock.now().replace(microsecond=0) - NOW
    records = [replace(r, at=r.at + later) for r in a_history(RECORDS)]
    for first in range(0, RECORDS, 1000):
        await history.append(records[first : first + 1000])
    page = Page(store, history, clock, "replica-a", lambda: True)
    async with page.serving(Nobody(), "127.0.0.1", 0) as url:
        yield url
    await history.close()


async def watching(tab: Browser) -> None:
    """Have each page note when its view was drawn, in milliseconds since its navigation began."""
    there = json.dumps({f"#/{view}": selector for view, selector in VIEWS.values()})
    await tab.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source=f"const there = ({there})[location.hash];"
        " const look = () => document.querySelector(there)"
        " ? window.drawn = performance.now() : requestAnimationFrame(look);"
        " if (there) look();",
    )


async def loaded(tab: Browser, url: str, view: str) -> float:
    """Milliseconds until a view is drawn, by the browser's own clock."""
    await tab.go("about:blank")
    await tab.until("location.href === 'about:blank'")
    await tab.go(f"{url}#/{view}")
    took: float = await tab.until("window.drawn")
    return took


async def shown(tab: Browser, store: Store, ready: int) -> float:
    """Milliseconds until a change in the store is in the browser's tree."""
    await tab.js(
        "window.seen = null; new MutationObserver((_, watch) => {"
        f" if (document.querySelector('main').textContent.includes('{ready} / 80'))"
        " { window.seen = Date.now(); watch.disconnect(); } })"
        ".observe(document.querySelector('main'),"
        " {subtree: true, childList: true, characterData: true})"
    )
    began = time() * 1e3
    status = {"ready": ready, "state": "Filling"}
    body = a_pool_body(WATCHED, version=next(_versions), replicas=80, status=status)
    store.apply(Kind.WARM_POOL, body)
    seen: float = await tab.until("window.seen")
    return seen - began


@contextlib.asynccontextmanager
async def load(store: Store, url: str) -> AsyncIterator[None]:
    """Much changes, and many look."""

    async def change() -> None:
        for number in count():
            began = perf_counter()
            for each in range(CHANGES // 20):
                vm = (number * 10 + each) % VMS
                body = a_vm_body(vm + 1, phase="Ready", version=next(_versions))
                body["metadata"]["name"] = f"pool-{vm % POOLS}-{vm}"
                pool = f"pool-{vm % POOLS}"
                body["spec"]["poolRef"] = {"name": pool, "uid": f"uid-of-{pool}"}
                store.apply(Kind.WARM_VM, body)
            await asyncio.sleep(max(0.0, began + 0.05 - perf_counter()))

    async def listen(session: aiohttp.ClientSession) -> None:
        async with session.get(f"{url}api/live") as answer:
            async for _ in answer.content:
                pass

    limit = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=limit, timeout=aiohttp.ClientTimeout()) as session:
        tasks = [asyncio.ensure_future(listen(session)) for _ in range(LISTENERS)]
        tasks.append(asyncio.ensure_future(change()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def measured(tab: Browser, store: Store, url: str, times: int) -> Json:
    made: Json = {"load_ms": {}}
    for name, (view, _) in VIEWS.items():
        took = sorted([await loaded(tab, url, view) for _ in range(times)])
        made["load_ms"][name] = {"p50": round(median(took)), "worst": round(took[-1])}
    for name in ("pools", "one pool"):
        await loaded(tab, url, VIEWS[name][0])
        await tab.until("document.getElementById('status').textContent.includes('live')")
        took = sorted([await shown(tab, store, number % 79) for number in range(1, 5 * times)])
        figures = {"p50": round(median(took)), "p90": round(percentile(took, 90))}
        made[f"update_ms {name}"] = figures | {"worst": round(took[-1])}
    return made


async def measure(arguments: argparse.Namespace) -> Json:
    store, began = a_fleet(POOLS, VMS), perf_counter()
    with temporary_directory("warmpool-page-") as directory:
        async with served(store) as url, browser(directory) as tab:
            await tab.window(1280, 800, "light")
            await watching(tab)
            await loaded(tab, url, "")
            made: Json = {"at rest": await measured(tab, store, url, arguments.times)}
            say("at rest: done")
            async with load(store, url):
                made["under load"] = await measured(tab, store, url, arguments.times)
    made |= {"pools": POOLS, "vms": VMS, "records": RECORDS, "times": arguments.times}
    made |= {"changes_per_s": CHANGES, "listeners": LISTENERS}
    made["took_s"] = round(perf_counter() - began)
    made["machine"] = {"python": platform.python_version(), "cores": os.cpu_count()}
    return made


def table(made: Json) -> Iterator[str]:
    rest, load = made["at rest"], made["under load"]
    yield f"{'':<22} {'at rest p50 / worst ms':>24} {'under load p50 / worst ms':>27}"
    for name in VIEWS:
        one, two = rest["load_ms"][name], load["load_ms"][name]
        yield f"{'load: ' + name:<22} {_pair(one):>24} {_pair(two):>27}"
    for name in ("pools", "one pool"):
        one, two = rest[f"update_ms {name}"], load[f"update_ms {name}"]
        yield f"{'update: ' + name:<22} {_pair(one):>24} {_pair(two):>27}"


def _pair(figures: Json) -> str:
    return f"{figures['p50']} / {figures['worst']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=8, help="each view is loaded")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes")
    arguments = parser.parse_args()
    made = asyncio.run(measure(arguments))
    return conclude(made, table(made), arguments.out)


if __name__ == "__main__":
    raise SystemExit(main())
