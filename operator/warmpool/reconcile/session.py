"""What one cloud holds: the servers of this installation that one set of credentials sees.

A session lists them, completely now and then and what changed in between, quickly while something
is under way and rarely otherwise: see `rhythm`. A complete listing of a large or slow cloud takes
minutes; it goes on beside the others. Nothing is concluded from a failed listing.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.cloud import Listing, Server
from warmpool.domain.errors import CloudError, CredentialsRefused
from warmpool.domain.ids import Ref, ServerId, VmUid
from warmpool.domain.marks import FREE, Marks, claimed_by, owned_by
from warmpool.domain.pools import Problem
from warmpool.ports.clock import Clock
from warmpool.ports.cloud import Cloud
from warmpool.ports.racks import OpenRacks
from warmpool.reconcile.capacity import Capacity
from warmpool.reconcile.racks import Racks
from warmpool.reconcile.rhythm import POLL_IDLE, Rhythm
from warmpool.reconcile.sightings import Sightings
from warmpool.reconcile.vitals import Beat

log = logging.getLogger(__name__)

POLL_FAILED: Final = 2.0
"""Seconds after a first failed listing; doubled up to `POLL_FAILED_MAX`."""

POLL_FAILED_MAX: Final = 30.0

HOSTS_EVERY: Final = 15.0
"""Seconds between looks at which hosts are dead. Nova itself needs a minute to tell."""

SKEW_NOTED: Final = timedelta(seconds=5)
"""A cloud's clock that differs less from ours is taken to be right: its times are whole seconds."""

CLOUDS_YAML: Final = "clouds.yaml"

Wake = Callable[[Iterable[VmUid]], None]
"""Tell the pools that own these VMs that something about their servers changed."""

WakePool = Callable[[Ref], None]
"""Tell one pool, which may have no VM yet, that something changed."""


def problem_of(error: CloudError) -> Problem:
    """What a failed call says about the pools that use the cloud."""
    if isinstance(error, CredentialsRefused):
        remedy = f"correct the credentials in {CLOUDS_YAML} of the Secret; until then nothing is"
        text = f"{error}: {remedy} built or deleted, and ready VMs are handed out"
        return Problem(error.reason, text, "spec.cloudRef.secretName")
    return Problem(error.reason, str(error))


def skew(asked: datetime, told: datetime, answered: datetime) -> timedelta:
    """How far a cloud's clock is ahead of ours that told its time between these two of ours."""
    if told > answered + SKEW_NOTED:
        return told - answered
    return told - asked if told < asked - SKEW_NOTED else timedelta()


class CloudSession:
    """The servers of this installation that one set of credentials sees."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        cloud: Cloud,
        clock: Clock,
        rng: random.Random,
        *,
        open_racks: OpenRacks,
        wake_vms: Wake,
        wake_pool: WakePool,
        nudge: WakePool,
    ) -> None:
        self.cloud = cloud
        self.capacity = Capacity(cloud, clock, rng, nudge)
        self.racks = Racks(cloud, open_racks, clock, rng, self._wake_users)
        self.problem: Problem | None = None
        self.listed = False
        """Listed completely at least once."""
        self._clock = clock
        self._wake = wake_vms
        self._wake_pool = wake_pool
        self._rng = rng
        self._seen = Sightings()
        self._users: dict[Ref, bool] = {}
        self._kicked = asyncio.Event()
        self._since: Listing | None = None
        """The listing that the next one of changes follows. None: there was none yet."""
        self._whole: asyncio.Task[None] | None = None
        """The last complete listing but the first."""
        self._rhythm = Rhythm()
        self._skew = timedelta()
        self._dead: frozenset[str] = frozenset()
        self._looking: asyncio.Task[None] | None = None
        """The last look at which hosts are dead."""
        self._looked_at = float("-inf")
        self._failures = 0
        self._seen_from = float("-inf")

    # -- asked by pools -----------------------------------------------------------------------

    def server(self, owner: VmUid, known: ServerId | None = None) -> Server | None:
        """The server of a WarmVM: of several, the one that it knows to be its own."""
        return self._seen.server(owner, known)

    def strays(self) -> list[Server]:
        """Servers of ours beyond the one that each WarmVM has."""
        return self._seen.strays()

    def servers(self) -> Mapping[VmUid, Server]:
        return self._seen.servers()

    def seen_since(self, moment: float) -> bool:
        """Whether a listing that began after this (monotonic) moment has been taken in."""
        return self._seen_from > moment

    def posted(self, owner: VmUid, server: ServerId, name: str) -> None:
        """A server was just POSTed: it is there, although no listing shows it yet."""
        when = self._clock.monotonic(), self._clock.now() + self._skew
        self._seen.posted(owner, server, name, when)
        self.kick()

    def found(self, server: Server) -> None:
        """A server was seen outside a listing."""
        if server.owner is not None:
            self._seen.found(server.owner, server)
            self._wake([server.owner])

    async def adopt(self, server: Server, owner: VmUid) -> None:
        """Have another WarmVM own a server than the one that its tag names."""
        await self.cloud.set_metadata(server.id, owned_by(owner))
        self._seen.forget(server)
        self.found(replace(server, owner=owner, marks=replace(server.marks, owner=owner)))

    async def mark_free(self, server: Server) -> None:
        """Write on a server that it is nobody's any more."""
        await self.cloud.set_metadata(server.id, FREE)
        self._marked(server, replace(server.marks, pool=None, claim=None))

    async def mark_claim(self, server: Server, claim: ClaimRef, pool: Ref) -> None:
        """Write on a server whose it is, and which pool it is from."""
        await self.cloud.set_metadata(server.id, claimed_by(claim, pool))
        self._marked(server, replace(server.marks, pool=pool, claim=claim))

    def _marked(self, server: Server, marks: Marks) -> None:
        """What was written is seen at once, whenever a listing shows it."""
        held = self._seen.server(server.owner) if server.owner is not None else None
        if held is not None and held.owner is not None and held.id == server.id:
            self._seen.found(held.owner, replace(held, marks=marks))

    def gone(self, owner: VmUid) -> None:
        """Nova says 404 for the server of this owner."""
        self._seen.gone(owner)

    def forget(self, server: Server) -> None:
        """Nova has no such server any more, or not with our mark."""
        self._seen.forget(server)

    def accepted(self, owner: VmUid) -> ServerId | None:
        """The server that a POST in this term was answered with, whatever the listings say."""
        return self._seen.accepted(owner)

    def here(self, moment: datetime) -> datetime:
        """A time of the cloud's by our own clock: they may be minutes apart."""
        return moment - self._skew

    def is_dead(self, server: Server) -> bool:
        """Whether Nova holds a server's host for dead, as far as anybody here may know."""
        return self.racks.host_name(server) in self._dead

    def join(self, pool: Ref) -> None:
        """A pool is about to look. A new one is taken to have something under way."""
        if pool not in self._users:
            self.use(pool, busy=True)

    def use(self, pool: Ref, *, busy: bool) -> None:
        """A pool uses this session, and something of it is under way or not."""
        was = any(self._users.values())
        self._users[pool] = busy
        if busy and not was:
            self.kick()

    def leave(self, pool: Ref) -> bool:
        """A pool uses it no more; True if none does."""
        self._users.pop(pool, None)
        return not self._users

    def kick(self) -> None:
        """Poll at the busy pace from now on."""
        self._kicked.set()

    # -- polling ------------------------------------------------------------------------------

    async def run(self, beat: Beat) -> None:
        """Poll until cancelled."""
        await self.racks.first_look()
        async with asyncio.TaskGroup() as tasks:
            while True:
                beat()
                await self._poll(tasks)
                await self._sleep()

    async def _sleep(self) -> None:
        if self._failures:
            pause = min(POLL_FAILED * 2 ** min(self._failures - 1, 10), POLL_FAILED_MAX)
            await asyncio.sleep(pause * (0.5 + self._rng.random()))
            return
        if any(self._users.values()):
            await asyncio.sleep(self._rhythm.pause())
            return
        self._kicked.clear()
        try:
            async with asyncio.timeout(POLL_IDLE):
                await self._kicked.wait()
        except TimeoutError:
            pass

    async def _poll(self, tasks: asyncio.TaskGroup) -> None:
        started = self._clock.monotonic()
        try:
            if self._since is None:
                await self._list_all(started)
            else:
                self._list_beside(started, tasks)
                await self._list_changes(started, self._since)
        except CloudError as error:
            self._failed(error)
            return
        self._answered()
        self._look_beside(started, tasks)

    async def _list_changes(self, started: float, last: Listing) -> None:
        look_back = self._rhythm.look_back(started)
        asked = self._clock.now()
        self._since = listing = await self.cloud.list(last.taken_at - look_back)
        self._rhythm.listed(started, look_back)
        self._rhythm.took(self._clock.monotonic() - started)
        self._skew = skew(asked, listing.taken_at, self._clock.now())
        self._heard(listing, started)

    async def _list_all(self, started: float) -> None:
        """A complete listing. It is brought up to what others have told meanwhile."""
        asked = self._clock.now()
        self._seen.all_asked_for()
        listing = self._seen.brought_up(await self.cloud.list(None))
        self._rhythm.listed_all(started, whole=listing.complete)
        if self._since is None:
            self._since = listing
            self._skew = skew(asked, listing.taken_at, self._clock.now())
        self._heard(self._believed(listing, started), started)

    def _list_beside(self, now: float, tasks: asyncio.TaskGroup) -> None:
        """Have a complete listing go on beside those of changes, if it is time for one."""
        is_under_way = self._whole is not None and not self._whole.done()
        if self._rhythm.is_all_due(now) and not is_under_way:
            self._whole = tasks.create_task(self._try_to_list_all(now))

    async def _try_to_list_all(self, started: float) -> None:
        """Whether the cloud is well is for the listings of changes to say."""
        try:
            await self._list_all(started)
        except CloudError as error:
            log.info("a complete listing failed: %s", error)
            self._rhythm.listed_all(self._clock.monotonic(), whole=False)

    def _believed(self, listing: Listing, started: float) -> Listing:
        """The listing as far as it is believed: what it lacks may not be lacking."""
        if not listing.complete or not self.listed:
            return listing
        known = self._seen.known(started)
        seen = {server.owner for server in listing.servers if server.owner is not None}
        if not self._rhythm.doubts(started, known, seen):
            return listing
        lost = sum(uid not in seen for uid in known)
        log.warning("a listing lacks %d of %d servers: not believed", lost, len(known))
        return replace(listing, complete=False)

    def _heard(self, listing: Listing, started: float) -> None:
        """Take a listing in, and tell whom it concerns."""
        self._seen_from = max(self._seen_from, started)
        for server in listing.servers:
            if (took := self._seen.build_time(server, started)) is not None:
                self._rhythm.built(took)
        changed = self._seen.take_in(listing, started)
        if listing.complete and not self.listed:
            self.listed = True
            self._wake_users()
        self.racks.heed(listing.servers)
        self._wake(changed)

    def _answered(self) -> None:
        """The cloud is well."""
        self._failures = 0
        self.capacity.rest(resting=False)
        was, self.problem = self.problem, None
        if was is not None:
            self._wake_users()

    def _look_beside(self, now: float, tasks: asyncio.TaskGroup) -> None:
        """Have somebody look at the hosts, if it is time: listings do not wait for that."""
        is_under_way = self._looking is not None and not self._looking.done()
        is_due = now - self._looked_at >= HOSTS_EVERY
        if self.racks.visible and is_due and not is_under_way:
            self._looked_at = now
            self._looking = tasks.create_task(self._look_at_hosts())

    async def _look_at_hosts(self) -> None:
        """Which hosts are dead. What was known of them stands until Nova tells otherwise."""
        try:
            dead = await self.racks.inventory.down_hosts()
        except CloudError as error:
            log.info("the states of hosts cannot be read: %s", error)
            return
        changed, self._dead = dead ^ self._dead, dead
        if changed:
            log.warning("dead hosts: %s", ", ".join(sorted(dead)) or "none any more")
            there = self.servers().items()
            self._wake([uid for uid, s in there if self.racks.host_name(s) in changed])

    def _failed(self, error: CloudError) -> None:
        self._failures += 1
        if self._failures == 1:
            log.warning("the cloud cannot be listed: %s", error)
        self.capacity.rest(resting=isinstance(error, CredentialsRefused))
        before, self.problem = self.problem, problem_of(error)
        if before != self.problem:
            self._wake_users()

    def _wake_users(self) -> None:
        """Everything of every pool may have changed."""
        self._wake(self.servers())
        for pool in self._users:
            self._wake_pool(pool)
