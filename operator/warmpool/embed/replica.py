"""One replica put together: settings to clients to loops, in the event loop that runs it.

Stopping is by flag, in this order: stop leading and release the Lease, then take back the replica's
own Lease, then end the watches, then close the connections.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from warmpool.api.names import LABEL_ROLE, LEASE_NAME
from warmpool.api.v1alpha1.pool import Claimable
from warmpool.domain.claims import Stock
from warmpool.domain.errors import ClusterError, NotFound
from warmpool.domain.ids import Ref
from warmpool.effects.clock import SystemClock
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.effects.sockets import Sockets
from warmpool.embed.candidate import Candidate
from warmpool.embed.telling import Telling
from warmpool.embed.watching import apart, into
from warmpool.handlers import hosting, intake, objects, probes
from warmpool.planning.claimable import claimable
from warmpool.reconcile.fit import Answer, ask, question_of
from warmpool.reconcile.replicas import Leader, Member, as_identity, read_leader, read_member
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import COMPARE_EVERY, READ_WITHIN, Comparer
from warmpool.reconcile.vitals import Vitals
from warmpool.settings import Settings

log = logging.getLogger(__name__)

FIRST_LOOK_RETRY: Final = 1.0
"""Seconds between attempts to read the objects for the first time."""

UNREAD: Final = "the objects have not been read yet"
STOPPING: Final = "it is being stopped"
"""Why a replica is not ready, before and after all the rest."""


class Replica:
    """What it has in memory, what it answers from it, and its life. `run` once."""

    def __init__(self, settings: Settings, *, participate: bool, own_loop: bool) -> None:
        """`own_loop`: nobody else's tasks are in the loop, so kopf may run there."""
        self._settings = settings
        self._participate = participate
        self._own_loop = own_loop
        self._clock = SystemClock()
        self._store = Store()
        self._candidate: Candidate | None = None
        self._cluster: KubeCluster | None = None
        self.identity = settings.identity or _identity()
        self.vitals = Vitals(self._clock)
        self._telling = Telling(
            settings,
            self._store,
            self._clock,
            identity=self.identity,
            leads=lambda: self.leads,
            in_burst=lambda: self.in_burst,
        )
        self.vitals.need(UNREAD)
        for resource in objects.RESOURCES:
            self.vitals.need(hosting.unwatched(resource))

    # -- answers ------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether it leads at this moment."""
        return self._candidate is not None and self._candidate.leads()

    @property
    def in_burst(self) -> bool:
        """Whether it is answering a burst of claims at this moment."""
        return self._candidate is not None and self._candidate.traffic.in_burst

    @property
    def is_throng(self) -> bool:
        """Whether so many claims are being answered that it had better look for news less often."""
        return self._candidate is not None and self._candidate.traffic.is_throng

    def claimable(self, pool: Ref) -> Claimable | None:
        """The largest claims that a pool could serve now; None: there is no such pool."""
        known = self._store.pool(pool)
        if known is None:
            return None
        return claimable(Stock(self._store.counts(pool), known.spec.reserve))

    async def fit(self, manifest: Mapping[str, Any], namespace: str | None) -> Answer:
        """What a claim would be answered now."""
        return await ask(question_of(manifest, namespace), self._store, self._clock)

    async def leader(self) -> Leader | None:
        """Who leads, as the API server has it."""
        try:
            return read_leader(await self._connected().get_lease(LEASE_NAME))
        except NotFound:
            return None

    async def members(self) -> list[Member]:
        """All replicas that are listed, as the API server has them, by identity."""
        leases = await self._connected().list_leases(LABEL_ROLE)
        return sorted(map(read_member, leases), key=lambda member: member.identity)

    def _connected(self) -> KubeCluster:
        if self._cluster is None:
            raise RuntimeError("the operator does not run")
        return self._cluster

    # -- life ---------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Run until told to stop.

        Raises:
            ClusterError: there is no usable configuration for the API server.
            OSError: a port cannot be had.
            RuntimeError: the watches have ended by themselves.
        ExceptionGroup: of WentBack, if the API server has forgotten what it said.
        """
        settings = self._settings
        login = await Credentials.load(settings.kubeconfig, settings.context)
        async with contextlib.AsyncExitStack() as stack:
            if settings.probe_port is not None:
                serving = probes.serving(self.vitals, settings.probe_address, settings.probe_port)
                log.info("probes at %s", await stack.enter_async_context(serving))
            cluster = await stack.enter_async_context(KubeCluster(login, settings.namespace))
            await stack.enter_async_context(self._telling.running(cluster, cluster.secret))
            comparer = Comparer(self._store, cluster)
            if await _unless(stopping, partial(self._first_look, comparer)):
                self._cluster = cluster
                try:
                    await self._serve(login, cluster, comparer, stopping)
                finally:
                    self._cluster = None

    async def _first_look(self, comparer: Comparer) -> None:
        """Fill the store, however long the API server takes."""
        with self.vitals.pulse("first look", READ_WITHIN) as beat:
            while True:
                beat()
                try:
                    await comparer.compare()
                except ClusterError as error:
                    log.warning("cannot read the objects yet: %s", error)
                    await asyncio.sleep(FIRST_LOOK_RETRY)
                else:
                    break
        self.vitals.has(UNREAD)

    async def _serve(
        self, login: Credentials, cluster: KubeCluster, comparer: Comparer, stopping: asyncio.Event
    ) -> None:
        """Watch, and contend and lead if this replica takes part, until told to stop.

        Our own tasks are there before kopf starts: at its end it cancels every task of its loop
        that is younger than itself.
        """
        stop_watching = asyncio.Event()
        working = asyncio.ensure_future(self._work(cluster, comparer))
        watching = asyncio.ensure_future(self._watch(login, comparer, stop_watching))
        told = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((working, watching, told), return_when=asyncio.FIRST_COMPLETED)
            ended = watching.done() and not stopping.is_set()
        finally:
            self.vitals.need(STOPPING)
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            stop_watching.set()
            results = await asyncio.gather(watching, return_exceptions=True)
            told.cancel()
        for done in (working, watching):
            if not done.cancelled() and (error := done.exception()) is not None:
                raise error
        if ended:
            raise RuntimeError(f"the watches ended by themselves: {results[0]!r}")

    async def _work(self, cluster: KubeCluster, comparer: Comparer) -> None:
        async with asyncio.TaskGroup() as tasks:
            comparing = self.vitals.watch("comparer", comparer.run, COMPARE_EVERY + READ_WITHIN)
            tasks.create_task(comparing, name="comparer")
            if self._participate:
                self._candidate = Candidate(
                    self._settings,
                    identity=self.identity,
                    store=self._store,
                    cluster=cluster,
                    clock=self._clock,
                    vitals=self.vitals,
                    telling=self._telling,
                )
                tasks.create_task(self._candidate.run(), name="candidate")
                tasks.create_task(cluster.keep_warm(), name="connections")

    async def _watch(self, login: Credentials, comparer: Comparer, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        post = loop.call_soon if self._own_loop else into(loop)
        streams = hosting.Streams(self.vitals, post, comparer.relisted)
        feed = partial(objects.register, store=self._store, post=post)
        take = partial(intake.take, self._store, post)
        run = partial(hosting.watch, feed, objects.RESOURCES, login, streams)
        sockets = Sockets()

        async def watch(stop: asyncio.Event) -> None:
            try:
                await run(stop, take=take, open_socket=sockets)
            finally:
                await sockets.hang_up()

        await (watch(stop) if self._own_loop else apart(watch, stop))


async def _unless(stopping: asyncio.Event, work: Callable[[], Awaitable[None]]) -> bool:
    """Work, unless told to stop before it is done: then False."""
    working = asyncio.ensure_future(work())
    told = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((working, told), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return not stopping.is_set()
    finally:
        for task in (working, told):
            task.cancel()
        await asyncio.gather(working, told, return_exceptions=True)


def _identity() -> str:
    return f"{as_identity(socket.gethostname())}-{os.getpid()}-{secrets.token_hex(3)}"
