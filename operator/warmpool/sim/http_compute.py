"""The rest of Nova over HTTP: flavors, keys, groups, limits, and what only admins see."""

import asyncio
import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from warmpool.sim.errors import UNEXPECTED, Refused, bad_request, policy
from warmpool.sim.nova import LATEST
from warmpool.sim.spec import KeyPairSpec, QuotaSpec
from warmpool.sim.views import micro
from warmpool.sim.wire import (
    OLDEST,
    SITE,
    Call,
    answer,
    empty,
    guarded,
    version_headers,
    write,
)
from warmpool.sim.world import Group, Host, Migration, Project, named_id

ROOT = "/compute/v2.1"
Rows = list[dict[str, Any]]


def add_routes(app: web.Application) -> None:
    """Serve all of Nova but /servers."""
    for path in ("/compute", "/compute/"):
        app.router.add_get(path, _versions)
    for path in (ROOT, f"{ROOT}/"):
        app.router.add_get(path, _version)
    get, post = app.router.add_get, app.router.add_post
    get(f"{ROOT}/flavors", guarded(flavors))
    get(f"{ROOT}/flavors/detail", guarded(flavor_details))
    get(f"{ROOT}/flavors/{{id}}", guarded(flavor))
    get(f"{ROOT}/flavors/{{id}}/os-extra_specs", guarded(extra_specs))
    get(f"{ROOT}/os-keypairs", guarded(keys))
    post(f"{ROOT}/os-keypairs", guarded(add_key))
    get(f"{ROOT}/os-keypairs/{{name}}", guarded(key))
    app.router.add_delete(f"{ROOT}/os-keypairs/{{name}}", guarded(delete_key))
    get(f"{ROOT}/os-availability-zone", guarded(zones))
    get(f"{ROOT}/os-availability-zone/detail", guarded(zone_details))
    get(f"{ROOT}/limits", guarded(limits))
    get(f"{ROOT}/os-quota-sets/{{project}}", guarded(quota))
    app.router.add_put(f"{ROOT}/os-quota-sets/{{project}}", guarded(set_quota))
    get(f"{ROOT}/os-quota-sets/{{project}}/detail", guarded(quota_detail))
    get(f"{ROOT}/os-server-groups", guarded(groups))
    post(f"{ROOT}/os-server-groups", guarded(add_group))
    get(f"{ROOT}/os-server-groups/{{id}}", guarded(group))
    app.router.add_delete(f"{ROOT}/os-server-groups/{{id}}", guarded(delete_group))
    get(f"{ROOT}/os-services", guarded(services))
    app.router.add_put(f"{ROOT}/os-services/{{id}}", guarded(set_service))
    get(f"{ROOT}/os-hypervisors", guarded(hypervisors))
    get(f"{ROOT}/os-hypervisors/detail", guarded(hypervisor_details))
    get(f"{ROOT}/os-hypervisors/{{id}}", guarded(hypervisor))
    get(f"{ROOT}/os-aggregates", guarded(aggregates))
    get(f"{ROOT}/os-aggregates/{{id}}", guarded(aggregate))
    post(f"{ROOT}/os-aggregates/{{id}}/images", guarded(precache))
    get(f"{ROOT}/os-migrations", guarded(migrations))


def _document(base: str) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": write(LATEST),
        "min_version": write(OLDEST),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{base}{ROOT}/"}],
    }


async def _versions(request: web.Request) -> web.Response:
    return answer({"versions": [_document(request.app[SITE].base)]})


async def _version(request: web.Request) -> web.Response:
    return answer({"version": _document(request.app[SITE].base)}, headers=version_headers(OLDEST))


async def flavors(call: Call) -> web.Response:
    rows: Rows = [
        {"id": ident, "name": flavor.name, "links": call.site.views.links("flavors", ident)}
        for ident, flavor in call.nova.world.flavors.items()
    ]
    if call.version >= (2, 55):
        rows = [{**row, "description": None} for row in rows]
    return answer({"flavors": _page(call, rows)})


async def flavor_details(call: Call) -> web.Response:
    whole = partial(call.site.views.flavor, version=call.version)
    rows = [whole(ident, flavor) for ident, flavor in call.nova.world.flavors.items()]
    return answer({"flavors": _page(call, rows)})


def _page(call: Call, rows: Rows) -> Rows:
    """What follows the marker. All of it: a simulated list of these is short.

    Raises:
        Refused: 400, there is no such marker.
    """
    marker = call.query.get("marker")
    if marker is None:
        return rows
    at = next((n for n, row in enumerate(rows) if row["id"] == marker), None)
    if at is None:
        raise bad_request(f"marker [{marker}] not found")
    return rows[at + 1 :]


async def flavor(call: Call) -> web.Response:
    ident = call.part("id")
    return answer({"flavor": call.site.views.flavor(ident, _flavor(call, ident), call.version)})


def _flavor(call: Call, ident: str) -> Any:
    if ident not in call.nova.world.flavors:
        raise Refused(404, f"Flavor {ident} could not be found.")
    return call.nova.world.flavors[ident]


async def extra_specs(call: Call) -> web.Response:
    return answer({"extra_specs": _flavor(call, call.part("id")).extra_specs})


def _key_body(pair: KeyPairSpec) -> dict[str, str]:
    digest = hashlib.sha256(pair.public_key.encode()).hexdigest()[:32]
    fingerprint = ":".join(digest[n : n + 2] for n in range(0, 32, 2))
    body = {"name": pair.name, "public_key": pair.public_key, "type": "ssh"}
    return {**body, "fingerprint": fingerprint}


async def keys(call: Call) -> web.Response:
    pairs = call.caller.project.key_pairs.values()
    return answer({"keypairs": [{"keypair": _key_body(pair)} for pair in pairs]})


async def key(call: Call) -> web.Response:
    return answer({"keypair": _key_body(_key(call))})


def _key(call: Call) -> KeyPairSpec:
    name, pairs = call.part("name"), call.caller.project.key_pairs
    if name not in pairs:
        user = named_id("user", call.caller.user).replace("-", "")
        raise Refused(404, f"Keypair {name} not found for user {user}")
    return pairs[name]


async def add_key(call: Call) -> web.Response:
    asked, pairs = await call.below("keypair"), call.caller.project.key_pairs
    name, public = asked.get("name"), asked.get("public_key")
    if not (isinstance(name, str) and isinstance(public, str)):
        raise bad_request("The simulator makes no keys: name and public_key are needed.")
    if name in pairs:
        raise Refused(409, f"Key pair '{name}' already exists.")
    pairs[name] = KeyPairSpec(name=name, public_key=public)
    return answer({"keypair": _key_body(pairs[name])}, 201 if call.version >= (2, 2) else 200)


async def delete_key(call: Call) -> web.Response:
    del call.caller.project.key_pairs[_key(call).name]
    return empty(204 if call.version >= (2, 2) else 202)


async def zones(call: Call) -> web.Response:
    rows: Rows = [
        {"zoneName": zone, "zoneState": {"available": _available(call, zone)}, "hosts": None}
        for zone in call.nova.world.zones()
    ]
    return answer({"availabilityZoneInfo": rows})


def _available(call: Call, zone: str) -> bool:
    world = call.nova.world
    hosts = (host for host in world.hosts.values() if host.spec.zone == zone)
    return any(not host.disabled and world.is_up(host) for host in hosts)


async def zone_details(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-availability-zone:detail")
    world = call.nova.world
    rows = [
        {
            "zoneName": zone,
            "zoneState": {"available": _available(call, zone)},
            "hosts": {
                host.name: {
                    "nova-compute": {
                        "available": not host.disabled,
                        "active": world.is_up(host),
                        "updated_at": micro(world.time.moment()),
                    }
                }
                for host in world.hosts.values()
                if host.spec.zone == zone
            },
        }
        for zone in world.zones()
    ]
    return answer({"availabilityZoneInfo": rows})


async def limits(call: Call) -> web.Response:
    project = call.caller.project
    quota = project.quota
    groups = sum(g.project == project.id for g in call.nova.world.groups.values())
    absolute = {
        "maxTotalCores": quota.cores,
        "maxTotalInstances": quota.instances,
        "maxTotalKeypairs": 100,
        "maxServerMeta": 128,
        "maxTotalRAMSize": quota.ram_mb,
        "maxServerGroups": quota.server_groups,
        "maxServerGroupMembers": quota.server_group_members,
        "totalRAMUsed": project.ram_mb,
        "totalCoresUsed": project.cores,
        "totalInstancesUsed": project.instances,
        "totalServerGroupsUsed": groups,
    }
    return answer({"limits": {"rate": [], "absolute": absolute}})


def _quota_project(call: Call, rule: str) -> Project:
    ident = call.part("project")
    if ident != call.caller.project.id:
        call.admin_only(f"os_compute_api:os-quota-sets:{rule}")
    if ident not in call.nova.world.projects:
        raise bad_request(f"Project ID {ident} is not a valid project.")
    return call.nova.world.projects[ident]


def _quota_rows(project: Project) -> dict[str, tuple[int, int]]:
    quota = project.quota
    return {
        "cores": (quota.cores, project.cores),
        "instances": (quota.instances, project.instances),
        "key_pairs": (100, 0),
        "metadata_items": (128, 0),
        "ram": (quota.ram_mb, project.ram_mb),
        "server_group_members": (quota.server_group_members, 0),
        "server_groups": (quota.server_groups, 0),
    }


async def quota(call: Call) -> web.Response:
    project = _quota_project(call, "show")
    rows = {name: limit for name, (limit, _) in _quota_rows(project).items()}
    return answer({"quota_set": {"id": project.id, **rows}})


async def quota_detail(call: Call) -> web.Response:
    project = _quota_project(call, "detail")
    rows = {
        name: {"limit": limit, "in_use": used, "reserved": 0}
        for name, (limit, used) in _quota_rows(project).items()
    }
    return answer({"quota_set": {"id": project.id, **rows}})


async def set_quota(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-quota-sets:update")
    project, asked = _quota_project(call, "update"), await call.below("quota_set")
    names = {"ram": "ram_mb"}
    changes = {names.get(key, key): value for key, value in asked.items() if key != "force"}
    try:
        project.quota = QuotaSpec.model_validate({**project.quota.model_dump(), **changes})
    except ValueError as error:
        raise bad_request(str(error)) from None
    return answer({"quota_set": {n: limit for n, (limit, _) in _quota_rows(project).items()}})


def _group_body(call: Call, group: Group) -> dict[str, Any]:
    members = [ident for ident in group.members if ident in call.nova.world.servers]
    body: dict[str, Any] = {"id": group.id, "name": group.name, "members": members}
    if call.version >= (2, 64):
        rules = {"max_server_per_host": group.max_per_host} if group.has_rules else {}
        body |= {"policy": group.policy, "rules": rules}
    else:
        body |= {"policies": [group.policy], "metadata": {}}
    if call.version >= (2, 13):
        body |= {"project_id": group.project, "user_id": named_id("user", call.caller.user)}
    return body


async def groups(call: Call) -> web.Response:
    there = call.nova.world.groups.values()
    mine = [_group_body(call, g) for g in there if g.project == call.caller.project.id]
    return answer({"server_groups": mine})


def _group(call: Call) -> Group:
    group = call.nova.world.groups.get(call.part("id"))
    if group is None or group.project != call.caller.project.id:
        raise Refused(404, f"Instance group {call.part('id')} could not be found.")
    return group


async def group(call: Call) -> web.Response:
    return answer({"server_group": _group_body(call, _group(call))})


async def add_group(call: Call) -> web.Response:
    asked = await call.below("server_group")
    policies = asked.get("policies") or [""]
    kind = asked.get("policy") if call.version >= (2, 64) else policies[0]
    made = call.nova.create_group(
        str(asked.get("name")), str(kind), asked.get("rules"), call.caller.project
    )
    return answer({"server_group": _group_body(call, made)})


async def delete_group(call: Call) -> web.Response:
    del call.nova.world.groups[_group(call).id]
    return empty(204)


def _service_body(call: Call, host: Host) -> dict[str, Any]:
    world = call.nova.world
    silent = 0.0 if host.alive else world.time.at - (host.silent_since or 0.0)
    beat = world.time.moment().timestamp() - silent
    body: dict[str, Any] = {
        "binary": "nova-compute",
        "host": host.name,
        "id": host.service_id if call.version >= (2, 53) else host.number,
        "zone": host.spec.zone,
        "status": "disabled" if host.disabled else "enabled",
        "state": "up" if world.is_up(host) else "down",
        "updated_at": micro(
            type(world.time.moment()).fromtimestamp(beat, world.time.moment().tzinfo)
        ),
        "disabled_reason": host.disabled_reason,
    }
    if call.version >= (2, 11):
        body["forced_down"] = host.forced_down
    return body


async def services(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-services:list")
    wanted, binary = call.query.get("host"), call.query.get("binary", "nova-compute")
    hosts = [h for h in call.nova.world.hosts.values() if wanted in {None, h.name}]
    rows = [_service_body(call, host) for host in hosts if binary == "nova-compute"]
    return answer({"services": rows})


async def set_service(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-services:update")
    ident, asked = call.part("id"), await call.document()
    host = next((h for h in call.nova.world.hosts.values() if h.service_id == ident), None)
    if host is None:
        raise Refused(404, f"Service {ident} could not be found.")
    if "status" in asked:
        call.nova.disable(host, asked["status"] == "disabled", asked.get("disabled_reason"))
    if "forced_down" in asked:
        call.nova.force_down(host, down=bool(asked["forced_down"]))
    return answer({"service": _service_body(call, host)})


def _hypervisor_body(call: Call, host: Host) -> dict[str, Any]:
    world = call.nova.world
    return {
        "id": host.id if call.version >= (2, 53) else host.number,
        "hypervisor_hostname": host.name,
        "state": "up" if world.is_up(host) else "down",
        "status": "disabled" if host.disabled else "enabled",
    }


def _hypervisor_detail(call: Call, host: Host) -> dict[str, Any]:
    service = host.service_id if call.version >= (2, 53) else host.number
    body = {
        **_hypervisor_body(call, host),
        "hypervisor_type": "fake",
        "hypervisor_version": 1000,
        "host_ip": "127.0.0.1",
        "service": {"id": service, "host": host.name, "disabled_reason": host.disabled_reason},
    }
    if call.version >= (2, 88):
        return {**body, "uptime": None}
    spec = host.spec
    return {
        **body,
        "vcpus": spec.vcpus,
        "memory_mb": spec.ram_mb,
        "local_gb": spec.disk_gb,
        "vcpus_used": host.vcpus_used,
        "memory_mb_used": host.ram_used + spec.reserved_ram_mb,
        "local_gb_used": host.disk_used,
        "free_ram_mb": spec.ram_mb - spec.reserved_ram_mb - host.ram_used,
        "free_disk_gb": spec.disk_gb - host.disk_used,
        "current_workload": host.building,
        "running_vms": sum(s.host == host.name for s in call.nova.world.servers.values()),
        "disk_available_least": 0,
        "cpu_info": "{}" if call.version < (2, 28) else {},
    }


async def hypervisors(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-hypervisors:list")
    rows = [_hypervisor_body(call, host) for host in _named_hosts(call)]
    if call.query.get("with_servers", "").lower() in {"true", "1"}:
        rows = [{**row, "servers": _servers_on(call, row["hypervisor_hostname"])} for row in rows]
    return answer({"hypervisors": rows})


def _named_hosts(call: Call) -> list[Host]:
    part = call.query.get("hypervisor_hostname_pattern", "")
    return [host for host in call.nova.world.hosts.values() if part in host.name]


def _servers_on(call: Call, host: str) -> Rows:
    there = (s for s in call.nova.world.servers.values() if s.host == host)
    return [{"uuid": s.id, "name": f"instance-{s.number:08x}"} for s in there]


async def hypervisor_details(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-hypervisors:list-detail")
    hosts = _named_hosts(call)
    await _ask_computes(call, hosts)
    return answer({"hypervisors": [_hypervisor_detail(call, host) for host in hosts]})


async def hypervisor(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-hypervisors:show")
    ident = call.part("id")
    host = next((h for h in call.nova.world.hosts.values() if ident in {h.id, str(h.number)}), None)
    if host is None:
        raise Refused(404, f"Compute host {ident} could not be found.")
    await _ask_computes(call, [host])
    return answer({"hypervisor": _hypervisor_detail(call, host)})


async def _ask_computes(call: Call, hosts: list[Host]) -> None:
    """From 2.88 on every compute that reads up is asked: one that is dead costs the whole call."""
    world = call.nova.world
    if call.version >= (2, 88) and any(world.is_up(h) and not h.alive for h in hosts):
        await asyncio.sleep(call.nova.spec.timings.rpc_timeout)
        raise Refused(500, UNEXPECTED.format("oslo_messaging.exceptions.MessagingTimeout"))


def _aggregates(call: Call) -> Rows:
    created = micro(call.site.started)
    return [
        {
            "id": n,
            "uuid": named_id("aggregate", rack),
            "name": f"rack-{rack}",
            "hosts": [host.name for host in hosts],
            "metadata": {"availability_zone": hosts[0].spec.zone, "rack": rack},
            "created_at": created,
            "updated_at": None,
            "deleted_at": None,
            "deleted": False,
            "availability_zone": hosts[0].spec.zone,
        }
        for n, (rack, hosts) in enumerate(call.nova.world.racks().items(), start=1)
    ]


async def aggregates(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-aggregates:index")
    return answer({"aggregates": _aggregates(call)})


def _aggregate(call: Call) -> dict[str, Any]:
    ident = call.part("id")
    found = next((row for row in _aggregates(call) if str(row["id"]) == ident), None)
    if found is None:
        raise Refused(404, f"Aggregate {ident} could not be found.")
    return found


async def aggregate(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-aggregates:show")
    return answer({"aggregate": _aggregate(call)})


async def precache(call: Call) -> web.Response:
    """Accepted, and nothing is ever heard of it, but in the simulator's own state."""
    if call.version < (2, 81):
        raise Refused(404, "The resource could not be found.")
    if not call.caller.admin:
        raise policy("compute:aggregates:images")
    hosts, document = _aggregate(call)["hosts"], await call.document()
    images = [str(item.get("id")) for item in document.get("cache", [])]
    for image in images:
        if image not in call.nova.world.images:
            raise bad_request(f"Image {image} could not be found.")
    if len(set(images)) < len(images):
        raise bad_request(f"Duplicate images in request: {images}")
    moment = call.nova.world.time.moment()
    call.nova.world.precached.update({(h, image): moment for h in hosts for image in images})
    return empty(202)


def _migration_body(migration: Migration, project: str) -> dict[str, Any]:
    return {
        "id": migration.number,
        "uuid": migration.id,
        "source_compute": migration.source,
        "dest_compute": migration.dest,
        "source_node": migration.source,
        "dest_node": migration.dest,
        "dest_host": None,
        "instance_uuid": migration.server,
        "status": migration.status,
        "migration_type": migration.kind,
        "project_id": project,
        "created_at": micro(migration.created),
        "updated_at": micro(migration.updated),
    }


async def migrations(call: Call) -> web.Response:
    call.admin_only("os_compute_api:os-migrations:index")
    checks: dict[str, Callable[[Migration], str | None]] = {
        "instance_uuid": lambda m: m.server,
        "status": lambda m: m.status,
        "migration_type": lambda m: m.kind,
        "source_compute": lambda m: m.source,
    }
    rows = [
        _migration_body(migration, call.caller.project.id)
        for migration in reversed(call.nova.world.migrations)
        if all(call.query.get(k) in {None, read(migration)} for k, read in checks.items())
    ]
    return answer({"migrations": rows})
