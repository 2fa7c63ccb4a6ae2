"""Connections to the API server: what must not wait for what."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from warmpool.api.names import LEASE_NAME, Kind
from warmpool.effects import kube
from warmpool.effects.kube import Credentials, KubeCluster


class StuckServer:
    """An API server that answers about Leases, and about nothing else."""

    def __init__(self) -> None:
        self.stuck = asyncio.Event()
        """Somebody waits for an answer."""
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        if "/leases" in request.path:
            return web.json_response({"metadata": {"name": LEASE_NAME}, "spec": {}})
        self.stuck.set()
        await self.over.wait()
        return web.Response(status=503)


@pytest.fixture
async def server() -> AsyncIterator[tuple[StuckServer, Credentials]]:
    stuck, app = StuckServer(), web.Application()
    app.router.add_route("*", "/{path:.*}", stuck.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield stuck, Credentials(configuration, "home")
    stuck.over.set()
    await runner.cleanup()


async def test_a_renewal_does_not_queue_behind_other_requests(
    server: tuple[StuckServer, Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all connections taken by a burst of claims, leaders once lost their Lease."""
    monkeypatch.setattr(kube, "CONNECTIONS", 1)
    stuck, credentials = server
    async with KubeCluster(credentials, "home") as cluster:
        listing = asyncio.ensure_future(cluster.list(Kind.WARM_VM))
        await stuck.stuck.wait()
        async with asyncio.timeout(10):
            await cluster.get_lease(LEASE_NAME)
        assert not listing.done()
        listing.cancel()
