"""What one pool asks of its cloud's capacity, is told, and tells."""

from warmpool.domain.actions import CreateVm
from warmpool.domain.cloud import BuildSpec
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import PoolFacts, Survey
from warmpool.planning.filling import lacks_server
from warmpool.planning.sizing import unclaimed
from warmpool.reconcile.session import CloudSession


class Surveyor:
    """The capacity of a cloud, as it concerns one pool."""

    def __init__(self, pool: Ref) -> None:
        self._pool = pool
        self._session: CloudSession | None = None
        self._spec: BuildSpec | None = None

    def look(self, session: CloudSession | None, spec: BuildSpec | None) -> None:
        """This is where the pool builds now, and from what."""
        self._session, self._spec = session, spec

    def ask(self, facts: PoolFacts) -> None:
        """Have the cloud looked at if the pool is short, or has rules for where its VMs stand."""
        pool = facts.pool
        short = unclaimed(facts) < facts.target or any(map(lacks_server, facts.vms))
        short = short and not pool.spec.paused
        if self._session is None or self._spec is None or pool.deleting:
            return
        if short or pool.spec.spread:
            self._session.capacity.want(self._pool, self._spec, short=short)

    def survey(self) -> Survey:
        """What the cloud has room for, as far as that is known."""
        session, spec = self._session, self._spec
        if session is None or spec is None:
            return Survey(done=False)
        capacity = session.capacity
        return Survey(
            done=capacity.surveyed(self._pool),
            headroom=capacity.headroom(spec.size, ours=len(session.servers())),
            sites=capacity.sites(spec, session.racks.of_host),
            unaimed=capacity.unaimed(spec),
            for_now=capacity.is_cautious(spec),
            group_members=capacity.group_members(),
        )

    def begun(self, vm: Ref, build: CreateVm) -> None:
        """A build is on its way."""
        if self._session is not None and self._spec is not None:
            self._session.capacity.promise(vm, self._spec, build.hypervisor)

    def broken(self, vm: Ref) -> None:
        """It has come to nothing."""
        if self._session is not None:
            self._session.capacity.broken(vm)

    def failed(self, vm: Vm) -> bool:
        """Its server has failed: aim at other hypervisors for a while. False: it was not aimed."""
        if self._session is None or self._spec is None:
            return False
        return self._session.capacity.failed(self._spec, vm)

    def worked(self, vm: Vm) -> None:
        """It came to its end."""
        if self._session is not None and self._spec is not None:
            self._session.capacity.worked(self._spec, vm)
