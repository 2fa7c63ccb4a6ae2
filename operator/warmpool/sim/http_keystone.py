"""Keystone v3: versions, tokens by password and by application credential, the catalogue."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from warmpool.sim.credentials import UNAUTHORIZED, Credential
from warmpool.sim.errors import Refused
from warmpool.sim.views import micro
from warmpool.sim.wire import SITE, Caller, Site, Token, answer
from warmpool.sim.world import named_id

PASSWORD: Final = "sim"  # noqa: S105 - everybody may know it: the server is bound to loopback
ROLES: Final = {"admin": ("admin", "member", "reader"), "member": ("member", "reader")}
"""Users and their roles in the project."""

SERVICES: Final = {
    "identity": ("keystone", "/identity/v3"),
    "compute": ("nova", "/compute/v2.1"),
    "image": ("glance", "/image"),
    "network": ("neutron", "/network"),
    "placement": ("placement", "/placement"),
}


UNASSIGNED: Final = (
    "Invalid application credential: Cannot create an application credential with unassigned role"
)
TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
}


def credential_id(user: str) -> str:
    """Id of the application credential that a user has from the start, named as the user is.

    Its secret is the password.
    """
    return _id("credential", user)


def _id(kind: str, name: str) -> str:
    return named_id(kind, name).replace("-", "")


def stock(site: Site) -> None:
    """Give each user one application credential."""
    for user, roles in ROLES.items():
        site.credentials.add(Credential(credential_id(user), user, user, PASSWORD, roles))


def add_routes(app: web.Application) -> None:
    """Serve below /identity."""
    for path in ("/identity", "/identity/"):
        app.router.add_get(path, _versions)
    for path in ("/identity/v3", "/identity/v3/"):
        app.router.add_get(path, _version)
    app.router.add_post("/identity/v3/auth/tokens", _login)
    app.router.add_get("/identity/v3/auth/tokens", _validate)
    app.router.add_delete("/identity/v3/auth/tokens", _revoke)
    own = "/identity/v3/users/{user}/application_credentials"
    app.router.add_get(own, _owned(_list_credentials))
    app.router.add_post(own, _owned(_create_credential))
    app.router.add_get(f"{own}/{{id}}", _owned(_show_credential))
    app.router.add_delete(f"{own}/{{id}}", _owned(_delete_credential))


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


@dataclass(frozen=True, slots=True)
class _Login:
    """Who logs in, and how."""

    user: str
    method: str
    roles: tuple[str, ...]
    credential: Credential | None = None


async def _login(request: web.Request) -> web.Response:
    site = request.app[SITE]
    site.nova.settle()
    try:
        document = json.loads(await request.read())
        if site.nova.faults.away("credentials"):
            return _unauthorized(site)
        login = _identify(site, document["auth"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "Expecting to find valid credentials in the body.")
    except Refused as refused:
        return _refused(site, refused)
    ident, token = _issue(site, login)
    return answer({"token": token.body}, 201, {"X-Subject-Token": ident, "Vary": "X-Auth-Token"})


def _identify(site: Site, auth: Mapping[str, Any]) -> _Login:
    """Who it is.

    Raises:
        Refused: nobody, or not for this project.
    """
    identity, scope = auth["identity"], auth.get("scope")
    method = identity["methods"][0]
    if method == "application_credential":
        if scope is not None:
            raise Refused(
                401,
                "Error authenticating with application credential: Application credentials cannot"
                " request a scope.",
            )
        given = identity[method]
        now = site.nova.world.time.moment()
        found = site.credentials.identify(given, _user_of(given.get("user", {})), now)
        return _Login(found.user, method, found.roles, found)
    given = identity["password"]["user"] if method == "password" else {}
    user = _user_of(given)
    wanted = (scope or {}).get("project", {}).get("name")
    if user is None or given["password"] != PASSWORD:
        raise Refused(401, UNAUTHORIZED)
    if wanted not in {None, site.nova.project().name}:
        raise Refused(401, UNAUTHORIZED)
    return _Login(user, method, ROLES[user])


def _user_of(given: Mapping[str, Any]) -> str | None:
    """A user by name or id."""
    ids = {_id("user", name): name for name in ROLES}
    user = given.get("name") or ids.get(given.get("id", ""))
    return user if user in ROLES else None


def _issue(site: Site, login: _Login) -> tuple[str, Token]:
    world, project, credential = site.nova.world, site.nova.project(), login.credential
    now = world.time.moment()
    lasts = timedelta(seconds=site.nova.spec.timings.token)
    if credential is not None and credential.expires is not None:
        lasts = min(lasts, credential.expires - now)
    domain = {"id": "default", "name": "Default"}
    body: dict[str, object] = {
        "methods": [login.method],
        "user": {
            "domain": domain,
            "id": _id("user", login.user),
            "name": login.user,
            "password_expires_at": None,
        },
        "audit_ids": [world.new_id()[:22]],
        "expires_at": f"{micro(now + lasts)}Z",
        "issued_at": f"{micro(now)}Z",
        "project": {"domain": domain, "id": project.id, "name": project.name},
        "is_domain": False,
        "roles": [{"id": _id("role", r), "name": r} for r in login.roles],
        "catalog": _catalog(site),
    }
    if credential is not None:
        body["application_credential"] = {
            "id": credential.id,
            "name": credential.name,
            "restricted": not credential.unrestricted,
        }
    ident = f"sim-{world.new_id()}"
    caller = Caller(login.user, project, "admin" in login.roles)
    token = Token(caller, body, world.time.at + lasts.total_seconds(), credential)
    site.tokens[ident] = token
    return ident, token


def _catalog(site: Site) -> list[dict[str, object]]:
    region = site.nova.spec.region
    return [
        {
            "id": _id("service", kind),
            "type": kind,
            "name": name,
            "endpoints": [
                {
                    "id": _id("endpoint", f"{kind}/{interface}"),
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
        return _unauthorized(site)
    if site.caller(subject) is None:
        return _error(404, "Could not recognize Fernet token")
    return answer({"token": site.tokens[subject].body}, headers={"X-Subject-Token": subject})


async def _revoke(request: web.Request) -> web.Response:
    site = request.app[SITE]
    if site.caller(request.headers.get("X-Auth-Token", "")) is None:
        return _unauthorized(site)
    site.tokens.pop(request.headers.get("X-Subject-Token", ""), None)
    return web.Response(status=204)


Work = Callable[[Site, str, web.Request], Awaitable[web.Response]]


def _owned(work: Work) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What only a user may do, about credentials of its own."""

    async def handle(request: web.Request) -> web.Response:
        site = request.app[SITE]
        site.nova.settle()
        caller = site.caller(request.headers.get("X-Auth-Token", ""))
        if caller is None:
            return _unauthorized(site)
        token = site.tokens[request.headers["X-Auth-Token"]]
        restricted = token.credential is not None and not token.credential.unrestricted
        changes = request.method != "GET"
        if request.match_info["user"] != _id("user", caller.user) or (restricted and changes):
            return _error(403, "You are not authorized to perform the requested action.")
        try:
            return await work(site, caller.user, request)
        except Refused as refused:
            return _refused(site, refused)

    return handle


async def _list_credentials(site: Site, user: str, request: web.Request) -> web.Response:
    name = request.query.get("name")
    found = [one for one in site.credentials.of(user) if name in {None, one.name}]
    project = site.nova.project().id
    return answer({"application_credentials": [one.body(project) for one in found]})


async def _create_credential(site: Site, user: str, request: web.Request) -> web.Response:
    try:
        made = _read_credential(site, user, json.loads(await request.read()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "Invalid application credential")
    site.credentials.add(made)
    shown = made.body(site.nova.project().id) | {"secret": made.secret}
    return answer({"application_credential": shown}, 201)


def _read_credential(site: Site, user: str, document: Mapping[str, Any]) -> Credential:
    asked, ids = document["application_credential"], {_id("role", r): r for r in ROLES[user]}
    roles = [role.get("name") or ids[role["id"]] for role in asked.get("roles") or ()]
    if not set(roles) <= set(ROLES[user]):
        raise Refused(400, UNASSIGNED)
    new, until = site.nova.world.new_id().replace("-", ""), asked.get("expires_at")
    return Credential(
        id=new,
        name=str(asked["name"]),
        user=user,
        secret=str(asked.get("secret") or f"secret-{new}"),
        roles=tuple(roles) or ROLES[user],
        expires=datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None,
        unrestricted=bool(asked.get("unrestricted")),
    )


async def _show_credential(site: Site, _: str, request: web.Request) -> web.Response:
    found = site.credentials.get(request.match_info["id"])
    return answer({"application_credential": found.body(site.nova.project().id)})


async def _delete_credential(site: Site, _: str, request: web.Request) -> web.Response:
    site.credentials.delete(request.match_info["id"])
    return web.Response(status=204)


def _refused(site: Site, refused: Refused) -> web.Response:
    if refused.code == 401:  # noqa: PLR2004 - HTTP
        return _unauthorized(site, refused.message)
    return _error(refused.code, refused.message)


def _unauthorized(site: Site, message: str = UNAUTHORIZED) -> web.Response:
    response = _error(401, message)
    response.headers["WWW-Authenticate"] = f'Keystone uri="{site.base}/identity/v3"'
    return response


def _error(code: int, message: str) -> web.Response:
    return answer({"error": {"code": code, "message": message, "title": TITLES[code]}}, code)
