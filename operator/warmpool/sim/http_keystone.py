"""Keystone v3: versions, tokens by password and by application credential, the catalogue."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from aiohttp import web

from warmpool.sim.errors import Refused
from warmpool.sim.views import micro
from warmpool.sim.wire import SITE, Caller, Site, Token, answer
from warmpool.sim.world import named_id

PASSWORD: Final = "sim"  # noqa: S105 - everybody may know it: the server is bound to loopback
USERS: Final = {"admin": True, "member": False}
"""Users and whether they have the admin role."""

SERVICES: Final = {
    "identity": ("keystone", "/identity/v3"),
    "compute": ("nova", "/compute/v2.1"),
    "image": ("glance", "/image"),
    "network": ("neutron", "/network"),
    "placement": ("placement", "/placement"),
}


def credential_id(user: str) -> str:
    """Id of the application credential of a user. Its secret is the password."""
    return named_id("credential", user).replace("-", "")


def add_routes(app: web.Application) -> None:
    """Serve below /identity."""
    for path in ("/identity", "/identity/"):
        app.router.add_get(path, _versions)
    for path in ("/identity/v3", "/identity/v3/"):
        app.router.add_get(path, _version)
    app.router.add_post("/identity/v3/auth/tokens", _login)
    app.router.add_get("/identity/v3/auth/tokens", _validate)
    app.router.add_delete("/identity/v3/auth/tokens", _revoke)


def _document(site: Site) -> dict[str, object]:
    media = {"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{site.base}/identity/v3/"}],
        "media-types": [media],
    }


async def _versions(request: web.Request) -> web.Response:
    return answer({"versions": {"values": [_document(request.app[SITE])]}}, 300)


async def _version(request: web.Request) -> web.Response:
    return answer({"version": _document(request.app[SITE])})


async def _login(request: web.Request) -> web.Response:
    site = request.app[SITE]
    site.nova.settle()
    try:
        document = json.loads(await request.read())
        user, method, scope = _identify(document["auth"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "Bad Request", "Expecting to find valid credentials in the body.")
    except Refused as refused:
        return _unauthorized(site, refused.message)
    if site.nova.faults.away("credentials") or scope not in {None, site.nova.project().name}:
        return _unauthorized(site, "The request you have made requires authentication.")
    ident, token = _issue(site, user, method)
    return answer({"token": token.body}, 201, {"X-Subject-Token": ident, "Vary": "X-Auth-Token"})


def _identify(auth: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """User, method, and the name of the project that is asked for.

    Raises:
        Refused: 401.
    """
    identity = auth["identity"]
    method = identity["methods"][0]
    if method == "password":
        given = identity["password"]["user"]
        user, secret = given["name"], given["password"]
    elif method == "application_credential":
        given = identity["application_credential"]
        users = {credential_id(name): name for name in USERS}
        user, secret = users.get(given.get("id")), given["secret"]
    else:
        user, secret = None, None
    if user not in USERS or secret != PASSWORD:
        raise Refused(401, "The request you have made requires authentication.")
    project = auth.get("scope", {}).get("project", {})
    return user, method, project.get("name")


def _issue(site: Site, user: str, method: str) -> tuple[str, Token]:
    world, project = site.nova.world, site.nova.project()
    lifetime, now = site.nova.spec.timings.token, world.time.moment()
    admin = USERS[user]
    roles = ("admin", "member", "reader") if admin else ("member", "reader")
    domain = {"id": "default", "name": "Default"}
    body: dict[str, object] = {
        "methods": [method],
        "user": {
            "domain": domain,
            "id": named_id("user", user).replace("-", ""),
            "name": user,
            "password_expires_at": None,
        },
        "audit_ids": [world.new_id()[:22]],
        "expires_at": f"{micro(now + timedelta(seconds=lifetime))}Z",
        "issued_at": f"{micro(now)}Z",
        "project": {"domain": domain, "id": project.id, "name": project.name},
        "is_domain": False,
        "roles": [{"id": named_id("role", r).replace("-", ""), "name": r} for r in roles],
        "catalog": _catalog(site),
    }
    ident = f"sim-{world.new_id()}"
    token = Token(Caller(user, project, admin), body, world.time.at + lifetime)
    site.tokens[ident] = token
    return ident, token


def _catalog(site: Site) -> list[dict[str, object]]:
    region = site.nova.spec.region
    return [
        {
            "id": named_id("service", kind).replace("-", ""),
            "type": kind,
            "name": name,
            "endpoints": [
                {
                    "id": named_id("endpoint", f"{kind}/{interface}").replace("-", ""),
                    "interface": interface,
                    "region_id": region,
                    "region": region,
                    "url": f"{site.base}{path}",
                }
                for interface in ("public", "internal", "admin")
            ],
        }
        for kind, (name, path) in SERVICES.items()
    ]


async def _validate(request: web.Request) -> web.Response:
    """A token may be asked about by whoever has one."""
    site = request.app[SITE]
    site.nova.settle()
    subject = request.headers.get("X-Subject-Token", "")
    if site.caller(request.headers.get("X-Auth-Token", "")) is None:
        return _unauthorized(site, "The request you have made requires authentication.")
    if site.caller(subject) is None:
        return _error(404, "Not Found", "Could not recognize Fernet token")
    return answer({"token": site.tokens[subject].body}, headers={"X-Subject-Token": subject})


async def _revoke(request: web.Request) -> web.Response:
    site = request.app[SITE]
    if site.caller(request.headers.get("X-Auth-Token", "")) is None:
        return _unauthorized(site, "The request you have made requires authentication.")
    site.tokens.pop(request.headers.get("X-Subject-Token", ""), None)
    return web.Response(status=204)


def _unauthorized(site: Site, message: str) -> web.Response:
    response = _error(401, "Unauthorized", message)
    response.headers["WWW-Authenticate"] = f'Keystone uri="{site.base}/identity/v3"'
    return response


def _error(code: int, title: str, message: str) -> web.Response:
    return answer({"error": {"code": code, "message": message, "title": title}}, code)
