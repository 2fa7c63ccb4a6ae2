"""Names of a template into ids, by asking the cloud. Knows no client library."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.catalogue import Entry, ImageQuery
from warmpool.domain.cloud import BuildSpec, FlavorSize, NetworkChoice
from warmpool.domain.errors import CloudUnavailable, DependencyMissing
from warmpool.effects.nova_calls import FLAVOR_VERSION, Call, Lookup, Service
from warmpool.effects.nova_images import newest_image
from warmpool.effects.nova_names import Named, Wanted, choose, missing
from warmpool.effects.nova_reading import (
    as_object,
    as_objects,
    next_marker,
    read_size,
    whole_object,
)

PAGE: Final = "1000"
"""Things per page: the default maximum of Nova and Glance."""
MAX_PAGES: Final = 20
"""Pages of flavors or key pairs that are read at most."""

FLAVOR_REF: Final = "spec.template.flavorRef.name"
"""Field of the pool that names an entry of the catalogue."""

MAX_ID: Final = 255
"""Characters of an id: the most that a pool's status takes, and far beyond what Nova gives out."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What flavor and image shall be, and what to call that in messages."""

    flavor: str
    image: str | ImageQuery
    metadata: dict[str, str]
    flavor_called: str
    image_called: str
    field: str = ""
    """Where it is named, if `..._called` are no fields of the pool."""


def _wish(template: Template, entry: Entry | None) -> _Wish:
    own = dict(template.metadata)
    if entry is None:
        fields = "spec.template.flavor", "spec.template.image"
        return _Wish(template.flavor or "", template.image or "", own, *fields)
    called = f"{FLAVOR_REF}: entry {entry.name!r}: "
    metadata = dict(entry.metadata) | own
    return _Wish(
        entry.flavor, entry.image, metadata, f"{called}flavor", f"{called}image", FLAVOR_REF
    )


async def resolve(
    template: Template, zones: tuple[str, ...], entry: Entry | None, lookup: Lookup
) -> BuildSpec:
    """The contract of `Cloud.resolve`. One thing after the other: the first that fails is told."""
    wish = _wish(template, entry)
    try:
        flavor, size = await _flavor(wish, lookup)
        image = await _image(wish, lookup)
        _check_id(flavor, wish.flavor_called)
        _check_id(image, wish.image_called)
    except DependencyMissing as missed:
        if not wish.field:
            raise
        raise DependencyMissing(str(missed), reason=missed.reason, field=wish.field) from missed
    networks = await _networks(template, lookup)
    key_pair = await _key_pair(template.key_pair, lookup)
    await _check_zones(zones, lookup)
    return BuildSpec(
        flavor_id=flavor,
        image_id=image,
        networks=networks,
        security_groups=tuple(template.security_groups),
        key_pair=key_pair,
        metadata=tuple(sorted(wish.metadata.items())),
        tags=tuple(template.tags),
        config_drive=template.config_drive,
        size=size,
    )


def _check_id(found: str, called: str) -> None:
    if len(found) > MAX_ID:
        raise CloudUnavailable(f"{called}: the cloud answers with an id of {len(found)} characters")


async def _flavor(wish: _Wish, lookup: Lookup) -> tuple[str, FlavorSize]:
    wanted = Wanted("flavor", wish.flavor, wish.flavor_called, Reason.FLAVOR_NOT_FOUND)
    flavors = [
        _named(record) for record in await _all(lookup, Call("list flavors", "/flavors"), "flavors")
    ]
    found = choose(wanted, flavors)
    if found is None:
        raise missing(wanted, (flavor.name for flavor in flavors))
    call = Call("get flavor", f"/flavors/{quote(found, safe='')}", version=FLAVOR_VERSION)
    body = await lookup.body(call)
    if body is None:  # deleted between the two calls
        raise missing(wanted, (flavor.name for flavor in flavors if flavor.id != found))
    return found, read_size(as_object(body, "flavor"))


async def _image(wish: _Wish, lookup: Lookup) -> str:
    if isinstance(wish.image, ImageQuery):
        return await newest_image(wish.image, wish.image_called, lookup)
    return await _named_image(wish.image, wish.image_called, lookup)


async def _named_image(value: str, called: str, lookup: Lookup) -> str:
    """An image is found whether it is public, shared or the project's own, but only while active.

    An id is asked for by itself: a list leaves out community images.
    """
    wanted = Wanted("image", value, called, Reason.IMAGE_NOT_FOUND)
    call = Call("list images", "/images", service=Service.IMAGE)
    query = {"status": "active", "limit": PAGE}
    found = choose(wanted, await _some(lookup, call, "images", {**query, "name": value}))
    if found is None and _UUID.fullmatch(value):
        body = await lookup.body(Call("get image", f"/images/{value}", service=Service.IMAGE))
        found = _active_image(wanted, body) if body is not None else None
    if found is None:
        raise missing(wanted, (i.name for i in await _some(lookup, call, "images", query)))
    return found


def _active_image(wanted: Wanted, body: bytes) -> str:
    status = whole_object(body).get("status")
    if status != "active":
        raise DependencyMissing(
            f"{wanted.field}: image {wanted.value!r} is {str(status)[:40]!r}, not 'active'",
            reason=wanted.reason,
            field=wanted.field,
        )
    return wanted.value


async def _networks(template: Template, lookup: Lookup) -> NetworkChoice | tuple[str, ...]:
    if template.networks is None:
        return NetworkChoice.AUTO
    if not template.networks:
        return NetworkChoice.NONE
    neutron = await lookup.has(Service.NETWORK)
    ids = []
    for index, network in enumerate(template.networks):
        field = f"spec.template.networks[{index}].network"
        wanted = Wanted("network", network.network, field, Reason.NETWORK_NOT_FOUND)
        if not neutron:
            raise DependencyMissing(
                f"{field}: the cloud's catalogue has no network service in this region; "
                "an empty list of networks boots without one",
                reason=wanted.reason,
                field=field,
            )
        ids.append(await _network(wanted, lookup))
    return tuple(ids)


async def _network(wanted: Wanted, lookup: Lookup) -> str:
    call = Call("list networks", "/networks", service=Service.NETWORK)
    named = await _some(lookup, call, "networks", {"name": wanted.value})
    if _UUID.fullmatch(wanted.value):
        named += await _some(lookup, call, "networks", {"id": wanted.value})
    found = choose(wanted, named)
    if found is None:
        raise missing(wanted, (n.name for n in await _some(lookup, call, "networks", {})))
    return found


async def _key_pair(value: str | None, lookup: Lookup) -> str | None:
    if value is None:
        return None
    if await lookup.body(Call("get key pair", f"/os-keypairs/{quote(value, safe='')}")) is None:
        wanted = Wanted("key pair", value, "spec.template.keyPair", Reason.KEY_PAIR_NOT_FOUND)
        pairs = await _all(lookup, Call("list key pairs", "/os-keypairs"), "keypairs")
        inner = (pair.get("keypair") for pair in pairs)
        raise missing(wanted, (_named(p).name for p in inner if isinstance(p, dict)))
    return value


async def _check_zones(zones: tuple[str, ...], lookup: Lookup) -> None:
    """A zone that is there but marked unavailable passes: its builds tell, and hold the zone."""
    if not zones:
        return
    body = await lookup.body(Call("list zones", "/os-availability-zone"))
    infos = as_objects(body or b"", "availabilityZoneInfo")
    names = {name for info in infos if isinstance(name := info.get("zoneName"), str)}
    for index, zone in enumerate(zones):
        if zone not in names:
            field = f"spec.availabilityZones[{index}]"
            raise missing(Wanted("availability zone", zone, field, Reason.ZONE_NOT_FOUND), names)


async def _all(lookup: Lookup, call: Call, key: str) -> list[dict[str, object]]:
    """All records of a list of Nova's, over its pages."""
    records: list[dict[str, object]] = []
    query = {"limit": PAGE}
    for _ in range(MAX_PAGES):
        body = await lookup.body(Call(call.name, call.path, query=query)) or b""
        records += as_objects(body, key)
        marker = next_marker(body, key)
        if marker is None:
            break
        query = {"limit": PAGE, "marker": marker}
    return records


async def _some(lookup: Lookup, call: Call, key: str, query: dict[str, str]) -> list[Named]:
    """The first page of a list that is filtered by name, or that only feeds a message."""
    narrowed = Call(call.name, call.path, service=call.service, query=query)
    return [_named(record) for record in as_objects(await lookup.body(narrowed) or b"", key)]


def _named(record: dict[str, object]) -> Named:
    ident, name = record.get("id"), record.get("name")
    return Named(ident if isinstance(ident, str) else "", name if isinstance(name, str) else "")
