"""What a replica knows of the objects, whatever the order in which it hears of them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builders import POOL, a_claim_body, a_place, a_pool_body, a_vm, a_vm_body, after
from warmpool.api.names import ClaimPhase, Kind
from warmpool.api.v1alpha1.claim import VMClaimStatus
from warmpool.api.v1alpha1.ledger import LedgerClaim, LedgerEntry, LedgerVM
from warmpool.domain.cloud import Place
from warmpool.domain.errors import WentBack
from warmpool.domain.facts import Claim
from warmpool.domain.ids import ClaimUid, Ref, VmUid
from warmpool.ports.cluster import Body, Snapshot
from warmpool.reconcile.store import Store
from warmpool.reconcile.writing import bound_status, dump

VM1 = VmUid("vm-1")
LOGS = ClaimUid("uid-of-logs")
OTHER = ClaimUid("uid-of-other")


def a_store(*vms: Mapping[str, Any]) -> Store:
    store = Store()
    for vm in vms:
        store.apply(Kind.WARM_VM, vm)
    return store


def listed(version: int, *bodies: Mapping[str, Any]) -> Snapshot:
    return Snapshot(tuple(bodies), version)


def free(store: Store) -> dict[Place, int]:
    return dict(store.counts(POOL))


def test_a_vm_that_is_kept_is_nobodys_to_have() -> None:
    assert free(a_store(a_vm_body(retained=True))) == {}


# --- versions -------------------------------------------------------------------------------


def compared(store: Store, listed: Snapshot, kind: Kind = Kind.WARM_VM) -> int:
    """Take in a LIST; how many had vanished."""
    store.check_history(kind, listed.items, listed.version)
    for body in listed.items:
        store.apply(kind, body)
    return store.miss(kind, listed)


def test_an_older_version_of_an_object_changes_nothing() -> None:
    store = a_store(a_vm_body(version=5), a_vm_body(version=4, phase="Building"))
    assert free(store) == {a_place(): 1}


def test_an_event_that_comes_twice_counts_once() -> None:
    assert free(a_store(a_vm_body(version=5), a_vm_body(version=5))) == {a_place(): 1}


def test_a_vm_that_moves_counts_at_its_new_place() -> None:
    store = a_store(a_vm_body(version=5), a_vm_body(version=6, place=a_place(2)))
    assert free(store) == {a_place(2): 1}


def test_a_list_that_shows_an_object_as_it_was_long_ago_is_of_another_history() -> None:
    """It was restored from a backup, with revisions that go on where the lost ones ended."""
    store = a_store(a_vm_body(version=50))
    with pytest.raises(WentBack):
        compared(store, listed(1000, a_vm_body(version=7)))


def test_so_is_one_that_shows_what_an_earlier_one_had_shown_to_be_gone() -> None:
    store = a_store(a_vm_body(version=5))
    compared(store, listed(20))
    with pytest.raises(WentBack):
        compared(store, listed(1000, a_vm_body(version=5)))


def test_a_list_that_is_behind_the_watch_is_not() -> None:
    store = a_store(a_vm_body(version=50))
    assert compared(store, listed(40, a_vm_body(version=7))) == 0


def test_nor_is_one_that_comes_after_a_later_one_or_after_the_end_of_what_it_shows() -> None:
    store = a_store(a_vm_body(version=5))
    compared(store, listed(20, a_vm_body(version=5)))
    store.apply(Kind.WARM_VM, a_vm_body(version=25), deleted=True)
    compared(store, listed(22, a_vm_body(version=5)))
    compared(store, listed(30))
    compared(store, listed(23, a_vm_body(version=5)))
    assert store.vm(VM1) is None


def test_the_newest_version_of_a_kind_is_known_whatever_showed_it() -> None:
    store = a_store(a_vm_body(version=5))
    assert (store.newest(Kind.WARM_VM), store.newest(Kind.VM_CLAIM)) == (5, 0)
    store.apply(Kind.WARM_VM, a_vm_body(version=9), deleted=True)
    assert store.newest(Kind.WARM_VM) == 9
    compared(store, listed(12))
    assert store.newest(Kind.WARM_VM) == 12


def test_a_late_event_about_a_deleted_object_does_not_bring_it_back() -> None:
    store = a_store(a_vm_body(version=5))
    store.apply(Kind.WARM_VM, a_vm_body(version=9), deleted=True)
    store.apply(Kind.WARM_VM, a_vm_body(version=8))
    assert store.vm(VM1) is None
    assert free(store) == {}


def test_a_late_deletion_of_a_former_object_leaves_its_successor() -> None:
    store = a_store(a_vm_body(version=5, uid="old"), a_vm_body(version=8, uid="new"))
    store.apply(Kind.WARM_VM, a_vm_body(version=7, uid="old"), deleted=True)
    assert store.vm(VmUid("new")) is not None
    assert free(store) == {a_place(): 1}


def test_a_successor_of_the_same_name_takes_nothing_over() -> None:
    store = a_store(a_vm_body(version=5, uid="old"))
    store.commit(VmUid("old"), LOGS)
    store.apply(Kind.WARM_VM, a_vm_body(version=8, uid="new"))
    assert store.vm(VmUid("old")) is None
    assert not store.is_committed(VmUid("old"))
    assert free(store) == {a_place(): 1}


def test_a_claim_of_the_same_name_is_another_claim() -> None:
    store = Store()
    store.apply(Kind.VM_CLAIM, a_claim_body(version=5, uid="old"))
    store.apply(Kind.VM_CLAIM, a_claim_body(version=8, uid="new"))
    assert store.claim(ClaimUid("old")) is None
    assert [c.uid for c in store.claims()] == ["new"]
    assert [c.uid for c in store.open_claims()] == ["new"]


def test_what_a_list_does_not_show_has_vanished() -> None:
    store = a_store(a_vm_body(1, version=5), a_vm_body(2, version=6))
    assert compared(store, listed(9, a_vm_body(2, version=6))) == 1
    assert [vm.uid for vm in store.vms()] == ["vm-2"]


def test_what_is_newer_than_a_list_has_not_vanished() -> None:
    store = a_store(a_vm_body(version=10))
    assert compared(store, listed(9)) == 0
    assert store.vm(VM1) is not None


def test_an_echo_from_before_a_list_does_not_bring_back_what_it_showed_to_be_gone() -> None:
    store = a_store(a_vm_body(version=5))
    compared(store, listed(9))
    store.apply(Kind.WARM_VM, a_vm_body(version=6))
    assert store.vm(VM1) is None
    store.apply(Kind.WARM_VM, a_vm_body(version=10, uid="new"))
    assert store.vm(VmUid("new")) is not None


@pytest.mark.parametrize(
    ("kind", "body"),
    [(Kind.WARM_POOL, a_pool_body(version=5)), (Kind.VM_CLAIM, a_claim_body(version=5))],
)
def test_pools_and_claims_come_vanish_and_are_deleted_too(
    kind: Kind, body: Mapping[str, Any]
) -> None:
    store = Store()
    known = lambda: [*store.pools(), *store.claims()]  # noqa: E731
    store.apply(kind, body)
    assert len(known()) == 1
    assert compared(store, listed(9), kind) == 1
    assert not known()
    again = {**body, "metadata": {**body["metadata"], "resourceVersion": "12", "uid": "again"}}
    store.apply(kind, again)
    assert len(known()) == 1
    store.apply(kind, again, deleted=True)
    store.apply(kind, again, deleted=True)
    assert not known()


def a_store_of_claims(*claims: Mapping[str, Any]) -> Store:
    store = Store()
    for claim in claims:
        store.apply(Kind.VM_CLAIM, claim)
    return store


def the_claim(store: Store) -> Claim:
    claim = store.claim(LOGS)
    assert claim is not None
    return claim


def a_bound(claim: Claim) -> VMClaimStatus:
    """What is written on a claim that gets one VM for an hour, fractions of seconds and all."""
    entry = LedgerEntry(
        claim=LedgerClaim(namespace=claim.ref.namespace, name=claim.ref.name, uid=claim.uid),
        bound_at=after(0.123456),
        vms=[LedgerVM(namespace=POOL.namespace, name="vm-1", uid=VM1, request="data")],
    )
    return bound_status(claim, entry, {VM1: a_vm()}, timedelta(hours=1))


def test_a_claim_that_is_told_by_its_metadata_is_what_the_api_server_has() -> None:
    told, read = (a_store_of_claims(a_claim_body(version=1)) for _ in range(2))
    claim = the_claim(told)
    status = a_bound(claim)
    written = a_claim_body(version=2, status=dump(status))
    told.told(claim, status, {"metadata": written["metadata"]})
    read.apply(Kind.VM_CLAIM, written)
    assert told.claim(LOGS) == read.claim(LOGS)
    assert told.claim(LOGS) != claim
    assert told.knows(Kind.VM_CLAIM, written), "so the watch only repeats it"


GOING: Final = {"deletionTimestamp": after(0).isoformat()}


@pytest.mark.parametrize(
    ("spec", "meta"), [({"priority": 7}, {}), ({}, GOING)], ids=["changed", "being deleted"]
)
def test_of_one_that_was_changed_meanwhile_the_watch_is_waited_for(
    spec: dict[str, Any], meta: dict[str, Any]
) -> None:
    """The API server gives it another generation for either."""
    store = a_store_of_claims(a_claim_body(version=1))
    claim = the_claim(store)
    status = a_bound(claim)
    written = a_claim_body(version=3, status=dump(status), meta={"generation": 2, **meta}, **spec)
    store.told(claim, status, {"metadata": written["metadata"]})
    assert not store.knows(Kind.VM_CLAIM, written)
    store.apply(Kind.VM_CLAIM, written)
    now = the_claim(store)
    assert (now.spec.priority, now.deleting) == (spec.get("priority", 0), bool(meta))
    assert now.status == status


def test_what_is_told_late_takes_nothing_back() -> None:
    store = a_store_of_claims(a_claim_body(version=1))
    claim = the_claim(store)
    store.apply(Kind.VM_CLAIM, a_claim_body(version=3, status={"phase": "Released"}))
    store.told(claim, a_bound(claim), {"metadata": a_claim_body(version=2)["metadata"]})
    assert the_claim(store).phase is ClaimPhase.RELEASED


def test_a_ledger_is_none_of_the_stores_business() -> None:
    store = Store()
    store.apply(Kind.BINDING_LEDGER, {})
    assert store.miss(Kind.BINDING_LEDGER, listed(9)) == 0


# --- what cannot be read --------------------------------------------------------------------


def unreadable(version: int, uid: str = "vm-1") -> dict[str, Any]:
    body = dict(a_vm_body(version=version, uid=uid))
    return body | {"spec": "what a newer operator writes"}


def test_what_was_read_of_an_object_stands_while_it_cannot_be_read() -> None:
    store = a_store(a_vm_body(version=5), unreadable(6))
    assert store.vm(VM1) is not None
    assert store.is_unread("vm-1")
    assert compared(store, listed(9, unreadable(6))) == 0
    assert store.vm(VM1) is not None
    store.apply(Kind.WARM_VM, a_vm_body(version=10))
    assert not store.is_unread("vm-1")


def test_a_vm_that_cannot_be_read_is_nobodys_to_have_until_it_can() -> None:
    """A newer operator's leader may have bound it. What was read of it said that it was free."""
    store, heard = a_store(a_vm_body(version=5)), []
    store.listen(heard.append)
    store.apply(Kind.WARM_VM, unreadable(7))
    assert free(store) == {}
    assert [change.vm for change in heard] == [VM1]
    store.apply(Kind.WARM_VM, a_vm_body(version=6))
    assert free(store) == {}, "what is older than the unread version says nothing"
    store.apply(Kind.WARM_VM, a_vm_body(version=5))
    assert free(store) == {}
    store.apply(Kind.WARM_VM, a_vm_body(version=8))
    assert free(store) == {a_place(): 1}


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "vanished"])
def test_one_that_ends_unread_leaves_nothing_behind(*, deleted: bool) -> None:
    store = a_store(a_vm_body(version=5), unreadable(6))
    if deleted:
        store.apply(Kind.WARM_VM, unreadable(7), deleted=True)
    else:
        compared(store, listed(9))
    assert not list(store.vms())
    assert not store.is_unread("vm-1")
    assert free(store) == {}


def test_what_bore_the_name_of_one_that_cannot_be_read_is_gone() -> None:
    store = a_store(a_vm_body(version=5, uid="old"), unreadable(8, "new"))
    assert not list(store.vms())
    assert free(store) == {}


def test_the_binder_leaves_a_claim_alone_that_cannot_be_read() -> None:
    store = Store()
    store.apply(Kind.VM_CLAIM, a_claim_body(version=5))
    (claim,) = store.open_claims()
    store.apply(Kind.VM_CLAIM, {**a_claim_body(version=6), "spec": "what a newer operator writes"})
    assert store.open_claims() == []
    assert store.claim(claim.uid) == claim
    store.apply(Kind.VM_CLAIM, a_claim_body(version=7))
    assert [c.uid for c in store.open_claims()] == [claim.uid]


def test_what_was_never_read_is_there_until_it_is_deleted_or_has_vanished() -> None:
    store = a_store(unreadable(5), unreadable(6, "other"))
    assert store.is_unread("vm-1")
    assert store.is_unread("other")
    store.apply(Kind.WARM_VM, unreadable(7), deleted=True)
    assert not store.is_unread("vm-1")
    compared(store, listed(9))
    assert not store.is_unread("other")
    store.apply(Kind.WARM_VM, unreadable(12))
    compared(store, listed(11))
    assert store.is_unread("vm-1"), "it is newer than the LIST"


def test_an_object_is_gone_when_it_is_deleted_though_it_cannot_be_read_by_then() -> None:
    store = a_store(a_vm_body(version=5))
    store.apply(Kind.WARM_VM, unreadable(6), deleted=True)
    assert not list(store.vms())


def test_an_object_that_cannot_be_read_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    store = a_store(unreadable(5), unreadable(5))
    compared(store, listed(9, unreadable(5)))
    (told,) = caplog.records
    who = f"WarmVM {POOL.namespace}/data-1 cannot be read, and is left alone: spec: Input should"
    assert told.message.startswith(who)


# --- what is free ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(a_vm_body(phase="Building"), id="building"),
        pytest.param(a_vm_body(claim="logs"), id="claimed"),
        pytest.param(a_vm_body(meta={"deletionTimestamp": after(0).isoformat()}), id="going"),
    ],
)
def test_only_ready_vms_that_are_nobodys_are_free(body: Mapping[str, Any]) -> None:
    assert free(a_store(body)) == {}


def test_a_committed_vm_is_not_free_whatever_the_watch_says() -> None:
    store = a_store(a_vm_body(version=5))
    store.commit(VM1, LOGS)
    store.apply(Kind.WARM_VM, a_vm_body(version=6))
    assert free(store) == {}
    vm = store.vm(VM1)
    assert vm is not None
    assert store.owner(vm) == LOGS


def test_a_binding_that_is_off_makes_the_vm_free_again() -> None:
    store = a_store(a_vm_body(version=5))
    store.commit(VM1, LOGS)
    store.uncommit(VM1, LOGS)
    assert free(store) == {a_place(): 1}


def test_a_binding_that_stands_on_the_vm_is_the_vms_own_word() -> None:
    store = a_store(a_vm_body(version=5))
    store.commit(VM1, LOGS)
    store.apply(Kind.WARM_VM, a_vm_body(version=6, claim="logs"))
    store.uncommit(VM1, LOGS)
    assert free(store) == {}
    assert [vm.uid for vm in store.vms_of_claim(LOGS)] == [VM1]


def test_a_vm_may_be_committed_before_it_is_seen() -> None:
    store = Store()
    store.commit(VM1, LOGS)
    store.apply(Kind.WARM_VM, a_vm_body())
    assert free(store) == {}


def test_a_withheld_vm_is_not_free_until_it_is_put_back() -> None:
    store = a_store(a_vm_body())
    assert store.withhold(VM1)
    assert store.is_withheld(VM1)
    assert free(store) == {}
    store.put_back(VM1)
    assert free(store) == {a_place(): 1}


@pytest.mark.parametrize("how", ["claimed", "committed", "unknown"])
def test_a_vm_that_is_somebodys_or_nothing_is_not_withheld(how: str) -> None:
    store = Store()
    if how != "unknown":
        store.apply(Kind.WARM_VM, a_vm_body(claim="logs" if how == "claimed" else None))
    if how == "committed":
        store.commit(VM1, LOGS)
    assert not store.withhold(VM1)
    assert not store.is_withheld(VM1)


def test_the_end_of_a_term_takes_back_what_is_not_written_down() -> None:
    store = a_store(a_vm_body(1), a_vm_body(2))
    store.commit(VM1, LOGS)
    store.withhold(VmUid("vm-2"))
    store.forget_commitments()
    assert free(store) == {a_place(1): 1, a_place(2): 1}


def test_the_oldest_vms_of_a_place_are_taken_first() -> None:
    here, store = a_place(9), Store()
    for number, at in ((1, 30), (2, 10), (3, 20)):
        body = a_vm_body(number, place=here)
        body["status"]["readyAt"] = after(at).isoformat()
        store.apply(Kind.WARM_VM, body)
    assert [vm.uid for vm in store.oldest(POOL, here, 2)] == ["vm-2", "vm-3"]
    body = a_vm_body(4, place=here)
    body["status"]["readyAt"] = after(5).isoformat()
    store.apply(Kind.WARM_VM, body)
    assert [vm.uid for vm in store.oldest(POOL, here, 2)] == ["vm-4", "vm-2"], "it came later"
    store.commit(VmUid("vm-4"), LOGS)
    store.uncommit(VmUid("vm-4"), LOGS)
    assert [vm.uid for vm in store.oldest(POOL, here, 9)] == ["vm-4", "vm-2", "vm-3", "vm-1"]


def test_a_commitment_is_told_of_once() -> None:
    store, told = a_store(a_vm_body(1)), []
    store.listen(told.append)
    store.commit(VmUid("vm-1"), LOGS)
    store.commit(VmUid("vm-1"), LOGS)
    assert [change.vm for change in told] == ["vm-1"]


@pytest.mark.parametrize("listed_", [True, False])
def test_the_end_of_a_claim_that_never_could_be_read_is_told(*, listed_: bool) -> None:
    """Its VMs were kept for it."""
    body = a_claim_body("logs") | {"spec": "something newer"}
    store, told = a_store(), []
    store.apply(Kind.VM_CLAIM, body)
    store.listen(told.append)
    if listed_:
        store.miss(Kind.VM_CLAIM, Snapshot((), 99))
    else:
        store.apply(Kind.VM_CLAIM, body, deleted=True)
    assert [change.claim for change in told] == [body["metadata"]["uid"]]


def test_the_version_of_a_stock_changes_with_it() -> None:
    store = a_store(a_vm_body(version=5))
    before = store.stock_version(POOL)
    store.apply(Kind.WARM_VM, a_vm_body(version=6, place=a_place(2)))
    moved = store.stock_version(POOL)
    store.commit(VM1, LOGS)
    assert len({before, moved, store.stock_version(POOL)}) == 3


# --- listeners ------------------------------------------------------------------------------


def test_who_listens_hears_of_the_pool_and_of_the_claim_until_it_stops() -> None:
    store, heard = Store(), []
    stop = store.listen(heard.append)
    store.apply(Kind.WARM_VM, a_vm_body(claim="logs"))
    assert [(c.pool, c.claim, c.vm) for c in heard] == [(POOL, LOGS, VM1)]
    stop()
    store.apply(Kind.WARM_VM, a_vm_body(claim="logs"), deleted=True)
    assert len(heard) == 1


def a_namespace(version: int, team: str, uid: str = "n-1", name: str = "logs") -> Body:
    meta = {"name": name, "uid": uid, "resourceVersion": str(version), "labels": {"team": team}}
    return {"metadata": meta}


def test_labels_of_namespaces_come_change_and_go() -> None:
    store, heard = Store(), []
    store.listen(heard.append)
    store.apply_namespace(a_namespace(1, "a"))
    store.apply_namespace(a_namespace(1, "a"))
    store.apply_namespace(a_namespace(2, "a"))
    assert len(heard) == 1
    assert store.namespace_labels == {"logs": {"team": "a"}}
    store.apply_namespace(a_namespace(3, "b"))
    assert len(heard) == 2
    assert store.namespace_labels == {"logs": {"team": "b"}}
    store.apply_namespace(a_namespace(4, "b"), deleted=True)
    assert store.namespace_labels == {}


def test_a_list_of_namespaces_that_is_behind_the_watch_undoes_nothing() -> None:
    """A claim that is refused for labels which its namespace had before is refused for good."""
    store = Store()
    store.apply_namespace(a_namespace(9, "new"))
    store.apply_namespace(a_namespace(10, "gone", "n-2", "search"), deleted=True)
    store.apply_namespaces(
        Snapshot((a_namespace(7, "old"), a_namespace(6, "gone", "n-2", "search")), 8)
    )
    assert store.namespace_labels == {"logs": {"team": "new"}}


def test_namespaces_of_an_older_history_are_none_of_ours() -> None:
    """Labels would be kept for good that have not been there, and what came back not be known."""
    for gone in (False, True):
        store = Store()
        store.apply_namespaces(Snapshot((a_namespace(900, "a"),), 950))
        store.apply_namespace(a_namespace(1001, "b"), deleted=gone)
        store.apply_namespaces(Snapshot((() if gone else (a_namespace(1001, "b"),)), 1002))
        with pytest.raises(WentBack):
            store.apply_namespaces(Snapshot((a_namespace(900, "a"),), 2000))


def test_a_list_of_namespaces_shows_what_has_gone_and_what_has_come() -> None:
    store, heard = Store(), []
    store.apply_namespace(a_namespace(3, "a"))
    store.listen(heard.append)
    store.apply_namespaces(Snapshot((a_namespace(5, "b", "n-2", "search"),), 8))
    assert store.namespace_labels == {"search": {"team": "b"}}
    assert len(heard) == 1
    store.apply_namespace(a_namespace(3, "a"))
    assert set(store.namespace_labels) == {"search"}, "an echo of what has gone"


def test_the_end_of_a_namespace_of_that_name_before_is_not_its_own() -> None:
    store = Store()
    store.apply_namespace(a_namespace(3, "a"))
    store.apply_namespace(a_namespace(9, "b", "n-2"))
    store.apply_namespace(a_namespace(8, "a"), deleted=True)
    assert store.namespace_labels == {"logs": {"team": "b"}}


# --- everything at once ---------------------------------------------------------------------

NUMBERS = st.integers(1, 3)
PHASES = st.sampled_from(["Building", "Ready", "Ready", "Ready"])


class StoreMachine(RuleBasedStateMachine):
    """An API server's truth, a watch that delivers it late, twice or not at all, and a store."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.version = 10
        self.lives = 0
        self.truth: dict[int, dict[str, Any]] = {}
        self.said: list[tuple[bool, dict[str, Any]]] = []
        self.committed: dict[str, ClaimUid] = {}
        self.withheld: set[str] = set()

    def _next(self) -> int:
        self.version += 1
        return self.version

    def _write(self, number: int, body: dict[str, Any], *, deleted: bool = False) -> None:
        self.said.append((deleted, body))
        if deleted:
            del self.truth[number]
        else:
            self.truth[number] = body

    @rule(
        number=NUMBERS,
        phase=PHASES,
        place=NUMBERS,
        ready=NUMBERS,
        claim=st.sampled_from([None, None, "logs"]),
        legible=st.sampled_from([True, True, True, False]),
    )
    def change(  # noqa: PLR0913 - each is what may be changed
        self, number: int, phase: str, place: int, ready: int, claim: str | None, *, legible: bool
    ) -> None:
        """Somebody creates a VM, or writes one; a newer operator, so that we cannot read it."""
        if number not in self.truth:
            self.lives += 1
        uid = self.truth.get(number, {}).get("metadata", {}).get("uid", f"life-{self.lives}")
        body = a_vm_body(
            number,
            version=self._next(),
            uid=uid,
            phase=phase,
            place=a_place(place),
            claim=claim,
        )
        body["status"]["readyAt"] = after(ready).isoformat()
        self._write(number, body if legible else body | {"spec": "something newer"})

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        """Somebody deletes a VM."""
        if number in self.truth:
            last = self.truth[number]
            meta = {**last["metadata"], "resourceVersion": str(self._next())}
            self._write(number, {**last, "metadata": meta}, deleted=True)

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        """The watch delivers something that was said once: late, early, or again."""
        deleted, body = data.draw(st.sampled_from(self.said))
        self._apply(body, deleted=deleted)

    def _apply(self, body: dict[str, Any], *, deleted: bool) -> None:
        self.store.apply(Kind.WARM_VM, body, deleted=deleted)
        self._forget_what_is_gone()

    @rule()
    def compare(self) -> None:
        """A consistent LIST: from here on the store knows the truth."""
        bodies = tuple(self.truth.values())
        compared(self.store, Snapshot(bodies, self.version))
        self._forget_what_is_gone()
        there = {b["metadata"]["uid"]: int(b["metadata"]["resourceVersion"]) for b in bodies}
        unread = {b["metadata"]["uid"] for b in bodies if isinstance(b["spec"], str)}
        assert unread == {uid for uid in there if self.store.is_unread(uid)}
        known = dict(self._known())
        assert known.keys() <= there.keys()
        assert {u: v for u, v in known.items() if u not in unread} == {
            u: v for u, v in there.items() if u not in unread
        }

    @precondition(lambda self: self.store.vms_of(POOL))
    @rule(data=st.data(), what=st.sampled_from(["commit", "uncommit", "withhold", "put back"]))
    def lay_over(self, data: st.DataObject, what: str) -> None:
        vm = data.draw(st.sampled_from(sorted(self.store.vms_of(POOL), key=lambda vm: vm.uid)))
        if what == "commit" and vm.uid not in self.withheld:
            self.store.commit(vm.uid, OTHER)
            self.committed[vm.uid] = OTHER
        elif what == "uncommit":
            self.store.uncommit(vm.uid, OTHER)
            self.committed.pop(vm.uid, None)
        elif what == "withhold":
            if self.store.withhold(vm.uid):
                self.withheld.add(vm.uid)
        elif what == "put back":
            self.store.put_back(vm.uid)
            self.withheld.discard(vm.uid)

    def _forget_what_is_gone(self) -> None:
        uids = {vm.uid for vm in self.store.vms()}
        self.committed = {uid: c for uid, c in self.committed.items() if uid in uids}
        self.withheld &= uids

    def _known(self) -> set[tuple[str, int]]:
        return {(vm.uid, vm.version) for vm in self.store.vms()}

    def _free(self) -> Iterable[tuple[Place, str]]:
        for vm in self.store.vms():
            over = vm.uid in self.committed or vm.uid in self.withheld
            over = over or self.store.is_unread(vm.uid)
            if vm.phase.value == "Ready" and vm.claim is None and not vm.deleting and not over:
                yield vm.place, vm.uid

    @invariant()
    def the_stock_is_what_a_recount_gives(self) -> None:
        free = list(self._free())
        assert free_of(self.store) == Counter(place for place, _ in free)
        for number in (1, 2, 3):
            here = self.store.oldest(POOL, a_place(number), 99)
            assert here == sorted(here, key=lambda vm: (vm.ready_at, vm.ref))
            assert {vm.uid for vm in here} == {u for place, u in free if place == a_place(number)}

    @invariant()
    def the_indexes_agree(self) -> None:
        vms = list(self.store.vms())
        assert {vm.uid for vm in self.store.vms_of(POOL)} == {vm.uid for vm in vms}
        assert len({vm.ref for vm in vms}) == len(vms)
        claimed = {vm.uid for vm in vms if vm.claim is not None}
        assert {vm.uid for vm in self.store.vms_of_claim(LOGS)} == claimed

    @invariant()
    def no_vm_is_newer_than_anything_that_was_said(self) -> None:
        said = {(b["metadata"]["uid"], int(b["metadata"]["resourceVersion"])) for _, b in self.said}
        assert self._known() <= said


def free_of(store: Store) -> Counter[Place]:
    return Counter(free(store))


StoreMachine.TestCase.settings = settings(
    max_examples=settings().max_examples // 5, stateful_step_count=30
)
TestStore = StoreMachine.TestCase


def test_a_pool_is_known_by_its_name() -> None:
    store = Store()
    store.apply(Kind.WARM_POOL, a_pool_body())
    known = store.pool(POOL)
    assert known is not None
    assert known.spec.replicas == 3
    assert store.pool(Ref("search", "none")) is None
