"""How what was begun on VMs ended, and what a pool does about it."""

import logging
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Final

from warmpool.api.names import Kind, Reason
from warmpool.domain.cloud import FaultClass
from warmpool.domain.errors import (
    CapacityRefused,
    CloudError,
    ClusterError,
    Conflict,
    CredentialsRefused,
    DependencyMissing,
    Forbidden,
    Invalid,
    NotFound,
    RequestRejected,
    TestFailed,
    ZoneClosed,
)
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import PRESERVED_AT_MOST
from warmpool.planning import pace
from warmpool.planning.lifecycle import keep_until
from warmpool.ports.clock import Clock
from warmpool.reconcile.events import Event
from warmpool.reconcile.execute import BuildFailed, Executor, ProbeFailed
from warmpool.reconcile.memory import Memory
from warmpool.reconcile.recipe import Recipe
from warmpool.reconcile.recorder import Recorder
from warmpool.reconcile.setbacks import Setbacks
from warmpool.reconcile.store import Store
from warmpool.reconcile.surveying import Surveyor

log = logging.getLogger(__name__)

MOVED_ON: Final = timedelta(milliseconds=100)
"""Until a VM is looked at again that was not what it seemed; doubled up to `MOVED_ON_MAX`."""

MOVED_ON_MAX: Final = timedelta(seconds=2)

PROBE_EVERY: Final = timedelta(seconds=1)
"""Between probes of a VM that is not up yet."""

CLUSTER_RETRY: Final = timedelta(seconds=1)
"""After the API server failed us."""

CONSOLE_SHOWN: Final = 500
"""Characters of a failed VM's console in an Event, which has room for 1000."""


class Outcomes:
    """Of one pool's actions."""

    def __init__(  # noqa: PLR0913 - it is handed all that it works with
        self,
        ref: Ref,
        *,
        store: Store,
        clock: Clock,
        memory: Memory,
        executor: Executor,
        setbacks: Setbacks,
        surveyor: Surveyor,
        recipe: Recipe,
        recorder: Recorder,
        announce: Callable[[Event], None],
    ) -> None:
        self._ref = ref
        self._store = store
        self._clock = clock
        self._memory = memory
        self._executor = executor
        self._setbacks = setbacks
        self._surveyor = surveyor
        self._recipe = recipe
        self._recorder = recorder
        self._announce = announce

    async def await_end(self, vm: Vm, work: Coroutine[Any, Any, None], *, builds: bool) -> None:
        """Run an action on a VM and turn what went wrong into what to do about it."""
        uid = vm.uid
        try:
            await work
        except ProbeFailed:
            self._memory.retries[uid] = (self._clock.now() + PROBE_EVERY, 0)
        except BuildFailed as failure:
            await self._build_failed(vm, failure)
        except CloudError as error:
            self._cloud_refused(vm, error, builds=builds)
        except (Conflict, TestFailed, NotFound):
            # The object moved on: a later pass sees it as it is, once the watch has shown it.
            self.again(vm, MOVED_ON, MOVED_ON_MAX)
        except ClusterError as error:
            log.warning("VM %s: %s", vm.ref, error)
            self.again(vm, CLUSTER_RETRY, timedelta(seconds=10))
            self._memory.pause_until = self._clock.now() + CLUSTER_RETRY
        else:
            if not isinstance(self._store.vm(uid), Vm):
                self._memory.retries.pop(uid, None)
                self._memory.recycling.discard(uid)

    def not_created(self, ref: Ref, error: ClusterError) -> None:
        """A WarmVM could not be written. Only what is refused has its cause in what was written."""
        log.warning("pool %s cannot create a WarmVM: %s", self._ref, error)
        self._surveyor.broken(ref)
        if isinstance(error, Invalid | Forbidden):
            self._setbacks.refused("", Reason.INVALID_SPEC, str(error))
        else:
            self._memory.pause_until = self._clock.now() + CLUSTER_RETRY

    def tell(self, reason: Reason, note: str) -> None:
        """Write an Event about the pool that a person would want to know of."""
        pool = self._store.pool(self._ref)
        if pool is not None:
            self._announce(Event(Kind.WARM_POOL, self._ref, pool.uid, reason, note, warning=True))

    def again(self, vm: Vm, first: timedelta, longest: timedelta) -> None:
        """Leave a VM alone for a while, twice as long each time."""
        _, count = self._memory.retries.get(vm.uid, (None, 0))
        pause = min(first * (1 << min(count, 10)), longest)
        self._memory.retries[vm.uid] = (self._clock.now() + pause, count + 1)

    def _cloud_refused(self, vm: Vm, error: CloudError, *, builds: bool) -> None:
        """A call to the cloud failed: hold what has the same cause, condemn nothing.

        Args:
            vm: of which VM.
            error: what the cloud said.
            builds: whether it was asked for a server. A server that may not be deleted or rebuilt,
                say since somebody has locked it, is no reason to build no others.
        """
        self.again(vm, pace.BACKOFF_FIRST, pace.BACKOFF_MAX)
        if builds:
            self._recorder.build_refused(vm, error)
        match error:
            case CredentialsRefused():
                self._setbacks.refused("", error.reason, str(error))
            case ZoneClosed():
                self._setbacks.refused(vm.zone, error.reason, str(error))
            case CapacityRefused():
                self._no_room(vm, error.reason, str(error))
            case RequestRejected() | DependencyMissing() if builds:
                self._recipe.doubt()
                self._setbacks.refused("", error.reason, str(error))
            case _:
                log.info("VM %s: %s", vm.ref, error)
                self._setbacks.fault(error.reason, str(error))

    async def _build_failed(self, vm: Vm, failure: BuildFailed) -> None:
        """A server failed: the WarmVM goes, and the pool holds or slows down."""
        log.warning("VM %s failed: %s: %s", vm.ref, failure.reason, failure)
        self._recorder.build_failed(vm, failure.reason, str(failure), failure.kind)
        ends = f"; its console ends: {failure.console[-CONSOLE_SHOWN:]}" if failure.console else ""
        self.tell(failure.reason, f"VM {vm.ref.name} failed: {failure}{ends}")
        if failure.kind is FaultClass.CAPACITY:
            self._no_room(vm, failure.reason, str(failure))
        elif self._surveyor.failed(vm) and failure.kind is FaultClass.HOSTS:
            self._setbacks.fault(failure.reason, str(failure))
        else:
            self._setbacks.failed(failure.reason, str(failure))
        try:
            await self._executor.fail(vm, failure, self._keep_until(vm, failure))
        except ClusterError as error:
            log.info("the failure of VM %s is not written down: %s", vm.ref, error)
            self.again(vm, CLUSTER_RETRY, timedelta(seconds=10))

    def _keep_until(self, vm: Vm, failure: BuildFailed) -> datetime | None:
        """Until when a failed build is kept that has a server to look at."""
        pool = self._store.pool(self._ref)
        kept = sum(other.keep_until is not None for other in self._store.vms_of(self._ref))
        if pool is None or failure.server is None or kept >= PRESERVED_AT_MOST:
            return None
        return keep_until(vm, pool.preserve, self._clock.now())

    def _no_room(self, vm: Vm, reason: Reason, message: str) -> None:
        """What was refused for want of room: on one hypervisor, or anywhere that Nova looked."""
        if reason is Reason.NO_VALID_HOST and self._surveyor.failed(vm):
            self._setbacks.fault(reason, message)
        else:
            self._setbacks.refused(vm.zone, reason, message)

    def succeeded(self, vm: Vm) -> None:
        """A build came to its end."""
        self._surveyor.worked(vm)
        self._setbacks.succeeded(vm.uid, vm.zone)
        self._memory.retries.pop(vm.uid, None)
        self._memory.rebuilt.pop(vm.uid, None)
        self._memory.recycling.discard(vm.uid)
