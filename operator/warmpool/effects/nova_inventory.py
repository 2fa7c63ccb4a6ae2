"""Hypervisors that take builds, and their room: asked of Nova and Placement, read into our words.

Placement is what Nova's scheduler asks first, so its answer about room is the one that counts. It
may be unreachable or forbidden where Nova's own lists are not: then the room is not known.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final
from urllib.parse import urlencode

from warmpool.domain.cloud import FlavorSize, HostRoom, Inventory
from warmpool.domain.errors import CloudUnavailable
from warmpool.effects.nova_calls import (
    HYPERVISORS_VERSION,
    PLACEMENT_VERSION,
    READ_VERSION,
    Answer,
    Call,
    Service,
)
from warmpool.effects.nova_messages import good
from warmpool.effects.nova_reading import (
    MAX_NAME,
    as_objects,
    next_marker,
    number,
    whole_object,
)
from warmpool.effects.nova_refusals import FORBIDDEN, refusal

MAX_PAGES: Final = 50
"""Pages of hypervisors that are read at most: 50,000 of them with Nova's default."""

AGGREGATE_SCOPE: Final = "aggregate_instance_extra_specs:"
"""Prefix of the extra specs that the metadata of a host's aggregates must match."""

OPERATORS: Final = ("<", ">", "=", "!", "s<", "s>", "s=", "s!")
"""What a value begins with that is more than a value."""

Ask = Callable[[Call], Awaitable[Answer]]
Rows = list[dict[str, object]]


class HiddenError(Exception):
    """These credentials may not see hypervisors."""


async def inventory(size: FlavorSize, ask: Ask) -> Inventory:
    """The contract of `Cloud.inventory`."""
    try:
        rows = await hypervisors(ask)
        parts = _zones(ask), _rooms(size, ask), _fitting(size, ask)
        zones, rooms, fitting = await asyncio.gather(*parts)
    except HiddenError as hidden:
        return Inventory(visible=False, why_not=str(hidden))
    return Inventory(tuple(_hosts(rows, zones, rooms, fitting)))


def _hosts(
    rows: Rows,
    zones: Mapping[str, str],
    rooms: Mapping[str, int] | None,
    fitting: frozenset[str] | None,
) -> Iterable[HostRoom]:
    """Hypervisors that are up and enabled, and whose aggregates suit the flavor."""
    for row in rows:
        service = row.get("service")
        host = service.get("host") if isinstance(service, dict) else None
        name = row.get("hypervisor_hostname")
        if not isinstance(host, str) or not isinstance(name, str) or host not in zones:
            continue
        if (row.get("state"), row.get("status")) != ("up", "enabled"):
            continue
        if fitting is not None and host not in fitting:
            continue
        room = None if rooms is None else rooms.get(str(row.get("id")), 0)
        yield HostRoom(name[:MAX_NAME], host[:MAX_NAME], zones[host], room)


async def hypervisors(ask: Ask) -> Rows:
    """All of them, as Nova has them.

    Raises:
        HiddenError: these credentials may not see them.
    """
    rows: Rows = []
    query: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        call = Call(
            "list hypervisors",
            "/os-hypervisors/detail",
            query=query,
            version=HYPERVISORS_VERSION,
        )
        body = await _seen(call, ask)
        rows += as_objects(body, "hypervisors")
        marker = next_marker(body, "hypervisors")
        if marker is None:
            break
        query = {"marker": marker}
    return rows


async def _zones(ask: Ask) -> dict[str, str]:
    """Compute service to availability zone. A service that is not up and enabled is left out."""
    query = {"binary": "nova-compute"}
    call = Call("list services", "/os-services", query=query, version=READ_VERSION)
    body = await _seen(call, ask)
    zones: dict[str, str] = {}
    for row in as_objects(body, "services"):
        host, zone = row.get("host"), row.get("zone")
        takes_builds = (row.get("state"), row.get("status")) == ("up", "enabled")
        if isinstance(host, str) and isinstance(zone, str) and takes_builds:
            zones[host] = zone[:MAX_NAME]
    return zones


async def _seen(call: Call, ask: Ask) -> bytes:
    answer = await ask(call)
    if answer.status == FORBIDDEN:
        raise HiddenError(f"these credentials may not see hypervisors: {refusal(answer)}")
    return good(answer).body


async def _fitting(size: FlavorSize, ask: Ask) -> frozenset[str] | None:
    """Hosts whose aggregates match what the flavor asks of them. None: it asks for nothing."""
    wanted = {
        key.removeprefix(AGGREGATE_SCOPE): value
        for key, value in size.extra_specs
        if key.startswith(AGGREGATE_SCOPE) and not value.startswith(OPERATORS)
    }
    if not wanted:
        return None
    body = await _seen(Call("list aggregates", "/os-aggregates"), ask)
    found: dict[str, set[tuple[str, object]]] = {}
    for aggregate in as_objects(body, "aggregates"):
        metadata, hosts = aggregate.get("metadata"), aggregate.get("hosts")
        for host in hosts if isinstance(hosts, list) else ():
            pairs = metadata.items() if isinstance(metadata, dict) else ()
            found.setdefault(str(host), set()).update((k, str(v)) for k, v in pairs)
    return frozenset(host for host, has in found.items() if wanted.items() <= has)


async def _rooms(size: FlavorSize, ask: Ask) -> dict[str, int] | None:
    """Resource provider, whose id is the hypervisor's, to servers that fit. None: not known."""
    query = candidates_query(size)
    if query is None:
        return None
    call = Call(
        "list allocation candidates",
        f"/allocation_candidates?{urlencode(query)}",
        service=Service.PLACEMENT,
        version=PLACEMENT_VERSION,
    )
    try:
        answer = await ask(call)
        return read_rooms(good(answer).body, size) if answer.status != FORBIDDEN else None
    except CloudUnavailable:
        return None


def resources(size: FlavorSize) -> dict[str, int]:
    """What one server asks of Placement, by resource class."""
    asked = {"VCPU": size.vcpus, "MEMORY_MB": size.ram_mb, "DISK_GB": size.disk_gb}
    for key, value in size.extra_specs:
        if key.startswith("resources:") and value.isdecimal():
            asked[key.removeprefix("resources:")] = int(value)
    return {name: amount for name, amount in sorted(asked.items()) if amount}


def candidates_query(size: FlavorSize) -> dict[str, str] | None:
    """What to ask of Placement. None: the flavor asks for more than one group of resources."""
    names = [key for key, _ in size.extra_specs]
    if any(map(_GROUPED.match, names)) or "hw:cpu_policy" in names or not resources(size):
        return None
    traits = [
        name.removeprefix("trait:") if value == "required" else f"!{name.removeprefix('trait:')}"
        for name, value in size.extra_specs
        if name.startswith("trait:") and value in ("required", "forbidden")
    ]
    asked = {"resources": ",".join(f"{name}:{n}" for name, n in resources(size).items())}
    return asked | ({"required": ",".join(traits)} if traits else {})


_GROUPED: Final = re.compile(r"(resources|trait)[^:]+:")
"""Extra specs of numbered groups: each may be on a provider of its own below the hypervisor's."""


def read_rooms(body: bytes, size: FlavorSize) -> dict[str, int]:
    """Servers that fit on each provider that Placement names.

    Raises:
        CloudUnavailable: it is no such answer.
    """
    summaries = whole_object(body).get("provider_summaries")
    if not isinstance(summaries, dict):
        raise CloudUnavailable("Placement's answer has no provider summaries")
    asked = resources(size)
    return {str(ident): _room(summary, asked) for ident, summary in summaries.items()}


def _room(summary: object, asked: Mapping[str, int]) -> int:
    """A class that the provider has not, such as shared disk, bounds nothing here."""
    held = summary.get("resources") if isinstance(summary, dict) else None
    rooms = [
        max(number(row, "capacity") - number(row, "used"), 0) // asked[name]
        for name, row in (held.items() if isinstance(held, dict) else ())
        if name in asked and isinstance(row, dict)
    ]
    return min(rooms, default=0)
