"""`/livez` and `/readyz` as the kubelet asks them."""

from collections.abc import AsyncIterator
from operator import call

import aiohttp
import pytest
from aiohttp import web

from builders import NOW
from warmpool.handlers import probes
from warmpool.handlers.hosting import Streams, unwatched
from warmpool.reconcile.vitals import STUCK_AFTER, Vitals
from warmpool.sim.clock import ManualClock


class Probed:
    """Vitals, and what is answered about them."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.vitals = Vitals(self.clock)
        self.url = ""

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.request("GET", self.url + path) as response:
            return response.status, await response.text()


@pytest.fixture
async def probed() -> AsyncIterator[Probed]:
    it = Probed()
    async with probes.serving(it.vitals, "127.0.0.1", 0) as it.url:
        yield it


async def test_loops_that_turn_are_live(probed: Probed) -> None:
    with probed.vitals.pulse("binder"), probed.vitals.pulse("elector"):
        status, text = await probed.get("/livez")
    assert status == 200
    assert text.splitlines()[0] == "ok"
    assert "binder: turned 0.0 s ago" in text
    assert "elector: turned" in text


async def test_a_loop_that_hangs_is_named_first(probed: Probed) -> None:
    with probed.vitals.pulse("elector"), probed.vitals.pulse("binder") as beat:
        probed.clock.advance(STUCK_AFTER + 1)
        beat()
        status, text = await probed.get("/livez")
    assert status == 503
    assert text.splitlines()[0] == "elector hangs: turned 181.0 s ago, 180 s are allowed"
    assert "binder: turned 0.0 s ago" in text


async def test_who_lacks_something_is_not_ready_and_says_what(probed: Probed) -> None:
    probed.vitals.need("the objects have not been read yet")
    assert await probed.get("/readyz") == (503, "not ready: the objects have not been read yet\n")
    probed.vitals.has("the objects have not been read yet")
    assert await probed.get("/readyz") == (200, "ok\n")


async def test_nothing_else_is_served(probed: Probed) -> None:
    assert (await probed.get("/metrics"))[0] == 404


async def test_a_port_that_is_taken_is_told(probed: Probed) -> None:
    port = int(probed.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        async with probes.serving(probed.vitals, "127.0.0.1", port):
            pass


# -- the watch streams ------------------------------------------------------------------------


@pytest.fixture
async def api_server() -> AsyncIterator[str]:
    """Lists and watches are answered with nothing, those of VMs refused."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=403 if request.path.endswith("warmvms") else 200)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/apis/warmpool.dev/v1alpha1"
    await runner.cleanup()


async def test_a_stream_is_ready_when_it_is_watched_and_alive_while_it_is_tried(
    api_server: str,
) -> None:
    clock = ManualClock(NOW)
    vitals = Vitals(clock)
    for resource in ("warmpools", "warmvms"):
        vitals.need(unwatched(resource))
    streams = Streams(vitals, call, lambda: None)
    async with aiohttp.ClientSession(trace_configs=[streams.trace()]) as session:
        with streams.taken(["warmpools", "warmvms"]):
            clock.advance(3600)
            await session.get(f"{api_server}/warmpools?limit=500")
            assert len(vitals.lacks()) == 2
            for resource in ("warmpools", "warmvms"):
                await session.get(f"{api_server}/{resource}?watch=true")
                await session.get(f"{api_server}/others?watch=true")
            assert vitals.lacks() == ["warmvms are not watched yet"]
            assert [(turn.name, turn.ago) for turn in vitals.turns()] == [
                ("watch of warmpools", 0.0),
                ("watch of warmvms", 0.0),
            ]
        assert vitals.turns() == []


async def test_a_list_is_told_of_even_if_it_is_empty(api_server: str) -> None:
    """Of one that shows no object kopf tells nothing, and all that we hold has vanished then."""
    told: list[str] = []
    streams = Streams(Vitals(ManualClock(NOW)), call, lambda: told.append("relisted"))
    async with aiohttp.ClientSession(trace_configs=[streams.trace()]) as session:
        with streams.taken(["warmpools", "warmvms"]):
            await session.get(f"{api_server}/warmpools?watch=true")
            await session.get(f"{api_server}/others?limit=500")
            await session.get(f"{api_server}/warmvms?limit=500")
            assert not told, "watched, not ours, and refused"
            await session.get(f"{api_server}/warmpools?limit=500")
            assert told == ["relisted"]
