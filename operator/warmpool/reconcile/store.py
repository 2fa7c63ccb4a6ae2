"""What this replica knows of the objects. Every replica keeps it current: a hot standby.

Fed from three sides: the watch, the answers to our own writes (so that nobody waits for the watch
to repeat them), and a LIST now and then (after a 410 kopf does not tell which objects vanished).
An object is only ever replaced by a newer version of itself.

Over it lie the bindings that are committed and not yet seen on the WarmVMs: a late event that still
shows a VM free does not make it free.

All methods are synchronous: between two awaits of the caller the store does not change.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from warmpool.api.names import ClaimPhase, Kind, Phase
from warmpool.api.v1alpha1.claim import VMClaimStatus
from warmpool.domain.cloud import Place
from warmpool.domain.errors import Unreadable, WentBack
from warmpool.domain.facts import Claim, Pool, Vm
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.planning.stock import Shelf
from warmpool.ports.cluster import Body, Snapshot
from warmpool.reconcile.flavors import Flavors
from warmpool.reconcile.namespaces import Namespaces
from warmpool.reconcile.reading import read_claim, read_pool, read_vm
from warmpool.reconcile.table import Table, ref_of
from warmpool.reconcile.unread import Unread


@dataclass(frozen=True, slots=True)
class Change:
    """Something changed, and what it concerns."""

    kind: Kind
    pool: Ref | None = None
    claim: ClaimUid | None = None
    vm: VmUid | None = None


Listener = Callable[[Change], None]


def _age(vm: Vm) -> tuple[datetime, Ref]:
    """By what VMs of a place are sorted. No two have the same name."""
    return (vm.ready_at or vm.created, vm.ref)


@dataclass(slots=True)
class _Free:
    """The free VMs of one pool, by place, and their counts as the planner wants them."""

    places: dict[Place, list[Vm]] = field(default_factory=dict)
    """The longest ready first."""
    shelf: Shelf = field(default_factory=Shelf)

    def add(self, vm: Vm) -> None:
        here = self.places.setdefault(vm.place, [])
        at = bisect_left(here, _age(vm), key=_age)
        if at == len(here) or here[at].uid != vm.uid:
            here.insert(at, vm)
            self.shelf.add(vm.place)

    def oldest(self, place: Place, count: int) -> list[Vm]:
        """So many of the VMs at a place, the longest ready first."""
        return self.places.get(place, [])[:count]

    def remove(self, vm: Vm) -> None:
        here = self.places[vm.place]
        gone = here.pop(bisect_left(here, _age(vm), key=_age))
        assert gone.uid == vm.uid, "its age has changed where it stood"  # noqa: S101
        self.shelf.take(vm.place)
        if not here:
            del self.places[vm.place]


class Store:
    """Pools, claims and VMs, and what of the VMs is free."""

    def __init__(self) -> None:
        self._pools: Table[Pool] = Table()
        self._claims: Table[Claim] = Table()
        self._vms: Table[Vm] = Table()
        self._tables: Mapping[Kind, Table[Any]] = {
            Kind.WARM_POOL: self._pools,
            Kind.VM_CLAIM: self._claims,
            Kind.WARM_VM: self._vms,
        }
        self._forget: Mapping[Kind, Callable[[Any], None]] = {
            Kind.WARM_POOL: self._forget_pool,
            Kind.VM_CLAIM: self._forget_claim,
            Kind.WARM_VM: self._forget_vm,
        }
        self._unread = Unread()
        self._claim_by_uid: dict[ClaimUid, Claim] = {}
        self._open_claims: dict[ClaimUid, Claim] = {}
        self._vm_by_uid: dict[VmUid, Vm] = {}
        self._of_pool: dict[Ref, dict[VmUid, Vm]] = defaultdict(dict)
        self._of_claim: dict[ClaimUid, set[VmUid]] = defaultdict(set)
        self._committed: dict[VmUid, ClaimUid] = {}
        self._stock_versions: Counter[Ref] = Counter()
        self._namespaces = Namespaces()
        self._withheld: set[VmUid] = set()
        self._doubted: set[VmUid] = set()
        self._free: dict[Ref, _Free] = defaultdict(_Free)
        self._listeners: list[Listener] = []
        self.flavors = Flavors()
        """The catalogue, as far as it is kept in VMFlavors."""

    # -- reading ------------------------------------------------------------------------------

    def pools(self) -> Iterator[Pool]:
        return iter(list(self._pools.by_ref.values()))

    def pool(self, ref: Ref) -> Pool | None:
        return self._pools.by_ref.get(ref)

    def claims(self) -> Iterator[Claim]:
        return iter(list(self._claims.by_ref.values()))

    def open_claims(self) -> list[Claim]:
        """Claims that the binder may have to do something about.

        Of one whose newest version cannot be read nobody knows what it wants, or has.
        """
        return [c for c in self._open_claims.values() if c.uid not in self._unread]

    def claim(self, uid: ClaimUid) -> Claim | None:
        return self._claim_by_uid.get(uid)

    def vm(self, uid: VmUid) -> Vm | None:
        return self._vm_by_uid.get(uid)

    def vms(self) -> Iterator[Vm]:
        return iter(list(self._vm_by_uid.values()))

    def vms_of(self, pool: Ref) -> list[Vm]:
        """All VMs of a pool, whatever their state."""
        return list(self._of_pool.get(pool, {}).values())

    def vms_by_uid(self, pool: Ref) -> Mapping[VmUid, Vm]:
        """The same, by uid: the live index, which changes with the store."""
        return self._of_pool.get(pool, {})

    def size(self, pool: Ref) -> int:
        """How many VMs a pool has, whatever their state."""
        return len(self._of_pool.get(pool, ()))

    def has_vm(self, ref: Ref) -> bool:
        """Whether there is a WarmVM of this name."""
        return ref in self._vms.by_ref

    def vms_of_claim(self, claim: ClaimUid) -> list[Vm]:
        """VMs whose claimRef names this claim."""
        return [self._vm_by_uid[uid] for uid in self._of_claim.get(claim, ())]

    def owner(self, vm: Vm) -> ClaimUid | None:
        """Whose a VM is: by a committed binding, or by its claimRef."""
        committed = self._committed.get(vm.uid)
        if committed is not None:
            return committed
        return None if vm.claim is None else ClaimUid(vm.claim.uid)

    def counts(self, pool: Ref) -> Shelf:
        """Free VMs of a pool per place. It is the live index: it changes with the store."""
        return self._free[pool].shelf

    def oldest(self, pool: Ref, place: Place, count: int) -> list[Vm]:
        """So many free VMs of a pool at a place, the longest ready first."""
        return self._free[pool].oldest(place, count)

    def stock_version(self, pool: Ref) -> int:
        """A number that changes whenever the free VMs of a pool do."""
        return self._stock_versions[pool]

    @property
    def namespace_labels(self) -> Mapping[str, Mapping[str, str]]:
        """Labels of the namespaces that are known."""
        return self._namespaces.labels

    # -- committed bindings -------------------------------------------------------------------

    def commit(self, vm: VmUid, claim: ClaimUid) -> None:
        """A binding is decided: from here on the VM is not free, whatever the watch says."""
        if self._committed.get(vm) == claim:
            return
        known = self._vm_by_uid.get(vm)
        if known is not None and self._is_free(known):
            self._unshelve(known)
        self._committed[vm] = claim
        self._tell_of(known)

    def uncommit(self, vm: VmUid, claim: ClaimUid) -> None:
        """The claim's binding stands on the VM itself now, or is off: from here on the VM speaks.

        Nothing happens if the VM is another claim's by now.
        """
        if self._committed.get(vm) != claim:
            return
        del self._committed[vm]
        known = self._vm_by_uid.get(vm)
        if known is not None and self._is_free(known):
            self._shelve(known)
        self._tell_of(known)

    def is_committed(self, vm: VmUid) -> bool:
        """A binding of it stands in the ledger."""
        return vm in self._committed

    def withhold(self, vm: VmUid) -> bool:
        """Keep a VM from claims, because it is about to go; False if it is somebody's already."""
        known = self._vm_by_uid.get(vm)
        if known is None or known.claim is not None or vm in self._committed:
            return False
        if self._is_free(known):
            self._unshelve(known)
        self._withheld.add(vm)
        self._tell_of(known)
        return True

    def is_withheld(self, vm: VmUid) -> bool:
        """It is kept from claims, because it is about to go."""
        return vm in self._withheld

    def put_back(self, vm: VmUid) -> None:
        """It stays after all."""
        self._withheld.discard(vm)
        known = self._vm_by_uid.get(vm)
        if known is not None and self._is_free(known):
            self._shelve(known)
        self._tell_of(known)

    def doubt(self, vm: VmUid) -> None:
        """A ready VM seems not to work: no claim gets it, before anything is written down."""
        known = self._vm_by_uid.get(vm)
        if known is not None and vm not in self._doubted:
            if self._is_free(known):
                self._unshelve(known)
            self._doubted.add(vm)
            self._tell_of(known)

    def trust(self, vm: VmUid) -> None:
        """Its phase speaks for itself again."""
        if vm in self._doubted:
            self._doubted.discard(vm)
            known = self._vm_by_uid.get(vm)
            if known is not None and self._is_free(known):
                self._shelve(known)
            self._tell_of(known)

    def forget_commitments(self) -> None:
        """Leadership is over: what was decided and not written down here is another's now."""
        for vm, claim in list(self._committed.items()):
            self.uncommit(vm, claim)
        for vm in list(self._withheld):
            self.put_back(vm)
        for vm in list(self._doubted):
            self.trust(vm)

    # -- feeding ------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call on each change; the answer is what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def apply(self, kind: Kind, body: Body, *, deleted: bool = False) -> None:
        """Take in one object as a watch event or the answer to a write shows it.

        One that cannot be read is told and left out: what was read of it before stands, but for
        that it is free. It may have been bound since by who can read it.
        """
        if deleted and kind in self._tables:
            self._drop(kind, body)
            return
        try:
            self._read(kind, body, deleted=deleted)
        except Unreadable as error:
            with self._shelf_follows(body["metadata"]["uid"]):
                self._unread.add(kind, body, error)
            self._replaced(kind, body)
        else:
            self._understood(body)

    def told(self, claim: Claim, status: VMClaimStatus, answer: Body) -> None:
        """Take in a claim by the metadata that a write of its whole status was answered with.

        What is not in those is as we read it before and wrote it now, unless somebody has changed
        the spec meanwhile, or begun to delete it: then its generation is another, and the watch,
        which shows all of it, is waited for.
        """
        meta = answer["metadata"]
        if meta["generation"] == claim.generation and not self.is_unread(claim.uid):
            version = int(meta["resourceVersion"])
            self._apply_claim(replace(claim, version=version, status=status))

    def knows(self, kind: Kind, body: Body) -> bool:
        """Whether this version of an object, or a newer one, has been taken in.

        `apply` of it would change nothing then. May be asked in any thread.
        """
        return kind in (Kind.WARM_VM, Kind.VM_CLAIM) and self._tables[kind].is_old(body)

    def is_unread(self, uid: str) -> bool:
        """There is such an object, though it cannot be read: nobody may take it for gone."""
        return uid in self._unread

    def newest(self, kind: Kind) -> int:
        """The highest resourceVersion that was seen of a kind."""
        return self.flavors.newest if kind is Kind.VM_FLAVOR else self._tables[kind].newest

    @property
    def newest_namespace(self) -> int:
        """The highest resourceVersion that was seen of a namespace."""
        return self._namespaces.newest

    def check_history(self, kind: Kind, bodies: Iterable[Body], version: int) -> None:
        """See whether objects of a LIST of that version are what may have become of those we know.

        Raises:
            WentBack: they are of a history that is not ours.
        """
        if kind is Kind.VM_FLAVOR:
            return
        table = self._tables[kind]
        odd = (body for body in bodies if table.contradicts(body, version))
        if not all(self.is_unread(body["metadata"]["uid"]) for body in odd):
            raise WentBack(f"the API server shows {kind.plural} older than before")

    def miss(self, kind: Kind, snapshot: Snapshot) -> int:
        """Forget what a LIST does not show, whose objects have all been taken in.

        Returns:
            The number of objects that had vanished without our hearing of it.
        """
        if kind is Kind.VM_FLAVOR:
            return self.flavors.reconcile(snapshot)
        if kind not in self._tables:
            return 0
        seen = [ref_of(body) for body in snapshot.items]
        lost = self._tables[kind].vanished(seen, snapshot.version)
        for item in lost:
            self._forget[kind](item)
        for uid in self._unread.missed(kind, snapshot.items, snapshot.version):
            with self._shelf_follows(uid):
                self._unread_is_gone(kind, uid)
        return len(lost)

    def apply_namespace(self, body: Body, *, deleted: bool = False) -> None:
        """Take in one namespace as a watch event shows it."""
        if self._namespaces.apply(body, deleted=deleted):
            self._tell(Change(Kind.VM_CLAIM))

    def apply_namespaces(self, snapshot: Snapshot) -> None:
        """Take in a LIST of namespaces, and forget what it does not show.

        Raises:
            WentBack: it is of a history that is not ours.
        """
        if self._namespaces.reconcile(snapshot):
            self._tell(Change(Kind.VM_CLAIM))

    # -- inside -------------------------------------------------------------------------------

    def _is_free(self, vm: Vm) -> bool:
        return (
            vm.phase is Phase.READY
            and vm.claim is None
            and vm.last_claim is None  # else somebody has taken its claimRef off by hand
            and not vm.retained
            and not vm.deleting
            and vm.uid not in self._committed
            and vm.uid not in self._withheld
            and vm.uid not in self._doubted
            and vm.uid not in self._unread
        )

    @contextmanager
    def _shelf_follows(self, uid: str) -> Iterator[None]:
        """Whatever happens to a VM's being readable in here is seen in what is free."""
        vm = self._vm_by_uid.get(VmUid(uid))
        was = vm is not None and self._is_free(vm)
        yield
        if vm is None or self._is_free(vm) is was:
            return
        if was:
            self._unshelve(vm)
        else:
            self._shelve(vm)
        self._tell_of(vm)

    def _shelve(self, vm: Vm) -> None:
        self._free[vm.pool].add(vm)
        self._stock_versions[vm.pool] += 1

    def _unshelve(self, vm: Vm) -> None:
        self._free[vm.pool].remove(vm)
        self._stock_versions[vm.pool] += 1

    def _tell_of(self, vm: Vm | None) -> None:
        if vm is not None:
            self._tell(Change(Kind.WARM_VM, vm.pool, self.owner(vm), vm.uid))

    def _tell(self, change: Change) -> None:
        for listener in self._listeners:
            listener(change)

    def _read(self, kind: Kind, body: Body, *, deleted: bool) -> None:
        match kind:
            case Kind.WARM_VM if not self._vms.is_old(body):
                self._apply_vm(read_vm(body))
            case Kind.VM_CLAIM if not self._claims.is_old(body):
                self._apply_claim(read_claim(body))
            case Kind.WARM_POOL:
                self._apply_pool(read_pool(body))
            case Kind.VM_FLAVOR:
                self.flavors.apply(body, deleted=deleted)
            case _:  # the ledger, which has a keeper of its own, and what is known already
                pass

    def _drop(self, kind: Kind, body: Body) -> None:
        held = self._tables[kind].drop(body)
        if held is not None:
            self._forget[kind](held)
        self._unread_is_gone(kind, body["metadata"]["uid"])

    def _unread_is_gone(self, kind: Kind, uid: str) -> None:
        """Who kept a claim's VMs since it could not be read is told that it has ended."""
        if self.is_unread(uid):
            self._unread.gone(uid)
            if kind is Kind.VM_CLAIM:
                self._tell(Change(kind, claim=ClaimUid(uid)))

    def _understood(self, body: Body) -> None:
        uid = body["metadata"]["uid"] if self._unread else ""
        if self.is_unread(uid):
            with self._shelf_follows(uid):
                self._unread.read(body)

    def _replaced(self, kind: Kind, body: Body) -> None:
        """What bore this name before is gone, though what bears it now cannot be read."""
        meta = body["metadata"]
        held = self._tables[kind].by_ref.get(ref_of(body)) if kind in self._tables else None
        is_newer = held is not None and held.version < int(meta["resourceVersion"])
        if held is not None and is_newer and held.uid != meta["uid"]:
            self._forget[kind](held)

    def _apply_vm(self, vm: Vm) -> None:
        old = self._vms.by_ref.get(vm.ref)
        if not self._vms.put(vm):
            return
        if old is not None and old.uid != vm.uid:
            self._forget_vm(old)
            self._vms.by_ref[vm.ref] = vm
        elif old is not None:
            self._unindex(old)
        self._index(vm)
        self._tell_of(vm)

    def _forget_vm(self, vm: Vm) -> None:
        owner = self.owner(vm)
        self._vms.by_ref.pop(vm.ref, None)
        self._unindex(vm)
        self._committed.pop(vm.uid, None)
        self._withheld.discard(vm.uid)
        self._doubted.discard(vm.uid)
        self._tell(Change(Kind.WARM_VM, vm.pool, owner, vm.uid))

    def _index(self, vm: Vm) -> None:
        self._vm_by_uid[vm.uid] = vm
        self._of_pool[vm.pool][vm.uid] = vm
        if vm.claim is not None:
            self._of_claim[ClaimUid(vm.claim.uid)].add(vm.uid)
        if self._is_free(vm):
            self._shelve(vm)

    def _unindex(self, vm: Vm) -> None:
        if self._is_free(vm):
            self._unshelve(vm)
        del self._vm_by_uid[vm.uid]
        del self._of_pool[vm.pool][vm.uid]
        if not self._of_pool[vm.pool]:
            del self._of_pool[vm.pool]
        if vm.claim is not None:
            self._of_claim[ClaimUid(vm.claim.uid)].discard(vm.uid)
            if not self._of_claim[ClaimUid(vm.claim.uid)]:
                del self._of_claim[ClaimUid(vm.claim.uid)]

    def _apply_claim(self, claim: Claim) -> None:
        old = self._claims.by_ref.get(claim.ref)
        if not self._claims.put(claim):
            return
        if old is not None and old.uid != claim.uid:
            self._forget_claim(old)
            self._claims.by_ref[claim.ref] = claim
        self._claim_by_uid[claim.uid] = claim
        if claim.phase is ClaimPhase.PENDING or claim.spec.replace_lost:
            self._open_claims[claim.uid] = claim
        else:
            self._open_claims.pop(claim.uid, None)
        self._tell(Change(Kind.VM_CLAIM, claim=claim.uid))

    def _forget_claim(self, claim: Claim) -> None:
        self._claims.by_ref.pop(claim.ref, None)
        self._claim_by_uid.pop(claim.uid, None)
        self._open_claims.pop(claim.uid, None)
        self._tell(Change(Kind.VM_CLAIM, claim=claim.uid))

    def _apply_pool(self, pool: Pool) -> None:
        if self._pools.put(pool):
            self._tell(Change(Kind.WARM_POOL, pool.ref))

    def _forget_pool(self, pool: Pool) -> None:
        self._pools.by_ref.pop(pool.ref, None)
        self._tell(Change(Kind.WARM_POOL, pool.ref))


by_age = attrgetter("created", "ref")
"""Sort key: the oldest object first."""
