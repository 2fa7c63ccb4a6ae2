"""Sites that keep racks, over HTTP on loopback: a CMS of some shape, and NetBox as documented."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

TOKEN = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105 - of nobody


class Site:
    """Racks by the names of hosts, and what is wrong with the site."""

    def __init__(self, racks: dict[str, str | None] | None = None) -> None:
        self.racks: dict[str, Any] = dict(racks or {})
        self.trouble = ""
        """`500`, `slow`, `garbage`, `html`, `huge`, `redirect` or `astray`; empty: none."""
        self.authorization = f"Bearer {TOKEN}"
        self.asked: list[str] = []
        self.url = ""

    async def _spoilt(self, request: web.Request) -> web.Response | None:
        self.asked.append(str(request.rel_url))
        if request.headers.get("Authorization") != self.authorization:
            return web.json_response({"detail": "Invalid token"}, status=403)
        if self.trouble == "slow":
            await asyncio.sleep(30)
        answers: dict[str, Callable[[], web.Response]] = {
            "500": lambda: web.Response(status=500, text="boom"),
            "garbage": lambda: web.json_response([["what", {"is": "this"}]]),
            "html": lambda: web.Response(text="<html>Log in</html>", content_type="text/html"),
            "huge": lambda: web.Response(body=b" " * (5 * 1024 * 1024)),
            "redirect": lambda: web.Response(
                status=302, headers={"Location": "http://example.invalid/"}
            ),
        }
        answer = answers.get(self.trouble)
        return answer() if answer is not None else None

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Site"]:
        app = web.Application()
        app.add_routes(self.routes())
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


class Cms(Site):
    """Machines at `/machines/<name>`, and all of them at `/machines`, two a page."""

    PAGE = 2

    def __init__(self, racks: dict[str, str | None] | None = None) -> None:
        super().__init__(racks)
        self.twins: list[tuple[str, Any]] = []
        """Machines and their racks that the list has besides, after the others."""

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/machines", self._all), web.get("/machines/{name}", self._one)]

    async def _one(self, request: web.Request) -> web.Response:
        spoilt = await self._spoilt(request)
        if spoilt is not None:
            return spoilt
        name = request.match_info["name"]
        if name not in self.racks:
            return web.json_response({"error": "no such machine"}, status=404)
        return web.json_response({"location": {"rack": {"name": self.racks[name]}}})

    async def _all(self, request: web.Request) -> web.Response:
        spoilt = await self._spoilt(request)
        if spoilt is not None:
            return spoilt
        begin = int(request.query.get("from", "0"))
        rows = [*sorted(self.racks.items()), *self.twins]
        page = rows[begin : begin + self.PAGE]
        more = begin + self.PAGE < len(rows)
        following = f"/machines?from={begin + self.PAGE}" if more else None
        if self.trouble == "astray":
            following = "http://127.0.0.2:9/machines?from=2"
        return web.json_response(
            {
                "machines": [{"name": n, "location": {"rack": rack}} for n, rack in page],
                "next": following,
                "cursor": str(begin + self.PAGE) if more else "",
            }
        )


class NetBox(Site):
    """`/api/dcim/devices/` as NetBox 4 documents it: filters, pages, nested rack and site."""

    PAGE = 2

    def __init__(self, racks: dict[str, str | None] | None = None) -> None:
        super().__init__(racks)
        self.authorization = f"Token {TOKEN}"
        self.site_of: dict[str, str] = {}
        """Device to its site; `dc1` where it says nothing."""
        self.twins: list[dict[str, Any]] = []
        """Devices besides those of `racks`."""

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/dcim/devices/", self._devices)]

    def device(self, number: int, name: str, rack: Any) -> dict[str, Any]:
        site = self.site_of.get(name, "dc1")
        return {
            "id": number,
            "url": f"{self.url}/api/dcim/devices/{number}/",
            "display": name,
            "name": name,
            "device_type": {"id": 1, "model": "R650", "slug": "r650"},
            "role": {"id": 3, "name": "Compute", "slug": "compute"},
            "tenant": None,
            "serial": "",
            "site": self._nested("sites", 9, site.upper()) | {"slug": site},
            "location": None,
            "rack": rack if not isinstance(rack, str) else self._nested("racks", 7, rack),
            "position": 12.0,
            "face": {"value": "front", "label": "Front"},
            "status": {"value": "active", "label": "Active"},
            "custom_fields": {},
        }

    def _nested(self, kind: str, number: int, name: str) -> dict[str, Any]:
        url = f"{self.url}/api/dcim/{kind}/{number}/"
        return {"id": number, "url": url, "display": name, "name": name, "description": ""}

    async def _devices(self, request: web.Request) -> web.Response:
        spoilt = await self._spoilt(request)
        if spoilt is not None:
            return spoilt
        query = request.query
        names, sites = set(query.getall("name", [])), set(query.getall("site", []))
        rows = [self.device(n, *pair) for n, pair in enumerate(sorted(self.racks.items()), 1)]
        rows = [
            row
            for row in [*rows, *self.twins]
            if row["name"] in names and (not sites or row["site"]["slug"] in sites)
        ]
        offset = int(query.get("offset", "0"))
        more = offset + self.PAGE < len(rows)
        following = request.url.update_query({"offset": str(offset + self.PAGE)})
        return web.json_response(
            {
                "count": len(rows),
                "next": str(following) if more else None,
                "previous": None,
                "results": rows[offset : offset + self.PAGE],
            }
        )
