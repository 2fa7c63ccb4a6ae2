"""Where hosts stand, as Nova and Placement tell it themselves."""

import asyncio
from collections.abc import Iterator
from typing import Final

from warmpool.domain.cloud import Topology
from warmpool.domain.racks import Host, Hosts
from warmpool.effects.nova_calls import PLACEMENT_VERSION, Call, Service
from warmpool.effects.nova_inventory import Ask, HiddenError, hypervisors
from warmpool.effects.nova_messages import good
from warmpool.effects.nova_reading import MAX_NAME, as_objects, read_racks, whole_object
from warmpool.effects.nova_refusals import FORBIDDEN, refusal

MAX_TRAITS: Final = 2000
"""Racks that are asked about at most: each is a call."""

AT_ONCE: Final = 4
"""Of these, calls at a time."""


async def aggregates(key: str, ask: Ask) -> Topology:
    """Racks, or why these credentials may not see them."""
    answer = await ask(Call("list aggregates", "/os-aggregates"))
    if answer.status == FORBIDDEN:
        why = f"these credentials may not read host aggregates: {refusal(answer)}"
        return Topology(visible=False, why_not=why)
    return Topology(racks=read_racks(good(answer).body, key))


async def hosts(ask: Ask) -> Hosts:
    """All compute hosts."""
    try:
        rows = await hypervisors(ask)
    except HiddenError as hidden:
        return Hosts(visible=False, why_not=str(hidden))
    return Hosts(tuple(sorted(_hosts(rows))))


def _hosts(rows: list[dict[str, object]]) -> Iterator[Host]:
    for row in rows:
        service, hypervisor = row.get("service"), row.get("hypervisor_hostname")
        name = service.get("host") if isinstance(service, dict) else None
        if isinstance(name, str) and name and isinstance(hypervisor, str):
            yield Host(name[:MAX_NAME], hypervisor[:MAX_NAME])


async def traits(prefix: str, ask: Ask) -> Topology:
    """Racks of hypervisors, by their traits."""
    query = {"name": f"startswith:{prefix}", "associated": "true"}
    answer = await ask(_placement("list traits", "/traits", query))
    if answer.status == FORBIDDEN:
        why = f"these credentials may not read traits: {refusal(answer)}"
        return Topology(visible=False, why_not=why)
    there = whole_object(good(answer).body).get("traits")
    names = sorted({t for t in there if _names_rack(t, prefix)}) if isinstance(there, list) else []
    slots = asyncio.Semaphore(AT_ONCE)
    held = [_holders(name, ask, slots) for name in names[:MAX_TRAITS]]
    found: dict[str, set[str]] = {}
    for name, holders in zip(names, await asyncio.gather(*held), strict=False):
        for holder in holders:
            found.setdefault(holder, set()).add(name.removeprefix(prefix)[:MAX_NAME])
    return Topology({holder: one.pop() for holder, one in sorted(found.items()) if len(one) == 1})


def _names_rack(trait: object, prefix: str) -> bool:
    return isinstance(trait, str) and trait.startswith(prefix) and trait != prefix


async def _holders(trait: str, ask: Ask, slots: asyncio.Semaphore) -> list[str]:
    """Hypervisors with a trait."""
    async with slots:
        call = _placement("list resource providers", "/resource_providers", {"required": trait})
        rows = as_objects(good(await ask(call)).body, "resource_providers")
    names = (row.get("name") for row in rows)
    return [name[:MAX_NAME] for name in names if isinstance(name, str)]


def _placement(name: str, path: str, query: dict[str, str]) -> Call:
    return Call(name, path, service=Service.PLACEMENT, query=query, version=PLACEMENT_VERSION)
