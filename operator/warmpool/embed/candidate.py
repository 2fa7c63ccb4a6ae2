"""The part of a replica that takes part: it is listed, contends, and leads when it has won."""

import asyncio
import importlib.metadata
import random
import secrets
import socket
import uuid
from functools import partial

from warmpool.api.names import Role
from warmpool.domain.ids import InstallationId
from warmpool.effects.kube import KubeCluster
from warmpool.effects.nova import Observe, open_cloud
from warmpool.effects.probe import NetworkProber
from warmpool.effects.racks.opening import open_racks
from warmpool.embed.catalogue import open_catalogue
from warmpool.embed.telling import Telling
from warmpool.ports.clock import Clock
from warmpool.ports.cloud import Cloud
from warmpool.reconcile.election import Elector, LeaseTimes
from warmpool.reconcile.fence import Fenced
from warmpool.reconcile.metering import Metered
from warmpool.reconcile.replicas import Card, Clearing, Registration
from warmpool.reconcile.store import Store
from warmpool.reconcile.term import World, lead
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import STUCK_AFTER, Beat, Vitals
from warmpool.settings import Settings


class Candidate:
    """All that writes. A replica without one writes nothing."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        settings: Settings,
        *,
        identity: str,
        store: Store,
        cluster: KubeCluster,
        clock: Clock,
        vitals: Vitals,
        telling: Telling,
    ) -> None:
        rng = random.Random(secrets.randbits(64))  # noqa: S311 - jitter and names, no secrets
        times = LeaseTimes(settings.lease, settings.lease_deadline, settings.lease_retry)
        card = Card(identity, importlib.metadata.version("warmpool"), socket.gethostname())
        self._vitals = vitals
        self._mongo = open_catalogue(settings)
        self._elector = Elector(cluster, clock, identity=identity, times=times, rng=rng)
        self._listed = Registration(cluster, clock, rng, card, settings.replica_renewal)
        self._listed_within = settings.replica_renew_seconds + STUCK_AFTER
        fence = Fenced(cluster, self._elector.leads)
        self._clearing = Clearing(cluster, clock, fence.check)
        self.traffic = Traffic(clock)
        self._world = World(
            store=store,
            cluster=Metered(cluster, telling.metrics, clock),
            open_cloud=partial(_open, telling.metrics.nova_call),
            open_racks=partial(open_racks, loopback=settings.racks_loopback),
            catalogue=self._mongo or store.flavors,
            prober=NetworkProber(),
            clock=clock,
            rng=rng,
            namespace=settings.namespace,
            identity=identity,
            new_installation=lambda: InstallationId(str(uuid.uuid4())),
            vitals=vitals,
            traffic=self.traffic,
            emit=telling.emit,
        )

    def leads(self) -> bool:
        """Whether it may write now."""
        return self._elector.leads()

    async def run(self) -> None:
        """Take part until cancelled. At the end the Leases are handed back."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._vitals.watch("elector", self._contend), name="elector")
                listing = ("registration", self._listed.run, self._listed_within)
                tasks.create_task(self._vitals.watch(*listing), name="registration")
                if self._mongo is not None:  # on standby, too: who wins knows all entries then
                    reading = self._vitals.watch("catalogue", self._mongo.run)
                    tasks.create_task(reading, name="catalogue")
        finally:
            try:
                await self._listed.withdraw()
            finally:
                if self._mongo is not None:
                    await self._mongo.close()

    async def _contend(self, beat: Beat) -> None:
        await self._elector.run(self._lead, beat)

    async def _lead(self) -> None:
        self._listed.say(Role.LEADER)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lead(self._world, self._elector.leads), name="term")
                clearing = self._vitals.watch("clearing", self._clearing.run)
                tasks.create_task(clearing, name="clearing")
        finally:
            self._listed.say(Role.STANDBY)


def _open(observe: Observe, clouds_yaml: str, cloud: str, installation: InstallationId) -> Cloud:
    return open_cloud(clouds_yaml, cloud, installation=installation, observe=observe)
