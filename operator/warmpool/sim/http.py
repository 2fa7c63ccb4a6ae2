"""The simulated cloud over HTTP, for clients that are not ours to change.

One server, bound to loopback, speaks for all services: /identity (Keystone), /compute (Nova),
/image (Glance), /network (a little Neutron), /placement, and /_sim (control, see `http_control`).
`clouds_yaml` is what an unmodified openstacksdk needs to use it.
"""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Final

import yaml
from aiohttp import web

from warmpool.sim import http_compute, http_control, http_keystone, http_others, http_servers
from warmpool.sim.clock import PushedClock
from warmpool.sim.errors import UNEXPECTED, Refused
from warmpool.sim.faults import ApiFault
from warmpool.sim.guests import Guests
from warmpool.sim.nova import Nova
from warmpool.sim.spec import WorldSpec
from warmpool.sim.views import Views
from warmpool.sim.wire import SITE, Site, page_not_found, refuse

CONTROL: Final = "/_sim/"
TICK: Final = 0.05
"""Seconds after which guests are looked at when nobody calls."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Running:
    """A cloud that is being served."""

    url: str
    site: Site
    ticking: asyncio.Task[None]
    """What keeps it going. It ends by itself only with an error, such as a guest's port taken."""

    @property
    def nova(self) -> Nova:
        return self.site.nova

    def clouds_yaml(self) -> str:
        """A clouds.yaml with the clouds `sim`, `sim-member` and `sim-app`."""
        return clouds_yaml(self.url, self.nova.spec)


def clouds_yaml(url: str, spec: WorldSpec) -> str:
    """A clouds.yaml for a cloud at this URL.

    `sim` has the admin role in its project, `sim-member` is a plain member of the same project,
    and `sim-app` the member by an application credential.
    """
    auth_url = f"{url}/identity/v3"
    common = {"region_name": spec.region, "identity_api_version": "3"}
    clouds: dict[str, object] = {
        cloud: {
            "auth": {
                "auth_url": auth_url,
                "username": user,
                "password": http_keystone.PASSWORD,
                "project_name": spec.project,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            **common,
        }
        for cloud, user in (("sim", "admin"), ("sim-member", "member"))
    }
    clouds["sim-app"] = {
        "auth_type": "v3applicationcredential",
        "auth": {
            "auth_url": auth_url,
            "application_credential_id": http_keystone.credential_id("member"),
            "application_credential_secret": http_keystone.PASSWORD,
        },
        **common,
    }
    return yaml.safe_dump({"clouds": clouds}, sort_keys=False)


@asynccontextmanager
async def running(spec: WorldSpec, *, port: int = 0, seed: int = 1) -> AsyncIterator[Running]:
    """Serve a cloud on loopback while the context lasts. Port 0: one that is free.

    Raises:
        OSError: a port is taken, the server's or that of the guests.
    """
    clock = PushedClock()
    nova = Nova(spec, clock=clock, seed=seed)
    guests = Guests(nova, spec.guests.port) if spec.guests.listen else None
    with socket.create_server(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        views, started = Views(nova.world, url), nova.world.time.moment()
        guest_port = guests.port if guests else None
        site = Site(nova, url, views, guest_port, clock.advance, started)
        http_keystone.stock(site)
        runner = web.AppRunner(application(site), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        ticking = asyncio.get_running_loop().create_task(_tick(nova, guests))
        try:
            yield Running(url, site, ticking)
        finally:
            await _stop(ticking)
            await runner.cleanup()
            if guests is not None:
                await guests.close()


async def _tick(nova: Nova, guests: Guests | None) -> None:
    """Let happen what is due though nobody calls, and let guests answer."""
    while True:
        nova.settle()
        if guests is not None:
            await guests.sync()
        await asyncio.sleep(TICK)


async def _stop(ticking: asyncio.Task[None]) -> None:
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking


def application(site: Site) -> web.Application:
    """The application for one site."""
    app = web.Application(middlewares=[_serve], client_max_size=4 * 1024 * 1024)
    app[SITE] = site
    for part in (http_keystone, http_servers, http_compute, http_others, http_control):
        part.add_routes(app)
    return app


@web.middleware
async def _serve(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the call, let faults strike, date the answer by the simulated clock."""
    site = request.app[SITE]
    site.nova.settle()
    if request.path.startswith(CONTROL):
        return await handler(request)
    traffic = site.nova.traffic
    route = request.match_info.route.resource
    traffic.calls[f"{request.method} {route.canonical if route else request.path}"] += 1
    response, lost = await _answer(site, request, handler)
    if lost:
        _hang_up(request)
        return response
    if isinstance(response, web.Response) and isinstance(response.body, bytes):
        traffic.bytes_sent += len(response.body)
    response.headers["Date"] = format_datetime(site.nova.world.time.moment(), usegmt=True)
    response.headers["x-openstack-request-id"] = f"req-{uuid.uuid4()}"
    return response


async def _answer(
    site: Site, request: web.Request, handler: Handler
) -> tuple[web.StreamResponse, bool]:
    """The answer, and whether it shall be lost."""
    for fault in site.nova.faults.api(request.method, request.path):
        match fault.effect:
            case "slow":
                await asyncio.sleep(site.nova.world.draw(fault.delay))
                site.nova.settle()
            case "status":
                return _injected(fault), False
            case "drop":
                return web.Response(), True
            case "lost":
                return await _handled(request, handler), True
    return await _handled(request, handler), False


def _injected(fault: ApiFault) -> web.Response:
    message = fault.message or UNEXPECTED.format("oslo_db.exception.DBConnectionError")
    return refuse(Refused(fault.status, message, retry_after=fault.retry_after))


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return page_not_found()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
