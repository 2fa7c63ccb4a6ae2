"""Glance, Neutron and Placement, as far as booting a server and seeing hosts needs them."""

from datetime import timedelta
from typing import Any

from aiohttp import web

from warmpool.sim.spec import ImageSpec
from warmpool.sim.views import rack_trait, second
from warmpool.sim.wire import SITE, Call, answer, guarded, page_not_found
from warmpool.sim.world import Host, named_id

NEWEST_IMAGE_API = 17
ABSENT = ("ports", "subnets", "floatingips", "routers")
"""Things of Neutron's of which there are none: addresses are told by Nova alone."""


def add_routes(app: web.Application) -> None:
    """Serve below /image, /network and /placement."""
    get = app.router.add_get
    for slash in ("", "/"):
        get(f"/image{slash}", _image_versions)
        get(f"/network{slash}", _network_versions)
        get(f"/placement{slash}", _placement_versions)
        get(f"/network/v2.0{slash}", guarded(_network_resources))
    get("/image/v2/images", guarded(images))
    get("/image/v2/images/{id}", guarded(image))
    get("/network/v2.0/networks", guarded(networks))
    get("/network/v2.0/networks/{id}", guarded(network))
    get("/network/v2.0/security-groups", guarded(security_groups))
    get("/network/v2.0/security-groups/{id}", guarded(security_group))
    for collection in ABSENT:
        get(f"/network/v2.0/{collection}", guarded(none))
    get("/placement/traits", guarded(traits))
    get("/placement/resource_providers", guarded(providers))
    get("/placement/allocation_candidates", guarded(candidates))
    get("/placement/resource_providers/{id}", guarded(provider))
    get("/placement/resource_providers/{id}/inventories", guarded(inventories))
    get("/placement/resource_providers/{id}/usages", guarded(usages))


async def _image_versions(request: web.Request) -> web.Response:
    href = f"{request.app[SITE].base}/image/v2/"
    versions = [
        {
            "id": f"v2.{minor}",
            "status": "CURRENT" if minor == NEWEST_IMAGE_API else "SUPPORTED",
            "links": [{"rel": "self", "href": href}],
        }
        for minor in range(NEWEST_IMAGE_API, -1, -1)
    ]
    return answer({"versions": versions}, 300)


async def _network_versions(request: web.Request) -> web.Response:
    href = f"{request.app[SITE].base}/network/v2.0/"
    version = {"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": href}]}
    return answer({"versions": [version]})


async def _placement_versions(_: web.Request) -> web.Response:
    version = {
        "id": "v1.0",
        "max_version": "1.39",
        "min_version": "1.0",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }
    return answer({"versions": [version]}, headers={"openstack-api-version": "placement 1.0"})


async def _network_resources(_: Call) -> web.Response:
    return answer({"resources": []})


def _image_body(call: Call, ident: str, image: ImageSpec) -> dict[str, Any]:
    created = second(call.site.started + timedelta(seconds=image.created))
    return {
        **image.properties,
        "id": ident,
        "name": image.name,
        "disk_format": "qcow2",
        "container_format": "bare",
        "visibility": "public",
        "size": 4096,
        "virtual_size": 4096,
        "status": "active",
        "checksum": named_id("checksum", image.name).replace("-", ""),
        "protected": False,
        "min_ram": image.min_ram,
        "min_disk": image.min_disk,
        "owner": call.nova.project().id,
        "os_hidden": False,
        "created_at": created,
        "updated_at": created,
        "tags": image.tags,
        "self": f"/v2/images/{ident}",
        "file": f"/v2/images/{ident}/file",
        "schema": "/v2/schemas/image",
    }


async def images(call: Call) -> web.Response:
    name, status = call.query.get("name"), call.query.get("status", "active")
    ids = call.query.get("id", "").removeprefix("in:").split(",") if "id" in call.query else None
    rows = [
        _image_body(call, ident, image)
        for ident, image in call.nova.world.images.items()
        if name in {None, image.name} and status == "active" and (ids is None or ident in ids)
        if _has(call, image)
    ]
    if call.query.get("sort", "").startswith("created_at:desc"):
        rows.sort(key=lambda row: str(row["created_at"]), reverse=True)
    return answer({"images": rows, "first": "/v2/images", "schema": "/v2/schemas/images"})


def _has(call: Call, image: ImageSpec) -> bool:
    """The filters by tag, and by any property that some image has."""
    known = {key for one in call.nova.world.images.values() for key in one.properties}
    asked = {key: value for key, value in call.query.items() if key in known}
    tags = call.request.query.getall("tag", [])
    return asked.items() <= image.properties.items() and set(tags) <= set(image.tags)


async def image(call: Call) -> web.Response:
    ident = call.part("id")
    if ident not in call.nova.world.images:
        return page_not_found(f"No image found with ID {ident}")
    return answer(_image_body(call, ident, call.nova.world.images[ident]))


def _network_body(call: Call, ident: str, name: str) -> dict[str, Any]:
    return {
        "id": ident,
        "name": name,
        "tenant_id": call.nova.project().id,
        "project_id": call.nova.project().id,
        "status": "ACTIVE",
        "admin_state_up": True,
        "shared": True,
        "router:external": False,
        "mtu": 1500,
        "subnets": [],
    }


def _filtered(call: Call, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = {key: call.request.query.getall(key) for key in ("id", "name") if key in call.query}
    return [row for row in rows if all(row[key] in values for key, values in wanted.items())]


async def networks(call: Call) -> web.Response:
    there = call.nova.world.networks.items()
    rows = [_network_body(call, ident, spec.name) for ident, spec in there]
    return answer({"networks": _filtered(call, rows)})


async def network(call: Call) -> web.Response:
    ident, there = call.part("id"), call.nova.world.networks
    if ident not in there:
        return _not_in_neutron("Network", ident)
    return answer({"network": _network_body(call, ident, there[ident].name)})


def _not_in_neutron(kind: str, ident: str) -> web.Response:
    message = f"{kind} {ident} could not be found."
    error = {"type": f"{kind}NotFound", "message": message, "detail": ""}
    return answer({"NeutronError": error}, 404)


def _groups(call: Call) -> list[dict[str, Any]]:
    project = call.nova.project().id
    return [
        {
            "id": named_id("security-group", name),
            "name": name,
            "project_id": project,
            "tenant_id": project,
            "description": "",
            "security_group_rules": [],
        }
        for name in call.nova.spec.security_groups
    ]


async def security_groups(call: Call) -> web.Response:
    return answer({"security_groups": _filtered(call, _groups(call))})


async def security_group(call: Call) -> web.Response:
    ident = call.part("id")
    found = next((row for row in _groups(call) if row["id"] == ident), None)
    if found is None:
        return _not_in_neutron("SecurityGroup", ident)
    return answer({"security_group": found})


async def none(call: Call) -> web.Response:
    """There is none."""
    return answer({call.request.path.rpartition("/")[2]: []})


def _forbidden(call: Call, rule: str) -> web.Response | None:
    if call.caller.admin:
        return None
    detail = (
        f"Access was denied to this resource.\n\n Policy does not allow {rule} to be performed."
    )
    return answer({"errors": [{"status": 403, "title": "Forbidden", "detail": detail}]}, 403)


def _provider_body(host: Host) -> dict[str, Any]:
    path = f"/resource_providers/{host.id}"
    links = [{"rel": "self", "href": path}]
    links += [{"rel": rel, "href": f"{path}/{rel}"} for rel in ("inventories", "usages")]
    return {"uuid": host.id, "name": host.name, "generation": 1, "links": links}


async def traits(call: Call) -> web.Response:
    refused = _forbidden(call, "placement:traits:list")
    prefix = call.query.get("name", "").removeprefix("startswith:")
    names = {rack_trait(host) for host in call.nova.world.hosts.values()}
    return refused or answer({"traits": sorted(n for n in names if n.startswith(prefix))})


async def providers(call: Call) -> web.Response:
    refused = _forbidden(call, "placement:resource_providers:list")
    name, trait = call.query.get("name"), call.query.get("required")
    hosts = [
        host
        for host in call.nova.world.hosts.values()
        if name in {None, host.name} and trait in {None, rack_trait(host)}
    ]
    return refused or answer({"resource_providers": [_provider_body(host) for host in hosts]})


def _provider(call: Call) -> Host | None:
    ident = call.part("id")
    return next((host for host in call.nova.world.hosts.values() if host.id == ident), None)


def _no_provider(call: Call) -> web.Response:
    detail = f"No resource provider with uuid {call.part('id')} found"
    return answer({"errors": [{"status": 404, "title": "Not Found", "detail": detail}]}, 404)


async def provider(call: Call) -> web.Response:
    refused, host = _forbidden(call, "placement:resource_providers:show"), _provider(call)
    return refused or (answer(_provider_body(host)) if host else _no_provider(call))


async def inventories(call: Call) -> web.Response:
    refused, host = (
        _forbidden(call, "placement:resource_providers:inventories:list"),
        _provider(call),
    )
    if refused or host is None:
        return refused or _no_provider(call)
    return answer({"resource_provider_generation": 1, "inventories": _inventories(host)})


def _inventories(host: Host) -> dict[str, dict[str, Any]]:
    spec = host.spec
    return {
        "VCPU": _inventory(spec.vcpus, 0, spec.cpu_ratio),
        "MEMORY_MB": _inventory(spec.ram_mb, spec.reserved_ram_mb, 1.0),
        "DISK_GB": _inventory(spec.disk_gb, 0, 1.0),
    }


def _inventory(total: int, reserved: int, ratio: float) -> dict[str, Any]:
    row = {"total": total, "reserved": reserved, "min_unit": 1, "max_unit": total}
    return {**row, "step_size": 1, "allocation_ratio": ratio}


async def usages(call: Call) -> web.Response:
    refused, host = _forbidden(call, "placement:resource_providers:usages"), _provider(call)
    if refused or host is None:
        return refused or _no_provider(call)
    return answer({"resource_provider_generation": 1, "usages": _used(host)})


def _used(host: Host) -> dict[str, int]:
    return {"VCPU": host.vcpus_used, "MEMORY_MB": host.ram_used, "DISK_GB": host.disk_used}


async def candidates(call: Call) -> web.Response:
    """Providers with room for these resources, and what they have left. Any trait will do."""
    refused = _forbidden(call, "placement:allocation_candidates:list")
    asked = _resources(call.query.get("resources", ""))
    if refused or not asked:
        detail = "Badly formed resources parameter. Expected resources query string parameter"
        return refused or answer({"errors": [{"status": 400, "detail": detail}]}, 400)
    hosts = call.nova.world.hosts.values()
    fit = {host.id: _left(host) for host in hosts if _takes(host, asked)}
    return answer(
        {
            "allocation_requests": [{"allocations": {i: {"resources": asked}}} for i in fit],
            "provider_summaries": {ident: {"resources": rows} for ident, rows in fit.items()},
        }
    )


def _resources(text: str) -> dict[str, int]:
    pairs = [part.partition(":")[::2] for part in text.split(",")]
    return {name: int(amount) for name, amount in pairs if amount.isdecimal()}


def _left(host: Host) -> dict[str, dict[str, int]]:
    used = _used(host)
    return {
        name: {
            "capacity": int((row["total"] - row["reserved"]) * row["allocation_ratio"]),
            "used": used[name],
        }
        for name, row in _inventories(host).items()
    }


def _takes(host: Host, asked: dict[str, int]) -> bool:
    """One server may not take more than there really is, whatever is sold beyond that."""
    rows, most = _left(host), _inventories(host)
    return all(
        name in rows
        and amount <= most[name]["max_unit"]
        and rows[name]["used"] + amount <= rows[name]["capacity"]
        for name, amount in asked.items()
    )
