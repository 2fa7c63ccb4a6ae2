"""A session looks at which hosts are dead, and its listings do not wait for that."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from builders import NOW, a_server
from warmpool.domain.cloud import Listing
from warmpool.domain.errors import CloudError, CloudUnavailable, CredentialsRefused
from warmpool.domain.ids import Ref
from warmpool.domain.racks import Host, Hosts
from warmpool.effects.racks.opening import open_racks
from warmpool.reconcile.session import HOSTS_EVERY, CloudSession
from warmpool.sim.clock import LoopClock

pytestmark = pytest.mark.looptime


class Cloud:
    """Lists at once; how it tells of dead hosts, a test chooses."""

    region = "RegionOne"

    def __init__(self) -> None:
        self.listed = 0
        self.looked = 0
        self.takes = 0.0
        self.error: CloudError | None = None

    async def list(self, _since: object) -> Listing:
        self.listed += 1
        return Listing((), complete=True, taken_at=NOW)

    async def hosts(self) -> Hosts:
        return Hosts((Host("h1"),))

    async def down_hosts(self) -> frozenset[str]:
        self.looked += 1
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return frozenset({"h1"})


@asynccontextmanager
async def running(cloud: Any) -> AsyncIterator[CloudSession]:
    """A session that has something under way."""
    session = CloudSession(
        cloud,
        LoopClock(),
        random.Random(1),  # noqa: S311 - jitter
        open_racks=open_racks,
        wake_vms=lambda _: None,
        wake_pool=lambda _: None,
        nudge=lambda _: None,
    )
    session.use(Ref("search", "data"), busy=True)
    loops = session.racks.run, session.run
    tasks = [asyncio.ensure_future(loop(lambda: None)) for loop in loops]
    try:
        yield session
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_listings_do_not_wait_for_the_states_of_hosts() -> None:
    """Each waited up to 90 s for an inventory that hung: a pool was hardly filled any more."""
    cloud = Cloud()
    cloud.takes = 90.0
    async with running(cloud) as session:
        await asyncio.sleep(60)
        assert cloud.listed >= 15
        assert cloud.looked == 1
        assert not session.is_dead(a_server(host="h1"))
        await asyncio.sleep(40)
        assert session.is_dead(a_server(host="h1"))


@pytest.mark.parametrize("error", [CredentialsRefused("401"), CloudUnavailable("503")])
async def test_who_refuses_to_tell_of_hosts_is_not_asked_with_each_listing(
    error: CloudError,
) -> None:
    cloud = Cloud()
    cloud.error = error
    async with running(cloud):
        await asyncio.sleep(10 * HOSTS_EVERY)
        assert cloud.listed >= 40
        assert 5 <= cloud.looked <= 11
