"""The control API below `/_sim`, for tests and people. It is itself beyond all faults.

GET    /_sim/state         all truth: see `control.state`
GET    /_sim/journal       what was asked for servers and what became of them: see `journal`
POST   /_sim/do            one command of `control`: {"do": "host", "host": "h1", "change": "kill"}
GET    /_sim/faults        the faults that are on
POST   /_sim/faults        switch one of `faults` on: {"kind": "api", "effect": "status",
"status": 503, "path": "/servers", "count": 3}. Answers {"id": 1}
DELETE /_sim/faults/{id}   switch one off
DELETE /_sim/faults        switch all off
POST   /_sim/advance       push the clock ahead: {"seconds": 60}
POST   /_sim/tokens/revoke make all tokens worthless; new ones can be had
POST   /_sim/preload       servers that are ACTIVE at once: {"count": 1000, "name": "old",
"flavor": "m1.micro", "tags": ["a"]}
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from pydantic import Field, ValidationError

from warmpool.sim.builds import BuildRequest
from warmpool.sim.control import execute, faults, journal, parse_command, state
from warmpool.sim.errors import Refused
from warmpool.sim.faults import parse_fault
from warmpool.sim.nova import Nova
from warmpool.sim.spec import Spec
from warmpool.sim.wire import SITE, Site, answer, refuse


class Preload(Spec):
    """Servers that shall be there at once."""

    count: int = Field(ge=1, le=100_000)
    name: str = "preload"
    flavor: str = ""
    """Empty: the first of the spec."""
    image: str = ""
    """Empty: the first of the spec."""
    tags: tuple[str, ...] = ()
    """`{n}` in them is the number of the server, from 0."""
    network: bool = False
    """Whether each has an address."""


class Advance(Spec):
    """Time that shall pass."""

    seconds: float = Field(ge=0)


def preload(nova: Nova, asked: Preload) -> int:
    """Make the servers. Returns how many there are now.

    Raises:
        ValueError: no such flavor or image.
    """
    world = nova.world
    flavors = [i for i, f in world.flavors.items() if asked.flavor in {"", f.name, i}]
    images = [i for i, image in world.images.items() if asked.image in {"", image.name, i}]
    if not flavors or not images:
        raise ValueError(f"there is no flavor {asked.flavor!r} or no image {asked.image!r}")
    networks = tuple(world.networks)[:1] if asked.network else ()
    request = BuildRequest(asked.name, flavors[0], images[0], networks=networks, tags=asked.tags)
    made = nova.preload(asked.count, request)
    if any("{n}" in tag for tag in asked.tags):
        for n, server in enumerate(made):
            nova.set_tags(server, (tag.replace("{n}", str(n)) for tag in asked.tags))
    return len(world.servers)


def add_routes(app: web.Application) -> None:
    """Serve below /_sim."""
    router = app.router
    router.add_get("/_sim/state", _open(_state))
    router.add_get("/_sim/journal", _open(_journal))
    router.add_post("/_sim/do", _open(_do))
    router.add_get("/_sim/faults", _open(_faults))
    router.add_post("/_sim/faults", _open(_arm))
    router.add_delete("/_sim/faults", _open(_clear))
    router.add_delete("/_sim/faults/{id}", _open(_disarm))
    router.add_post("/_sim/advance", _open(_advance))
    router.add_post("/_sim/tokens/revoke", _open(_revoke))
    router.add_post("/_sim/preload", _open(_preload))


Work = Callable[[Site, web.Request], Awaitable[Any]]


def _open(work: Work) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler for everybody, whose mistakes are told in full."""

    async def handle(request: web.Request) -> web.Response:
        site = request.app[SITE]
        site.nova.settle()
        try:
            return answer(await work(site, request))
        except Refused as refused:
            return refuse(refused)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False, include_input=False)
            return answer({"error": wrong}, 400)
        except ValueError as error:
            return answer({"error": str(error)}, 400)

    return handle


async def _body(request: web.Request) -> Any:
    return orjson.loads(await request.read() or b"{}")


async def _state(site: Site, _: web.Request) -> Any:
    return {**state(site.nova), "guest_port": site.guest_port}


async def _journal(site: Site, _: web.Request) -> Any:
    return journal(site.nova)


async def _do(site: Site, request: web.Request) -> Any:
    execute(site.nova, parse_command(await _body(request)))
    return {}


async def _faults(site: Site, _: web.Request) -> Any:
    return faults(site.nova)


async def _arm(site: Site, request: web.Request) -> Any:
    return {"id": site.nova.arm(parse_fault(await _body(request)))}


async def _clear(site: Site, _: web.Request) -> Any:
    site.nova.faults.clear()
    return {}


async def _disarm(site: Site, request: web.Request) -> Any:
    number = request.match_info["id"]
    if not (number.isdecimal() and site.nova.faults.remove(int(number))):
        raise Refused(404, f"there is no fault {number}")
    return {}


async def _advance(site: Site, request: web.Request) -> Any:
    site.push(Advance.model_validate(await _body(request)).seconds)
    site.nova.settle()
    return {"now": site.nova.world.time.moment().isoformat()}


async def _revoke(site: Site, _: web.Request) -> Any:
    site.tokens.clear()
    return {}


async def _preload(site: Site, request: web.Request) -> Any:
    return {"servers": preload(site.nova, Preload.model_validate(await _body(request)))}
