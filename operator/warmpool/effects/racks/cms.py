"""Racks that a CMS tells over HTTP: host by host, or all of them in pages."""

import asyncio
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from warmpool.domain.errors import RackSourceFailed
from warmpool.domain.racks import Host, Told
from warmpool.effects.racks.config import Http, lasts
from warmpool.effects.racks.jsonpath import find, first
from warmpool.effects.racks.names import filled, of_host, rack_name
from warmpool.effects.racks.web import Patience, Web, next_page

MAX_PAGES: Final = 1000
"""Pages of one list."""

MAX_FAILURES: Final = 5
"""Hosts in a row that it does not answer for before the others are not asked about any more."""


class CmsByHost:
    """One request for each host."""

    def __init__(self, name: str, config: Http, web: Web) -> None:
        self.name = name
        self.refresh = lasts(config.refresh)
        self._config = config
        self._web = web

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        """Some hosts may be answered for and others not. Who answers nobody is not asked much."""
        patience = Patience()
        racks: dict[str, str] = {}
        why = ""
        failures = 0
        at_once = 8
        for begin in range(0, len(hosts), at_once):
            some = hosts[begin : begin + at_once]
            answers = await asyncio.gather(*map(self._one, some), return_exceptions=True)
            for host, answer in zip(some, answers, strict=True):
                if isinstance(answer, RackSourceFailed):
                    failures, why = failures + 1, str(answer)
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    failures, racks[host.name] = 0, answer
            if failures >= MAX_FAILURES:
                break
            if patience.is_over():
                why = why or f"slow: it was asked about {begin + len(some)} of {len(hosts)} hosts"
                break
        if why and not racks:
            raise RackSourceFailed(why)
        return Told(racks, why)

    async def _one(self, host: Host) -> str:
        fields = {key: quote(value, safe="") for key, value in of_host(host).items()}
        document = await self._web.get(filled(self._config.url, fields))
        if document is None:
            return ""
        if not isinstance(document, dict):
            raise RackSourceFailed("what it answers about a host is no JSON object")
        value = await asyncio.to_thread(first, self._config.rack, document)
        rack = rack_name(value)
        if rack is None:
            raise RackSourceFailed(f"what it says of host {host.name!r} is no name of a rack")
        return rack

    async def close(self) -> None:
        await self._web.close()


class CmsList:
    """One list of all hosts, in pages."""

    def __init__(self, name: str, config: Http, web: Web) -> None:
        self.name = name
        self.refresh = lasts(config.refresh)
        self._config = config
        self._web = web

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        """All or nothing: a list that was cut short would seem to have forgotten hosts."""
        known: dict[str, str | None] = {}
        url: str | None = self._config.url
        for _ in range(MAX_PAGES):
            if url is None:
                break
            document = await self._web.get(url)
            if document is None:
                raise RackSourceFailed("answered 404 to a page of the list")
            await asyncio.to_thread(self._read, document, known)
            url = self._next(url, document)
        else:
            raise RackSourceFailed(f"the list does not end after {MAX_PAGES} pages")
        if not known:
            raise RackSourceFailed("the list names no host at all")
        return self._told(hosts, known)

    def _read(self, document: Any, known: dict[str, str | None]) -> None:
        """Add what a page says. A host that the list has twice, in two racks, is in none."""
        config = self._config
        assert config.items is not None  # noqa: S101 - the configuration was checked
        assert config.host is not None  # noqa: S101 - the configuration was checked
        for item in find(config.items, document):
            host = first(config.host, item)
            if isinstance(host, str):
                name, rack = host.lower(), rack_name(first(config.rack, item))
                known[name] = rack if known.get(name, rack) == rack else None

    def _next(self, url: str, document: Any) -> str | None:
        config = self._config
        value = first(config.next, document) if config.next is not None else None
        if value is None or value in ("", False):
            return None
        if config.next_parameter is not None:
            return _with_parameter(config.url, config.next_parameter, str(value))
        return next_page(url, str(value))

    def _told(self, hosts: tuple[Host, ...], known: dict[str, str | None]) -> Told:
        """A host is found by its whole name, or else by its short one."""
        racks = {}
        for host in hosts:
            names = (name.lower() for name in of_host(host).values())
            rack = next((known[name] for name in names if name in known), "")
            if rack is not None:
                racks[host.name] = rack
        return Told(racks, "of some hosts it says what is no name of a rack, or several things")

    async def close(self) -> None:
        await self._web.close()


def _with_parameter(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)])))
