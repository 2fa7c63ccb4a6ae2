"""The clouds in use: one session per set of credentials, shared by all pools that name it.

Only the leader runs sessions.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.errors import CloudError, ClusterError, Forbidden, NotFound
from warmpool.domain.facts import Pool
from warmpool.domain.ids import Ref
from warmpool.domain.pools import Problem
from warmpool.ports.clock import Clock
from warmpool.ports.cloud import Cloud
from warmpool.ports.cluster import Cluster
from warmpool.ports.racks import OpenRacks, Surroundings
from warmpool.reconcile.session import CLOUDS_YAML, CloudSession, Wake, WakePool
from warmpool.reconcile.vitals import Vitals

log = logging.getLogger(__name__)

SECRET_EVERY: Final = 30.0
"""Seconds after which a Secret is read again: passwords change."""

SECRET_AGAIN: Final = 5.0
"""Seconds after which a Secret is read again that was missing, or of no use."""

POLLED_WITHIN: Final = 600.0
"""Seconds within which a session has polled once: the first complete listing of a large cloud takes
many pages, and each may take 90."""

OpenCloud = Callable[[str, str], Cloud]
"""Text of a clouds.yaml and the name of a cloud in it, to a connection. Raises CloudError."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose credentials, and for which cloud."""

    secret: Ref
    cloud: str


class Clouds:
    """The sessions in use."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        cluster: Cluster,
        open_cloud: OpenCloud,
        clock: Clock,
        rng: random.Random,
        vitals: Vitals,
        *,
        open_racks: OpenRacks,
        wake_vms: Wake,
        wake_pool: WakePool,
        nudge: WakePool,
    ) -> None:
        """`wake_pool` has all VMs of a pool looked at again, `nudge` only the pool itself."""
        self._vitals = vitals
        self._cluster = cluster
        self._open = open_cloud
        self._open_racks = open_racks
        self._clock = clock
        self._rng = rng
        self._wake_vms = wake_vms
        self._wake_pool = wake_pool
        self._nudge = nudge
        self._sessions: dict[SessionKey, CloudSession] = {}
        self._texts: dict[SessionKey, str] = {}
        self._wrong: dict[SessionKey, Problem] = {}
        """What is wrong with Secrets, as they were read last."""
        self._refused: dict[SessionKey, tuple[str, Problem]] = {}
        """Texts that could not be used last: reading one again would only take its time again."""
        self._read_at: dict[SessionKey, float] = {}
        self._tasks: dict[SessionKey, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Hold the sessions' tasks until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.Event().wait()

    def sessions(self) -> list[CloudSession]:
        return list(self._sessions.values())

    async def session(self, pool: Pool) -> CloudSession | Problem:
        """The session of a pool's credentials, or what is wrong with them.

        While the API server does not say what stands in the Secret, it is what it said last.
        """
        key = SessionKey(
            Ref(pool.ref.namespace, pool.spec.cloud_ref.secret_name), pool.spec.cloud_ref.cloud
        )
        now = self._clock.monotonic()
        held = self._held(key)
        is_well = isinstance(held, CloudSession) and held.problem is None
        age = now - self._read_at.get(key, float("-inf"))
        if held is not None and age < (SECRET_EVERY if is_well else SECRET_AGAIN):
            return held
        found: CloudSession | Problem
        try:
            data = await self._read(key.secret)
        except ClusterError as error:
            found = self._held(key) or _unreadable(key.secret, str(error))
        else:
            found = data if isinstance(data, Problem) else self._renewed(key, data)
        self._read_at[key] = now
        if isinstance(found, Problem):
            self._wrong[key] = found
        else:
            self._wrong.pop(key, None)
        return found

    def _held(self, key: SessionKey) -> CloudSession | Problem | None:
        """What came of the Secret when it was read last."""
        return self._wrong.get(key) or self._sessions.get(key)

    def _renewed(self, key: SessionKey, data: Mapping[str, bytes]) -> CloudSession | Problem:
        """The session of this Secret, which may have been opened while it was read."""
        text = data[CLOUDS_YAML].decode(errors="replace")
        session: CloudSession | Problem | None = self._sessions.get(key)
        if session is None or self._texts.get(key) != text:
            session = self._start(key, text)
        if isinstance(session, CloudSession):
            session.racks.configure(self._around(key, data, session.cloud))
        return session

    def _around(self, key: SessionKey, data: Mapping[str, bytes], cloud: Cloud) -> Surroundings:
        text, space = data[CLOUDS_YAML].decode(errors="replace"), key.secret.namespace
        return Surroundings(
            cloud=key.cloud,
            secret=data,
            project=cloud,
            open_cloud=lambda name: self._open(text, name),
            config_map=lambda name: self._cluster.config_map(Ref(space, name)),
        )

    async def _read(self, secret: Ref) -> Mapping[str, bytes] | Problem:
        """What stands in a Secret, or why that is of no use.

        Raises:
            ClusterError: the API server does not say.
        """
        try:
            data = await self._cluster.secret(secret)
        except NotFound:
            text = (
                f"Secret {secret.name!r} is not in namespace {secret.namespace!r}:"
                f" create it with the key {CLOUDS_YAML}"
            )
            return Problem(Reason.SECRET_NOT_FOUND, text, "spec.cloudRef.secretName")
        except Forbidden as error:
            return _unreadable(secret, f"{error}: let the operator's ServiceAccount get it")
        if CLOUDS_YAML not in data:
            text = f"Secret {secret.name!r} has no key {CLOUDS_YAML!r}: add it"
            return Problem(Reason.SECRET_INVALID, text, "spec.cloudRef.secretName")
        return data

    def _start(self, key: SessionKey, text: str) -> CloudSession | Problem:
        assert self._group is not None, "run() first"  # noqa: S101
        before, problem = self._refused.get(key, (None, None))
        if problem is not None and before == text:
            return problem
        cloud = self._opened(key, text)
        if isinstance(cloud, Problem):
            return cloud
        self._stop(key)
        session = CloudSession(
            cloud,
            self._clock,
            self._rng,
            open_racks=self._open_racks,
            wake_vms=self._wake_vms,
            wake_pool=self._wake_pool,
            nudge=self._nudge,
        )
        self._sessions[key], self._texts[key] = session, text
        name = f"cloud {key.cloud} of {key.secret}"
        self._tasks[key] = self._group.create_task(self._hold(session, name), name=name)
        return session

    def _opened(self, key: SessionKey, text: str) -> Cloud | Problem:
        """Whatever stands in a Secret, it is wrong for its own pools only."""
        try:
            return self._open(text, key.cloud)
        except CloudError as error:
            problem = Problem(error.reason, str(error), "spec.cloudRef.cloud")
            self._refused[key] = text, problem
            return problem
        except Exception as error:  # noqa: BLE001 - its words may be the Secret's
            kind = type(error).__name__
            log.error("Secret %s: clouds.yaml cannot be read: %s", key.secret, kind)  # noqa: TRY400
            text = f"clouds.yaml of Secret {key.secret.name!r} cannot be read ({kind})"
            return Problem(Reason.SECRET_INVALID, text, "spec.cloudRef.secretName")

    async def _hold(self, session: CloudSession, name: str) -> None:
        """Have a session look until cancelled, then close it."""
        watch = self._vitals.watch
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch(name, session.run, POLLED_WITHIN))
                tasks.create_task(watch(f"room in {name}", session.capacity.run))
                tasks.create_task(watch(f"racks of {name}", session.racks.run))
        finally:
            await session.cloud.close()

    def _stop(self, key: SessionKey) -> None:
        task = self._tasks.pop(key, None)
        self._sessions.pop(key, None)
        if task is not None:
            task.cancel()


def _unreadable(secret: Ref, why: str) -> Problem:
    text = f"Secret {secret.name!r} of namespace {secret.namespace!r} cannot be read: {why}"
    return Problem(Reason.SECRET_UNREADABLE, text, "spec.cloudRef.secretName")
