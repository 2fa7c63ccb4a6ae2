"""Makes records of what the loops of a term decide, and hands them on. Never waits, never fails.

The loops call it in one line, right where a fact is settled. What a build's phases took is known to
this leader alone: a build that began under another one has a record without them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final

from warmpool.api.names import ClaimPhase, Reason
from warmpool.api.v1alpha1.ledger import LedgerEntry
from warmpool.domain.claims import Shortage
from warmpool.domain.cloud import FaultClass, Place, Server, ServerState
from warmpool.domain.errors import CloudError, OutcomeUnknown
from warmpool.domain.facts import Claim, Pool, Vm
from warmpool.domain.history import (
    AskRecord,
    BuildRecord,
    ClaimRecord,
    LeadershipRecord,
    Machine,
    Phases,
    Record,
    ReleaseRecord,
    RemovalRecord,
    Result,
)
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.planning.claims import demand_of
from warmpool.ports.clock import Clock
from warmpool.reconcile.store import Change, Store

Emit = Callable[[Record], None]
"""Takes a record over at once, whatever becomes of it."""


def unheard(_: Record) -> None:
    """Nobody wants the records."""


MAX_TEXT: Final = 1000
"""Characters of a message."""


class Mark(IntEnum):
    """Moments of a build, in their order."""

    CREATED = 0
    POSTING = 1
    POSTED = 2
    PLACED = 3
    ACTIVE = 4
    REACHED = 5


@dataclass(slots=True)
class _Timeline:
    """Moments of one build, on the monotonic clock."""

    marks: dict[Mark, float] = field(default_factory=dict)

    def phases(self, end: float, *, ready: bool) -> Phases:
        reached = self.marks.get(Mark.REACHED)
        return Phases(
            queued=self._between(Mark.CREATED, Mark.POSTING),
            post=self._between(Mark.POSTING, Mark.POSTED),
            scheduling=self._between(Mark.POSTED, Mark.PLACED),
            spawning=self._between(Mark.PLACED, Mark.ACTIVE),
            reachable=self._between(Mark.ACTIVE, Mark.REACHED),
            ready=_span(end - reached) if ready and reached is not None else None,
        )

    def _between(self, first: Mark, second: Mark) -> float | None:
        if first not in self.marks or second not in self.marks:
            return None
        return _span(self.marks[second] - self.marks[first])

    def took(self, end: float) -> float | None:
        began = self.marks.get(Mark.CREATED)
        return None if began is None else _span(end - began)


class Recorder:
    """Makes the records of one term of leadership."""

    def __init__(self, store: Store, clock: Clock, emit: Emit) -> None:
        self._store = store
        self._clock = clock
        self._emit = emit
        self._builds: dict[VmUid, _Timeline] = {}
        self._failures: Counter[Ref] = Counter()
        self._condemned: dict[VmUid, Reason] = {}
        self._seen: dict[ClaimUid, float] = {}

    # -- leadership ---------------------------------------------------------------------------

    def led(self, identity: str, epoch: int, since: float | None = None) -> None:
        """A leadership began; with `since`, on the monotonic clock, it has ended."""
        result = Result.BEGAN if since is None else Result.ENDED
        span = None if since is None else _span(self._clock.monotonic() - since)
        ident = f"leadership:{epoch}:{identity}:{result}"
        self._emit(LeadershipRecord(ident, self._now(), identity, epoch, result, span))

    def changed(self, change: Change) -> None:
        """Remember when a claim was first seen; forget what is gone."""
        if change.vm is not None:
            if self._store.vm(change.vm) is None:
                self._builds.pop(change.vm, None)
                self._condemned.pop(change.vm, None)
        elif change.claim is not None:
            claim = self._store.claim(change.claim)
            if claim is None:
                self._seen.pop(change.claim, None)
            elif claim.phase is ClaimPhase.PENDING:
                self._seen.setdefault(claim.uid, self._clock.monotonic())

    # -- builds -------------------------------------------------------------------------------

    def mark(self, vm: VmUid, mark: Mark) -> None:
        """A build has come so far. Only the first time counts."""
        if mark is Mark.CREATED:
            self._builds[vm] = _Timeline()
        timeline = self._builds.get(vm)
        if timeline is not None:
            timeline.marks.setdefault(mark, self._clock.monotonic())

    def saw(self, vm: VmUid, server: Server) -> None:
        """The server of a VM, as it is now."""
        timeline = self._builds.get(vm)
        if timeline is None or Mark.ACTIVE in timeline.marks:
            return
        active = server.state is ServerState.ACTIVE
        if active or server.host or server.host_id:
            self.mark(vm, Mark.PLACED)
        if active:
            self.mark(vm, Mark.ACTIVE)

    def built(self, pool: Pool, vm: Vm) -> None:
        """A VM is ready."""
        self._build(pool, vm, Result.READY)
        self._failures.pop(pool.ref, None)

    def build_failed(
        self, vm: Vm, reason: Reason, message: str, kind: FaultClass = FaultClass.VM
    ) -> None:
        """A server came to nothing."""
        self._not_built(vm, Result.FAILED, (reason, message, kind))

    def build_refused(self, vm: Vm, error: CloudError) -> None:
        """The cloud took no server, if that is certain. The WarmVM stays, and is tried again."""
        if not isinstance(error, OutcomeUnknown):
            why = (error.reason, str(error), FaultClass.CAPACITY)
            self._not_built(vm, Result.REFUSED, why)

    def _not_built(self, vm: Vm, result: Result, why: tuple[Reason, str, FaultClass]) -> None:
        pool = self._store.pool(vm.pool)
        if pool is not None:
            self._build(pool, vm, result, why)
            self._failures[pool.ref] += 1

    def _build(
        self,
        pool: Pool,
        vm: Vm,
        result: Result,
        why: tuple[Reason, str, FaultClass] | None = None,
    ) -> None:
        now, end = self._now(), self._clock.monotonic()
        again = result is Result.REFUSED
        timeline = self._builds.get(vm.uid) if again else self._builds.pop(vm.uid, None)
        timeline = timeline or _Timeline()
        self._emit(
            BuildRecord(
                id=f"build:{vm.uid}:{int(now.timestamp() * 1000)}",
                at=now,
                vm=_machine(vm, pool),
                image=_image(pool),
                result=result,
                attempt=self._failures[pool.ref] + 1,
                took=timeline.took(end),
                reason=why[0] if why is not None else None,
                message=why[1][:MAX_TEXT] if why is not None else "",
                blame=why[2].name.lower() if why is not None else "",
                phases=timeline.phases(end, ready=result is Result.READY),
            )
        )

    # -- leaving a pool -----------------------------------------------------------------------

    def condemned(self, vm: VmUid, why: Reason) -> None:
        """A VM is about to be deleted, and why."""
        self._condemned[vm] = why

    def goes(self, vm: Vm) -> None:
        """A VM is being deleted: if it stood ready, its pool has lost it."""
        if vm.ready_at is not None and vm.claim is None and not vm.retained:
            self._removed(vm, self._condemned.get(vm.uid, Reason.DELETING))

    def _removed(self, vm: Vm, why: Reason, claim: Claim | None = None) -> None:
        now = self._now()
        uid = "" if claim is None else claim.uid
        self._emit(
            RemovalRecord(
                id=f"removal:{vm.uid}:{uid}",
                at=now,
                vm=_machine(vm, self._store.pool(vm.pool)),
                why=why,
                claim=None if claim is None else claim.ref,
                claim_uid=uid,
                stood=None if vm.ready_at is None else _span((now - vm.ready_at).total_seconds()),
            )
        )

    def released(self, vm: Vm) -> None:
        """A claim has ended, and gives this VM back."""
        claim = vm.claim
        if claim is not None:
            self._emit(
                ReleaseRecord(
                    id=f"release:{vm.uid}:{claim.uid}",
                    at=self._now(),
                    vm=_machine(vm, self._store.pool(vm.pool)),
                    claim=Ref(claim.namespace, claim.name),
                    claim_uid=claim.uid,
                    policy=vm.reclaim.value,
                )
            )

    # -- claims -------------------------------------------------------------------------------

    def bound(self, claim: Claim, entry: LedgerEntry, placed: str) -> None:
        """A claim is Bound, or has got substitutes."""
        if claim.status.allocation is None:
            self._answered(claim, Result.BOUND, Reason.BOUND, placed)
        for each in entry.vms:
            vm = self._store.vm(VmUid(each.uid))
            if vm is not None:
                self._removed(vm, Reason.BOUND, claim)

    def refused(self, claim: Claim, shortage: Shortage) -> None:
        """A claim got nothing."""
        self._answered(claim, Result.REFUSED, shortage.reason, shortage.message)

    def _answered(self, claim: Claim, result: Result, reason: Reason, message: str) -> None:
        now = self._now()
        seen = self._seen.get(claim.uid)
        wait = (
            self._clock.monotonic() - seen
            if seen is not None
            else (now - claim.created).total_seconds()
        )
        self._emit(
            ClaimRecord(
                id=f"claim:{claim.uid}",
                at=now,
                claim=claim.ref,
                uid=claim.uid,
                asks=tuple(AskRecord(a.name, a.pool, a.count) for a in demand_of(claim).asks),
                mode=claim.spec.mode.value,
                on_unsatisfied=claim.spec.on_unsatisfied.value,
                result=result,
                reason=reason,
                message=message[:MAX_TEXT],
                wait=_span(wait),
                waited=claim.status.shortfall is not None,
            )
        )

    # -- inside -------------------------------------------------------------------------------

    def _now(self) -> datetime:
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _machine(vm: Vm, pool: Pool | None) -> Machine:
    place = vm.place
    if not place.zone and vm.zone:
        place = Place(place.region, vm.zone, place.rack, place.hypervisor or vm.aim)
    return Machine(
        uid=vm.uid,
        ref=vm.ref,
        pool=vm.pool,
        server=vm.server or "",
        flavor=pool.spec.template.flavor_called if pool is not None else "",
        place=place,
    )


def _image(pool: Pool) -> str:
    """The image by the template's own word, or the id of the one that the catalogue came to."""
    resolved = pool.status.resolved
    return pool.spec.template.image or (resolved.image_id if resolved is not None else "")


def _span(seconds: float) -> float:
    """Not below zero (wall clocks may be set back), in whole milliseconds."""
    return round(max(0.0, seconds), 3)
