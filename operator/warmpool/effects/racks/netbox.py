"""Racks that NetBox keeps, by its REST API: the device of the host's name, its rack and its site.

pynetbox would do, but for its requests being blocking and unbounded: what we need is one list.
"""

from typing import Any, Final
from urllib.parse import urlencode, urljoin

from warmpool.domain.errors import RackSourceFailed
from warmpool.domain.racks import Host, Told
from warmpool.effects.racks.config import NetBox, lasts
from warmpool.effects.racks.names import filled, of_host, rack_name
from warmpool.effects.racks.web import Patience, Web, next_page

NAMES: Final = 50
"""Devices asked about in one request: their names make a URL of some kilobytes."""

MAX_PAGES: Final = 50
"""Pages of one answer. NetBox itself may give fewer devices a page than are asked for."""


def authorization(token: str) -> str:
    """The header for a token: NetBox 4.5 has another kind, which tells itself by its prefix."""
    return f"Bearer {token}" if token.startswith("nbt_") else f"Token {token}"


class NetBoxSource:
    """Devices by their names."""

    def __init__(self, name: str, config: NetBox, web: Web) -> None:
        self.name = name
        self.refresh = lasts(config.refresh)
        self._config = config
        self._web = web
        self._devices = urljoin(config.url.rstrip("/") + "/", "api/dcim/devices/")

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        """All or nothing of each request; a request that fails leaves its hosts unanswered."""
        patience = Patience()
        racks: dict[str, str] = {}
        why = ""
        for begin in range(0, len(hosts), NAMES):
            some = {host.name: self._device(host) for host in hosts[begin : begin + NAMES]}
            try:
                said = await self._racks(sorted(set(some.values())))
            except RackSourceFailed as failed:
                why = str(failed)
                break
            for host, device in some.items():
                rack = said.get(device, "")
                if rack is None:
                    why = f"of {device!r} it says what is no name of a rack, or several things"
                else:
                    racks[host] = rack
            if patience.is_over():
                why = why or f"slow: it was asked about {begin + len(some)} of {len(hosts)} hosts"
                break
        if why and not racks:
            raise RackSourceFailed(why)
        return Told(racks, why)

    def _device(self, host: Host) -> str:
        return filled(self._config.device, of_host(host))

    async def _racks(self, names: list[str]) -> dict[str, str | None]:
        """Name of a device to its rack. None: that cannot be told."""
        site = [("site", self._config.site)] if self._config.site is not None else []
        query = [*(("name", name) for name in names), *site, ("limit", "100")]
        url: str | None = f"{self._devices}?{urlencode(query)}"
        found: dict[str, str | None] = {}
        for _ in range(MAX_PAGES):
            if url is None:
                return found
            page = await self._web.get(url)
            if not isinstance(page, dict) or not isinstance(page.get("results"), list):
                raise RackSourceFailed("the answer is no list of devices of NetBox")
            for row in page["results"]:
                self._take(row, found)
            url = self._next(page)
        raise RackSourceFailed(f"the list does not end after {MAX_PAGES} pages")

    def _take(self, row: Any, found: dict[str, str | None]) -> None:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str):
            return
        rack = self._rack(row)
        # NetBox keeps names apart within a site and a tenant only.
        found[name] = rack if found.get(name, rack) == rack else None

    def _rack(self, row: dict[str, Any]) -> str | None:
        parts = {key: _named(row.get(key)) for key in ("rack", "site", "location")}
        if parts["rack"] is None or parts["site"] is None:
            return None
        if not parts["rack"]:
            return ""
        return rack_name(filled(self._config.rack, {k: v or "" for k, v in parts.items()}))

    def _next(self, page: dict[str, Any]) -> str | None:
        following = page.get("next")
        return next_page(self._devices, str(following)) if following else None

    async def close(self) -> None:
        await self._web.close()


def _named(value: Any) -> str | None:
    """The name of what NetBox nests into a device. Empty: there is none. None: garbage."""
    if value is None:
        return ""
    return rack_name(value.get("name")) if isinstance(value, dict) else None
