"""Servers over HTTP: create, list, show, change, act, delete."""

import asyncio
import secrets
from urllib.parse import urlencode

from aiohttp import web

from warmpool.sim.errors import Refused, bad_request
from warmpool.sim.forms import (
    MAX_TAGS,
    check_tag,
    read_build,
    read_metadata,
    read_name,
    read_query,
    read_tags,
)
from warmpool.sim.views import micro
from warmpool.sim.wire import Call, answer, empty, guarded, raw
from warmpool.sim.world import Deed, Server

ROOT = "/compute/v2.1/servers"


def add_routes(app: web.Application) -> None:
    """Serve /servers of Nova."""
    one = f"{ROOT}/{{id}}"
    app.router.add_post(ROOT, guarded(create))
    app.router.add_get(ROOT, guarded(index))
    app.router.add_get(f"{ROOT}/detail", guarded(detail))
    app.router.add_get(one, guarded(show))
    app.router.add_put(one, guarded(update))
    app.router.add_delete(one, guarded(delete))
    app.router.add_post(f"{one}/action", guarded(act))
    app.router.add_get(f"{one}/metadata", guarded(show_metadata))
    app.router.add_post(f"{one}/metadata", guarded(add_metadata))
    app.router.add_put(f"{one}/metadata", guarded(replace_metadata))
    app.router.add_get(f"{one}/metadata/{{key}}", guarded(show_item))
    app.router.add_put(f"{one}/metadata/{{key}}", guarded(set_item))
    app.router.add_delete(f"{one}/metadata/{{key}}", guarded(delete_item))
    app.router.add_get(f"{one}/tags", guarded(show_tags))
    app.router.add_put(f"{one}/tags", guarded(replace_tags))
    app.router.add_delete(f"{one}/tags", guarded(delete_tags))
    app.router.add_get(f"{one}/tags/{{tag}}", guarded(has_tag))
    app.router.add_put(f"{one}/tags/{{tag}}", guarded(add_tag))
    app.router.add_delete(f"{one}/tags/{{tag}}", guarded(delete_tag))
    app.router.add_get(f"{one}/os-instance-actions", guarded(history))
    app.router.add_get(f"{one}/os-interface", guarded(interfaces))


def _server(call: Call) -> Server:
    """The server of the path. Admins reach those of all projects."""
    project = None if call.caller.admin else call.caller.project
    return call.nova.get(call.part("id"), project)


async def create(call: Call) -> web.Response:
    """Between its checks and its servers a POST takes time, in which others are checked too."""
    document = await call.document()
    request = read_build(document, call.version)
    nova = call.nova
    admission = nova.admit(request, call.caller.project, admin=call.caller.admin)
    await asyncio.sleep(nova.world.draw(nova.spec.timings.post))
    server = nova.accept(admission)[0]
    asked = document["server"]
    if asked.get("return_reservation_id"):
        return answer({"reservation_id": server.reservation}, 202)
    links = call.site.views.links("servers", server.id)
    body = {
        "id": server.id,
        "links": links,
        "OS-DCF:diskConfig": "MANUAL",
        "security_groups": [{"name": name} for name in server.security_groups],
        "adminPass": asked.get("adminPass") or secrets.token_urlsafe(9),
    }
    return answer({"server": body}, 202, {"Location": links[0]["href"]})


async def index(call: Call) -> web.Response:
    page, more = _page(call)
    return _listing(call, [call.site.views.brief(s) for s in page], page if more else [], "")


async def detail(call: Call) -> web.Response:
    page, more = _page(call)
    views, admin = call.site.views, call.caller.admin
    bodies = [views.detail(server, call.version, admin=admin) for server in page]
    return _listing(call, bodies, page if more else [], "/detail")


def _page(call: Call) -> tuple[list[Server], bool]:
    query = read_query(
        call.query,
        call.caller.project.id,
        call.version,
        admin=call.caller.admin,
        pairs=call.request.query.getall("status", []),
    )
    return call.nova.select(query)


def _listing(call: Call, bodies: list[bytes], more_after: list[Server], below: str) -> web.Response:
    links = b""
    if more_after:
        rest = sorted((k, v) for k, v in call.query.items() if k != "marker")
        query = urlencode([*rest, ("marker", more_after[-1].id)])
        href = f"{call.site.base}{ROOT}{below}?{query}".encode()
        links = b',"servers_links":[{"rel":"next","href":"' + href + b'"}]'
    return raw(b'{"servers":[' + b",".join(bodies) + b"]" + links + b"}")


async def show(call: Call) -> web.Response:
    return _whole(call, _server(call))


def _whole(call: Call, server: Server, status: int = 200) -> web.Response:
    body = call.site.views.one(server, call.version, admin=call.caller.admin)
    return answer({"server": body}, status)


async def update(call: Call) -> web.Response:
    """Name and description. The host name stays what it was."""
    server, asked = _server(call), await call.below("server")
    for key in asked:
        if key not in {"name", "description"}:
            raise bad_request(f"Additional properties are not allowed ('{key}' was unexpected)")
    call.nova.world.note("update", server)
    if "name" in asked:
        server.name = read_name(asked["name"])
    if "description" in asked:
        server.description = asked["description"]
    call.nova.world.touch(server)
    return _whole(call, server)


async def delete(call: Call) -> web.Response:
    call.nova.delete(_server(call), admin=call.caller.admin)
    return empty(204)


async def act(call: Call) -> web.Response:
    """An action: 202, but evacuate, which is 200, and rebuild, which shows the server."""
    server, document = _server(call), await call.document()
    if len(document) != 1:
        raise bad_request("There must be exactly one action")
    key, arguments = next(iter(document.items()))
    if key == "os-getConsoleOutput":
        return await _console(call, server, arguments)
    call.nova.act(
        server,
        key,
        arguments if isinstance(arguments, dict) else {},
        admin=call.caller.admin,
        version=call.version,
    )
    if key == "rebuild":
        return _whole(call, server, 202)
    return empty(200 if key == "evacuate" else 202)


async def _console(call: Call, server: Server, arguments: object) -> web.Response:
    """Asked of the host itself: a dead one keeps the caller waiting."""
    host = call.nova.world.hosts.get(server.host or "")
    if host is not None and not host.alive:
        await asyncio.sleep(call.nova.spec.timings.rpc_timeout)
    lines = arguments.get("length") if isinstance(arguments, dict) else None
    return answer({"output": call.nova.console(server, lines if isinstance(lines, int) else 0)})


async def show_metadata(call: Call) -> web.Response:
    return answer({"metadata": _server(call).metadata})


async def add_metadata(call: Call) -> web.Response:
    server, items = _server(call), read_metadata(await call.below("metadata"))
    call.nova.add_metadata(server, items)
    return answer({"metadata": server.metadata})


async def replace_metadata(call: Call) -> web.Response:
    server, items = _server(call), read_metadata(await call.below("metadata"))
    call.nova.set_metadata(server, items)
    return answer({"metadata": server.metadata})


async def show_item(call: Call) -> web.Response:
    key = call.part("key")
    return answer({"meta": {key: _item(_server(call), key)}})


def _item(server: Server, key: str) -> str:
    if key not in server.metadata:
        raise Refused(404, "Metadata item was not found")
    return server.metadata[key]


async def set_item(call: Call) -> web.Response:
    server, items = _server(call), read_metadata(await call.below("meta"))
    if list(items) != [call.part("key")]:
        raise bad_request("Request body and URI mismatch")
    call.nova.add_metadata(server, items)
    return answer({"meta": items})


async def delete_item(call: Call) -> web.Response:
    server, key = _server(call), call.part("key")
    _item(server, key)
    call.nova.set_metadata(server, {k: v for k, v in server.metadata.items() if k != key})
    return empty(204)


async def show_tags(call: Call) -> web.Response:
    return answer({"tags": _server(call).tags})


async def replace_tags(call: Call) -> web.Response:
    server, document = _server(call), await call.document()
    call.nova.set_tags(server, read_tags(document.get("tags")))
    return answer({"tags": server.tags})


async def delete_tags(call: Call) -> web.Response:
    call.nova.set_tags(_server(call), ())
    return empty(204)


async def has_tag(call: Call) -> web.Response:
    server, tag = _server(call), call.part("tag")
    if tag not in server.tags:
        raise Refused(404, f"Server {server.id} has no tag '{tag}'")
    return empty(204)


async def add_tag(call: Call) -> web.Response:
    server, tag = _server(call), call.part("tag")
    check_tag("tag", tag)
    if tag in server.tags:
        return empty(204)
    if len(server.tags) >= MAX_TAGS:
        raise bad_request(f"The number of tags exceeded the per-server limit {MAX_TAGS}")
    call.nova.set_tags(server, (*server.tags, tag))
    return empty(201)


async def delete_tag(call: Call) -> web.Response:
    server, tag = _server(call), call.part("tag")
    if tag not in server.tags:
        raise Refused(404, f"Instance {server.id} has no tag '{tag}'")
    call.nova.set_tags(server, set(server.tags) - {tag})
    return empty(204)


async def history(call: Call) -> web.Response:
    server = _server(call)
    deeds = [_deed(call, server, deed) for deed in reversed(server.actions)]
    return answer({"instanceActions": deeds})


def _deed(call: Call, server: Server, deed: Deed) -> dict[str, object]:
    return {
        "action": deed.action,
        "instance_uuid": server.id,
        "request_id": deed.request_id,
        "user_id": call.caller.user,
        "project_id": server.project,
        "start_time": micro(deed.started),
        "message": deed.message,
        "updated_at": micro(deed.updated),
    }


async def interfaces(call: Call) -> web.Response:
    server = _server(call)
    return answer(
        {
            "interfaceAttachments": [
                {
                    "net_id": network,
                    "port_id": network,
                    "port_state": "ACTIVE",
                    "fixed_ips": [{"ip_address": address}],
                }
                for network, address in server.addresses.items()
            ]
        }
    )
