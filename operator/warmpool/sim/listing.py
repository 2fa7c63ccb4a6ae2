"""Listings of servers: filters, order, pages. With the ones that are ignored, as Nova's are."""

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from warmpool.sim.errors import Refused, bad_request
from warmpool.sim.faults import Faults, ListFault
from warmpool.sim.world import Server, World

STATUSES = {
    "active": "ACTIVE",
    "building": "BUILD",
    "stopped": "SHUTOFF",
    "paused": "PAUSED",
    "suspended": "SUSPENDED",
    "error": "ERROR",
    "deleted": "DELETED",
}
"""Status of a server with no task, by its vm_state. Its values are the statuses that may be
filtered by, with those of TASK_STATUSES."""

TASK_STATUSES = {
    "rebooting": "REBOOT",
    "rebooting_hard": "HARD_REBOOT",
    "rebuilding": "REBUILD",
    "migrating": "MIGRATING",
}
"""Tasks that show in the status. The others do not: a server that is powering off is ACTIVE."""


def status_of(server: Server) -> str:
    """The status as Nova tells it."""
    if server.task in TASK_STATUSES and server.vm_state in {"active", "stopped", "paused", "error"}:
        return TASK_STATUSES[server.task]
    return STATUSES[server.vm_state]


@dataclass(frozen=True, slots=True)
class Query:
    """What a listing shall hold. Unset: no limit."""

    project: str | None = None
    name: str = ""
    """A regular expression that may match anywhere in the name."""
    statuses: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    tags_any: frozenset[str] = frozenset()
    not_tags: frozenset[str] = frozenset()
    not_tags_any: frozenset[str] = frozenset()
    since: datetime | None = None
    deleted: bool = False
    """Only those that were deleted. For admins."""
    equals: dict[str, str] = field(default_factory=dict)
    """Further attributes by their key in `_ATTRIBUTES`."""
    oldest_first: bool = False
    limit: int = 1000
    marker: str | None = None


_ATTRIBUTES: dict[str, Callable[[World, Server], str | None]] = {
    "host": lambda _, server: server.host,
    "node": lambda _, server: server.host,
    "image": lambda _, server: server.image_id,
    "flavor": lambda world, server: world.flavor_id(server),
    "reservation_id": lambda _, server: server.reservation,
    "availability_zone": lambda world, server: world.zone_of(server),
    "uuid": lambda _, server: server.id,
    "vm_state": lambda _, server: server.vm_state,
    "task_state": lambda _, server: server.task or "",
    "power_state": lambda _, server: str(server.power),
    "hostname": lambda _, server: server.hostname,
    "key_name": lambda _, server: server.key_name or "",
}
ATTRIBUTES = frozenset(_ATTRIBUTES)


def select(world: World, faults: Faults, query: Query) -> tuple[list[Server], bool]:
    """One page, and whether another one follows.

    Raises:
        Refused: 400 for a marker or a status that there is not.
    """
    found = _ordered(world, query)
    start = _start(world, found, query)
    limit = min(query.limit, world.spec.max_limit)
    fault = faults.strike(ListFault, lambda _: True)
    matches = _matcher(world, query)
    page: list[Server] = []
    for server in found[start:]:
        if len(page) == limit:
            break
        if matches(server):
            page.append(server)
    more = len(page) == limit and limit > 0
    return _spoil(world, fault, page, query) if fault else page, more and not _cut(fault)


def _ordered(world: World, query: Query) -> list[Server]:
    servers = [] if query.deleted else list(world.servers.values())
    if query.deleted or query.since is not None:
        servers = sorted([*servers, *world.deleted.values()], key=lambda server: server.number)
    if not query.oldest_first:
        servers.reverse()
    return servers


def _start(world: World, found: list[Server], query: Query) -> int:
    if query.marker is None:
        return 0
    marker = world.servers.get(query.marker) or world.deleted.get(query.marker)
    if marker is None or (query.project is not None and marker.project != query.project):
        raise Refused(400, f"marker [{query.marker}] not found")
    sign = 1 if query.oldest_first else -1
    at = bisect_left(found, sign * marker.number, key=lambda server: sign * server.number)
    return at + (at < len(found) and found[at] is marker)


class _Matcher:
    """A query made ready to be asked of many servers."""

    def __init__(self, world: World, query: Query) -> None:
        known = {*STATUSES.values(), *TASK_STATUSES.values()}
        wanted = {status.upper() for status in query.statuses}
        if wanted and not wanted & known:
            raise bad_request("Invalid status value")
        self._statuses = wanted
        self._world, self._query = world, query
        self._name = re.compile(query.name) if query.name else None
        self._since = query.since

    def __call__(self, server: Server) -> bool:
        query = self._query
        return (
            query.project in {None, server.project}
            and (self._name is None or self._name.search(server.name) is not None)
            and (not self._statuses or status_of(server) in self._statuses)
            and (self._since is None or server.updated.replace(microsecond=0) >= self._since)
            and self._tags_match(frozenset(server.tags))
            and all(_ATTRIBUTES[k](self._world, server) == v for k, v in query.equals.items())
        )

    def _tags_match(self, tags: frozenset[str]) -> bool:
        query = self._query
        return (
            query.tags <= tags
            and (not query.tags_any or bool(query.tags_any & tags))
            and (not query.not_tags or not query.not_tags <= tags)
            and not query.not_tags_any & tags
        )


def _matcher(world: World, query: Query) -> _Matcher:
    return _Matcher(world, query)


def _cut(fault: ListFault | None) -> bool:
    return fault is not None and fault.effect in {"cut", "empty"}


def _spoil(world: World, fault: ListFault, page: list[Server], query: Query) -> list[Server]:
    """The page as a listing that lies would have it."""
    if fault.effect == "empty":
        return []
    if fault.effect == "half":
        return [server for server in page if server.number % 2]
    if fault.effect == "duplicates" and query.marker in world.servers:
        return [world.servers[query.marker], *page]
    return page
