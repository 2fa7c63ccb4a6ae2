"""What a pool builds from: its cloud, and its template with all names resolved."""

import base64
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.cloud import BuildSpec
from warmpool.domain.errors import CloudError, CloudUnavailable, DependencyMissing, NotFound
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import Problem
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.clouds import Clouds
from warmpool.reconcile.groups import settle_group
from warmpool.reconcile.session import CloudSession, problem_of

RETRY_DEPENDENCY: Final = timedelta(seconds=10)
"""Between looks for something that the template names and that was not there."""

RESOLVE_EVERY: Final = timedelta(minutes=5)
"""After which the names of a template are looked up again: an image may have been replaced."""


class Recipe:
    """One pool's cloud and resolved template; what is wrong with them is remembered."""

    def __init__(self, cluster: Cluster, clouds: Clouds, clock: Clock) -> None:
        self._cluster = cluster
        self._clouds = clouds
        self._clock = clock
        self._generation = -1
        self._spec: BuildSpec | None = None
        self._revision = ""
        self.problem: Problem | None = None
        self.due: datetime | None = None
        """When to look again."""

    @property
    def latest(self) -> BuildSpec | None:
        """What new VMs are built from, as it was resolved last. None: not yet."""
        return self._spec

    @property
    def group(self) -> str:
        """Id of the server group that new VMs are built in. Empty: none."""
        return self._spec.group if self._spec is not None else ""

    def spec_for(self, vm: Vm) -> BuildSpec | None:
        """What to build a VM from, as it was resolved last; kept while a problem lasts.

        None: the template has changed since the VM was written, so it is to be given up.
        """
        return self._spec if self._revision == vm.revision else None

    def doubt(self) -> None:
        """Nova called a request wrong: look the names up again at once."""
        self.due = self._clock.now()

    async def prepare(self, pool: Pool) -> CloudSession | None:
        """The session of the pool's credentials, with the template resolved as far as it can be."""
        now = self._clock.now()
        session = await self._clouds.session(pool)
        if isinstance(session, Problem):
            self.problem, self.due = session, now + RETRY_DEPENDENCY
            return None
        session.join(pool.ref)
        if session.problem is not None:
            self.problem, self.due = session.problem, now + RETRY_DEPENDENCY
            return session
        if self._generation != pool.generation or self.due is None or now >= self.due:
            await self._resolve(pool, session)
        return session

    async def session(self, pool: Pool) -> CloudSession:
        """The session of the pool's credentials as they are now.

        Raises:
            CloudUnavailable: they are of no use.
        """
        session = await self._clouds.session(pool)
        if isinstance(session, Problem):
            raise CloudUnavailable(session.message)
        return session

    async def _resolve(self, pool: Pool, session: CloudSession) -> None:
        now, zones = self._clock.now(), tuple(pool.spec.availability_zones)
        try:
            spec = await session.cloud.resolve(pool.spec.template, zones)
            group = await settle_group(session.cloud, pool)
            spec = replace(spec, user_data=await self._user_data(pool), group=group)
        except NotFound as error:
            field = "spec.template.userDataSecretRef"
            self.problem = Problem(Reason.SECRET_NOT_FOUND, str(error), field)
        except DependencyMissing as error:
            self.problem = Problem(error.reason, str(error), error.field)
        except CloudError as error:
            self.problem = problem_of(error)
        else:
            self._spec, self._revision = spec, pool.revision
            self.problem, self._generation = None, pool.generation
            self.due = now + RESOLVE_EVERY
            return
        self.due = now + RETRY_DEPENDENCY

    async def _user_data(self, pool: Pool) -> str | None:
        template = pool.spec.template
        if template.user_data_secret_ref is None:
            return template.user_data
        where = template.user_data_secret_ref
        data = await self._cluster.secret(Ref(pool.ref.namespace, where.name))
        if where.key not in data:
            raise NotFound(f"Secret {where.name!r} has no key {where.key!r}: add it")
        return base64.b64encode(data[where.key]).decode("ascii")
