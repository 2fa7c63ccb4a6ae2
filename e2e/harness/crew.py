"""Replicas that are at the mercy of a test, each behind a network of its own.

They are real: `warmpool run` with the rights of the ServiceAccount, a token per process, and a
kubeconfig that leads through the replica's proxy.
"""

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from harness.audit import credential_of
from harness.fleet import ACCOUNT, HOME, LEASE
from harness.history import Api
from harness.proxy import Proxy
from warmpool.tools import kubeconfig as kubeconfigs
from warmpool.tools.cluster import Cluster
from warmpool.tools.processes import Process


@dataclass(slots=True)
class Replica:
    """One place for a replica: its network stays when its process is replaced."""

    name: str
    """`r1`; its processes are `r1-1`, `r1-2`, ..."""
    proxy: Proxy
    process: Process | None = None
    identity: str = ""
    killed: bool = True
    """We have ended it: it need not run."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by who ends or starts its process."""
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def died(self) -> bool:
        """It has ended, and nobody asked it to."""
        return not self.killed and not self.runs


@dataclass(slots=True)
class Crew:
    """All replicas. Whoever ends one starts it again."""

    cluster: Cluster
    admin: Api
    folder: Path
    replicas: list[Replica] = field(default_factory=list)
    identities: dict[str, str] = field(default_factory=dict)
    """Of all processes that there ever were, by the id of their token."""
    deaths: list[str] = field(default_factory=list)
    """Processes that ended though nobody had asked them to."""
    holder: Callable[[], str] = lambda: ""
    """Who has written the ledger last: tells the leader, as good as the Lease."""

    def add(self, proxy: Proxy) -> Replica:
        """A place for one more."""
        replica = Replica(f"r{len(self.replicas) + 1}", proxy)
        self.replicas.append(replica)
        return replica

    async def start(self, replica: Replica) -> None:
        """Start its next process unless one runs, once the API server gives it a token.

        It need not be ready then.
        """
        async with replica.lock:
            self._look(replica)
            if not replica.runs:
                await self._launch(replica)

    async def _launch(self, replica: Replica) -> None:
        token = await self._token()
        replica.identity = f"{replica.name}-{next(replica.numbers)}"
        self.identities[credential_of(token)] = replica.identity
        path = self.folder / "kubeconfigs" / replica.identity
        kubeconfigs.write_private(path, self._kubeconfig(replica, token))
        replica.process = await asyncio.to_thread(
            Process.start,
            [sys.executable, "-m", "warmpool", "run"],
            log=self.folder / f"{replica.identity}.log",
            env={
                **self.cluster.environment(path),
                **LEASE,
                "WARMPOOL_KUBECONFIG": str(path),
                "WARMPOOL_IDENTITY": replica.identity,
            },
            name=replica.identity,
        )
        replica.killed = False

    async def kill(self, replica: Replica) -> None:
        """Kill -9."""
        async with replica.lock:
            self._look(replica)
            replica.killed = True
            if replica.process is not None:
                await asyncio.to_thread(replica.process.kill)

    async def terminate(self, replica: Replica) -> int:
        """SIGTERM, as a rollout does; its exit status."""
        async with replica.lock:
            self._look(replica)
            replica.killed = True
            if replica.process is None:
                return 0
            return await asyncio.to_thread(replica.process.terminate)

    async def heal(self) -> None:
        """Every process goes on; there is one in each place."""
        for replica in self.replicas:
            if replica.process is not None:
                replica.process.send(signal.SIGCONT)
            await self.start(replica)

    def look(self) -> list[str]:
        """Who has died by itself, up to now."""
        for replica in self.replicas:
            self._look(replica)
        return self.deaths

    def _look(self, replica: Replica) -> None:
        if replica.died and replica.identity not in self.deaths:
            self.deaths.append(replica.identity)

    def leader(self) -> Replica | None:
        """The place whose process has taken the ledger over last, if it runs."""
        holder = self.holder()
        return next((r for r in self.replicas if r.identity == holder and r.runs), None)

    def stop(self) -> None:
        for replica in self.replicas:
            replica.killed = True
            if replica.process is not None:
                replica.process.terminate()

    def logs(self) -> list[Path]:
        """Of all processes that there ever were, the oldest first."""
        return sorted(self.folder.glob("r*-*.log"), key=os.path.getmtime)

    async def _token(self) -> str:
        while True:
            try:
                return await self.admin.token(HOME, ACCOUNT)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)

    def _kubeconfig(self, replica: Replica, token: str) -> str:
        text = self.cluster.kubeconfig.read_text(encoding="utf-8")
        own = kubeconfigs.for_user(text, user=replica.identity, token=token)
        return own.replace(self.admin.server, replica.proxy.url)


def now() -> float:
    """Seconds since the epoch."""
    return time.time()  # noqa: TID251 - as the API server's and the simulator's clocks have it
