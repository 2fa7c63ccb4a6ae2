"""Who is answered, where others than this machine can ask: whom Kubernetes knows and lets.

A token comes with each request, as `Authorization: Bearer`, or as the password of HTTP's basic
login, which is how a browser can be given one. TokenReview says whose it is, SubjectAccessReviews
whether they may. An answer holds for a minute, so a page that is open costs the API server little.
"""

import asyncio
import base64
import hashlib
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from warmpool.api.names import GROUP
from warmpool.domain.errors import ClusterError
from warmpool.ports.clock import Clock
from warmpool.ports.reviews import Reviews

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Right = Mapping[str, Mapping[str, str]]
"""What one must be allowed, as a SubjectAccessReview asks."""

SEES_ALL: Final[Sequence[Right]] = tuple(
    {"resourceAttributes": {"group": GROUP, "resource": resource, "verb": "list"}}
    for resource in ("warmpools", "vmclaims", "warmvms")
)
"""May list all that the page shows, in every namespace."""

SCRAPES: Final[Sequence[Right]] = ({"nonResourceAttributes": {"path": "/metrics", "verb": "get"}},)
"""May read metrics: the right that Prometheus has for other programs, too."""

KEPT: Final = 60.0
"""Seconds that an answer holds."""

REMEMBERED: Final = 1000
"""Answers, at most: beyond that, the oldest are asked for anew."""

AT_ONCE: Final = 4
"""Reviews under way at a time: strangers shall not keep the API server busy through us."""

LONGEST: Final = 16_384
"""Characters of a token."""

ASK: Final = {"WWW-Authenticate": 'Basic realm="a token as the password", charset="UTF-8"'}


class Verdict(Enum):
    """What becomes of a request."""

    MAY = HTTPStatus.OK
    UNKNOWN = HTTPStatus.UNAUTHORIZED
    MAY_NOT = HTTPStatus.FORBIDDEN


class Guard:
    """Lets those in who have all of some rights."""

    def __init__(self, reviews: Reviews, clock: Clock, rights: Sequence[Right]) -> None:
        self._reviews = reviews
        self._clock = clock
        self._rights = rights
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._known: dict[bytes, tuple[float, Verdict]] = {}

    async def judge(self, token: str) -> Verdict:
        """Whether whoever has this token is let in.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        if not token or len(token) > LONGEST:
            return Verdict.UNKNOWN
        key = hashlib.sha256(token.encode()).digest()
        until, verdict = self._known.get(key, (float("-inf"), Verdict.UNKNOWN))
        if self._clock.monotonic() < until:
            return verdict
        async with self._slots:
            verdict = await self._ask(token)
        self._known.pop(key, None)
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = self._clock.monotonic() + KEPT, verdict
        return verdict

    async def _ask(self, token: str) -> Verdict:
        told = await self._reviews.review("authentication.k8s.io", "TokenReview", {"token": token})
        if not told.get("authenticated"):
            return Verdict.UNKNOWN
        user = told.get("user", {})
        who = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups", []),
            "extra": user.get("extra", {}),
        }
        for right in self._rights:
            spec: Mapping[str, Any] = {**who, **right}
            told = await self._reviews.review("authorization.k8s.io", "SubjectAccessReview", spec)
            if not told.get("allowed"):
                log.info("%s is not let in: may not %s", who["user"], dict(right))
                return Verdict.MAY_NOT
        return Verdict.MAY

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers in the handler's stead whom it does not let in."""
        try:
            verdict = await self.judge(token_of(request.headers.get("Authorization", "")))
        except ClusterError as error:
            log.warning("nobody is let in: %s", error)
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the API server cannot be asked")
        match verdict:
            case Verdict.MAY:
                return await handler(request)
            case Verdict.UNKNOWN:
                return _refusal(verdict.value, "a token of the cluster is needed", ASK)
            case Verdict.MAY_NOT:
                return _refusal(verdict.value, "you may not see this")


def token_of(authorization: str) -> str:
    """The token of an Authorization header; empty: it has none."""
    scheme, _, said = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return said.strip()
        case "basic":
            try:
                login = base64.b64decode(said.strip(), validate=True).decode()
            except ValueError:
                return ""
            return login.partition(":")[2]
        case _:
            return ""


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _refusal(
    status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(status=status, text=text, headers={**(headers or {})})
