"""Finds what no other loop looks at: servers of ours that no WarmVM knows.

A POST whose answer was lost may become a server long afterwards, when its WarmVM has another or is
gone. Such a server is deleted after two sightings at least a minute apart, and a look at all that
the API server has: an object that our watch has not shown yet, however far that is behind, must not
cost a server its life. Servers without our installation's tag
never come in here: a session does not list them.

A server that a claim has is no leak: its WarmVM goes after it, not before. If the API server does
not know it, it has forgotten it, and somebody uses it: it is adopted.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.cloud import Server, ServerState
from warmpool.domain.errors import CloudError, ClusterError, WentBack
from warmpool.domain.ids import ServerId, VmUid
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster, Snapshot
from warmpool.reconcile.clouds import Clouds
from warmpool.reconcile.custody import Custody
from warmpool.reconcile.session import CloudSession
from warmpool.reconcile.store import Store
from warmpool.reconcile.table import bits
from warmpool.reconcile.vitals import Beat

log = logging.getLogger(__name__)

SWEEP_EVERY: Final = 20.0
"""Seconds between sweeps."""

CONDEMN_AFTER: Final = 60.0
"""Seconds between the first sighting of a leaked server and its deletion."""

COMPARE_EVERY: Final = 300.0
"""Seconds between comparisons of the store with a LIST."""

COMPARE_AFTER: Final = 3.0
"""Seconds from a new LIST of kopf's to a comparison: by then its objects have been shown, and the
streams of the other kinds, which break together as a rule, have begun anew."""

LEISURE: Final = 0.2
"""Seconds between two pages of such a LIST: nobody waits for it, and claims shall not either."""

READ_WITHIN: Final = 600.0
"""Seconds within which all objects have been read: thousands take many pages, and each may take
30."""


Compare = Callable[[], Awaitable[None]]
"""Bring the store up to what the API server has. Raises ClusterError, WentBack."""


class Sweeper:
    """Sweeps while this replica leads."""

    def __init__(
        self, store: Store, clouds: Clouds, clock: Clock, custody: Custody, compare: Compare
    ) -> None:
        self._custody = custody
        self._compare = compare
        self._compared = False
        self._store = store
        self._clouds = clouds
        self._clock = clock
        self._seen: dict[ServerId, float] = {}
        self._sure: set[ServerId] = set()
        """Those that the API server, asked itself, knew no WarmVM of."""

    async def run(self, beat: Beat) -> None:
        """Sweep until cancelled."""
        while True:
            beat()
            await asyncio.sleep(SWEEP_EVERY)
            await self.sweep()

    async def sweep(self) -> None:
        """One sweep over all sessions."""
        present: set[ServerId] = set()
        self._compared = False
        for session in self._clouds.sessions():
            if not session.listed or session.problem is not None:
                continue
            for server in self._leaked(session):
                present.add(server.id)
                await self._judge(server, session)
        self._seen = {server: at for server, at in self._seen.items() if server in present}
        self._sure &= present

    def _leaked(self, session: CloudSession) -> list[Server]:
        kept = [s for owner, s in session.servers().items() if self._is_leaked(owner, s)]
        return kept + [s for s in session.strays() if self._is_leaked(s.owner, s, stray=True)]

    def _is_leaked(self, owner: VmUid | None, server: Server, *, stray: bool = False) -> bool:
        """Nobody's; or, of several servers of one WarmVM, not the one that it names.

        A WarmVM that names none yet has the one that the session holds to be its own. One that
        cannot be read may name another by now than it did.
        """
        if owner is not None and self._store.is_unread(owner):
            return False
        vm = self._store.vm(owner) if owner is not None else None
        if vm is None:
            return server.state is not ServerState.DELETED
        return stray if vm.server is None else server.id != vm.server

    async def _judge(self, server: Server, session: CloudSession) -> None:
        now = self._clock.monotonic()
        first = self._seen.setdefault(server.id, now)
        if now - first < CONDEMN_AFTER:
            return
        try:
            seen = await self._still_ours(server, session)
            if seen is None or not await self._still_leaked(server, session):
                return
            if seen.marks.claim is not None:
                await self._adopt(seen.marks.claim, seen, session)
            else:
                await self._delete(seen, session)
        except (CloudError, ClusterError) as error:
            log.info("server %s: %s", server.id, error)

    async def _adopt(self, claim: ClaimRef, server: Server, session: CloudSession) -> None:
        ref = server.marks.pool
        pool = self._store.pool(ref) if ref is not None else None
        if pool is not None:
            await self._custody.adopt(pool, claim, server, session)
            return
        log.warning(
            "server %s (%s) is claim %s/%s's, from pool %s, and neither WarmVM nor pool are"
            " there: it is left alone. Create the pool again, or delete the server in Nova",
            *(server.id, server.name, claim.namespace, claim.name, ref),
        )

    async def _delete(self, server: Server, session: CloudSession) -> None:
        """Ask for its end. It is seen, and asked for again, until Nova has none."""
        log.warning("server %s (%s) belongs to no WarmVM: deleting it", server.id, server.name)
        await session.cloud.delete(server.id)

    async def _still_ours(self, server: Server, session: CloudSession) -> Server | None:
        """The server, if Nova, asked now, has it with our mark: listings may be behind."""
        seen = await session.cloud.get(server.id)
        if seen is not None and seen.owner == server.owner:
            return seen
        session.forget(server)
        return None

    async def _still_leaked(self, server: Server, session: CloudSession) -> bool:
        """Whether it is so by all that the API server has now. Asked once for each server."""
        if server.id not in self._sure:
            if not self._compared:
                await self._compare()
                self._compared = True
            if server.id not in {leaked.id for leaked in self._leaked(session)}:
                return False
            self._sure.add(server.id)
        return True


class Comparer:
    """Compares the store with the API server now and then. Every replica does: it only reads."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster
        self._relisted = asyncio.Event()

    def relisted(self) -> None:
        """A watch began anew with a LIST. What vanished meanwhile, kopf tells nobody."""
        self._relisted.set()

    async def run(self, beat: Beat) -> None:
        """Compare until cancelled."""
        while True:
            beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_EVERY):
                    await self._relisted.wait()
                    await asyncio.sleep(COMPARE_AFTER)
            self._relisted.clear()
            try:
                await self.compare(pace=LEISURE)
            except ClusterError as error:
                log.info("the store was not compared: %s", error)

    async def compare(self, *, pace: float = 0.0) -> None:
        """One comparison, with so many seconds between two pages of what is read.

        Raises:
            ClusterError: the API server did not answer.
            WentBack: it was restored from a backup.
        """
        before = self._store.newest_namespace
        namespaces = await self._cluster.namespaces()
        _assert_later("namespaces", namespaces, before)
        self._store.apply_namespaces(namespaces)
        for kind in (Kind.VM_FLAVOR, Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM):
            before = self._store.newest(kind)
            snapshot = await self._cluster.list(kind, pace=pace)
            _assert_later(kind.plural, snapshot, before)
            if lost := await self._take_in(kind, snapshot):
                log.warning("%d %s had vanished without an event", lost, kind.plural)

    async def _take_in(self, kind: Kind, snapshot: Snapshot) -> int:
        """Bit by bit: ten thousand objects at once would have a claim wait for a second.

        What comes in between is newer, and each object is only ever replaced by what is newer.
        """
        for some in bits(snapshot.items):
            self._store.check_history(kind, some, snapshot.version)
            await asyncio.sleep(0)
        for some in bits(snapshot.items):
            for body in some:
                self._store.apply(kind, body)
            await asyncio.sleep(0)
        return self._store.miss(kind, snapshot)


def _assert_later(what: str, snapshot: Snapshot, before: int) -> None:
    if snapshot.version < before:
        raise WentBack(f"resourceVersion {snapshot.version} of {what} follows {before}")
