"""What the simulated services share over HTTP: who calls, in which version, and how to answer."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from aiohttp import web

from warmpool.sim.credentials import Credential, Credentials
from warmpool.sim.errors import Refused, bad_request, policy
from warmpool.sim.nova import LATEST, Nova
from warmpool.sim.views import Version, Views
from warmpool.sim.world import Project

OLDEST: Final[Version] = (2, 1)
UNAUTHORIZED: Final = {
    "error": {
        "code": 401,
        "title": "Unauthorized",
        "message": "The request you have made requires authentication.",
    }
}
NOT_FOUND_PAGE: Final = (
    "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n"
    "  {0}<br /><br />\n\n\n\n </body>\n</html>"
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a token stands for."""

    user: str
    project: Project
    admin: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A token that Keystone has given out."""

    caller: Caller
    body: Mapping[str, object]
    expires: float
    credential: Credential | None = None
    """The application credential that it was had with. None: a password."""


@dataclass(slots=True)
class Site:
    """One simulated cloud on the wire."""

    nova: Nova
    base: str
    """URL of the root of the server, without a slash at its end."""
    views: Views
    guest_port: int | None
    """Port that guests answer on. None: they do not."""
    push: Callable[[float], None]
    """Pushes the clock ahead."""
    started: datetime
    tokens: dict[str, Token] = field(default_factory=dict)
    credentials: Credentials = field(default_factory=Credentials)
    refused: int = 0
    """Calls whose token was not good."""

    def caller(self, token: str) -> Caller | None:
        """Who calls. None: nobody that is known, or not any more."""
        known = self.tokens.get(token)
        if known is None or self.nova.faults.away("credentials"):
            return None
        revoked = known.credential is not None and not self.credentials.has(known.credential.id)
        if revoked or known.expires <= self.nova.world.time.at:
            del self.tokens[token]
            return None
        return known.caller


@dataclass(frozen=True, slots=True)
class Call:
    """One call of somebody who is known."""

    site: Site
    request: web.Request
    caller: Caller
    version: Version

    @property
    def nova(self) -> Nova:
        return self.site.nova

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    def part(self, name: str) -> str:
        """A part of the path."""
        return self.request.match_info[name]

    async def document(self) -> dict[str, Any]:
        """The body, which must be a JSON object.

        Raises:
            Refused: 400.
        """
        try:
            document = json.loads(await self.request.read())
        except ValueError:
            raise bad_request("Malformed request body") from None
        if not isinstance(document, dict):
            raise bad_request("Malformed request body")
        return document

    async def below(self, key: str) -> dict[str, Any]:
        """The object below a key of the body.

        Raises:
            Refused: 400.
        """
        value = (await self.document()).get(key)
        if not isinstance(value, dict):
            raise bad_request(f"'{key}' is a required property")
        return value

    def admin_only(self, rule: str) -> None:
        """Refuse members.

        Raises:
            Refused: 403.
        """
        if not self.caller.admin:
            raise policy(rule)


Handler = Callable[[Call], Awaitable[web.Response]]

SITE: Final = web.AppKey("site", Site)


def answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer."""
    return raw(orjson.dumps(body), status, headers)


def raw(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer that is JSON already."""
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def empty(status: int = 202) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status, content_type="application/json")


def page_not_found(text: str = "The resource could not be found.") -> web.Response:
    """A 404 as the frameworks below Nova and Glance write it."""
    return web.Response(text=NOT_FOUND_PAGE.format(text), status=404, content_type="text/html")


def guarded(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Let a handler be called with a token that is good, and answer its refusals."""

    async def handle(request: web.Request) -> web.Response:
        site = request.app[SITE]
        site.nova.settle()
        caller = site.caller(request.headers.get("X-Auth-Token", ""))
        if caller is None:
            site.refused += 1
            uri = f'Keystone uri="{site.base}/identity/v3"'
            return answer(UNAUTHORIZED, 401, {"WWW-Authenticate": uri})
        headers: dict[str, str] = {}
        try:
            version = negotiate(request)
            if request.path.startswith("/compute/"):
                headers = version_headers(version)
            response = await handler(Call(site, request, caller, version))
        except Refused as refused:
            response = refuse(refused)
        response.headers.update(headers)
        return response

    return handle


def refuse(refused: Refused) -> web.Response:
    """The answer for a refusal."""
    after = refused.retry_after
    headers = {} if after is None else {"Retry-After": str(after)}
    return answer(refused.body(), refused.code, headers)


def negotiate(request: web.Request) -> Version:
    """The microversion that is asked for.

    Raises:
        Refused: 400 for garbage, 406 for one that there is not.
    """
    asked = request.headers.get("OpenStack-API-Version", "").removeprefix("compute ").strip()
    asked = asked or request.headers.get("X-OpenStack-Nova-API-Version", "").strip()
    if not asked or asked.startswith(("placement", "volume")):
        return OLDEST
    if asked == "latest":
        return LATEST
    major, _, minor = asked.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise bad_request(
            f"API Version String {asked} is of invalid format. Must be of format MajorNum.MinorNum."
        )
    version = (int(major), int(minor))
    if not OLDEST <= version <= LATEST:
        raise Refused(
            406,
            f"Version {asked} is not supported by the API. Minimum is {write(OLDEST)} and"
            f" maximum is {write(LATEST)}.",
        )
    return version


def write(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def version_headers(version: Version) -> dict[str, str]:
    return {
        "OpenStack-API-Version": f"compute {write(version)}",
        "X-OpenStack-Nova-API-Version": write(version),
        "Vary": "OpenStack-API-Version, X-OpenStack-Nova-API-Version",
    }
