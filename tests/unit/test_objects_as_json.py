"""Objects read from the API server, and what is written to it."""

import string
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import (
    NOW,
    POOL,
    a_claim,
    a_claim_body,
    a_claim_ref,
    a_place,
    a_pool_body,
    a_vm,
    a_vm_body,
    after,
)
from doubles.json_patch import patched
from warmpool.api.names import (
    ANNOTATION_PRESERVE,
    LABEL_CLAIM,
    LABEL_CLAIM_UID,
    POOL_FINALIZER,
    ClaimPhase,
    Kind,
    Phase,
    Reason,
)
from warmpool.api.v1alpha1.claim import VMClaimStatus
from warmpool.api.v1alpha1.ledger import LedgerClaim, LedgerEntry, LedgerVM
from warmpool.domain.cloud import Place
from warmpool.domain.errors import TestFailed
from warmpool.domain.facts import Claim, Vm
from warmpool.domain.ids import ServerId, VmUid
from warmpool.reconcile.reading import (
    EPOCH,
    PRESERVE_MAX,
    provider_id,
    read_claim,
    read_pool,
    read_vm,
)
from warmpool.reconcile.writing import (
    bind_vm,
    bound_status,
    label_value,
    place_labels,
    pointer,
    preserve_vm,
    put_status,
    recycle_vm,
    refused_status,
    retain_vm,
    set_labels,
    waiting_status,
)

# --- reading --------------------------------------------------------------------------------


def test_a_vm_is_read_with_its_place_and_its_server() -> None:
    vm = read_vm(a_vm_body(3, version=7, claim="logs"))
    assert (vm.uid, vm.version, vm.pool, vm.phase) == ("vm-3", 7, POOL, Phase.READY)
    assert (vm.server, vm.place) == (ServerId("server-3"), a_place(3))
    assert vm.claim == a_claim_ref()
    assert vm.finalized
    assert not vm.deleting


def test_a_vm_whose_status_is_lost_still_knows_its_server_and_its_claim() -> None:
    body = a_vm_body(3, claim="logs")
    del body["status"]
    vm = read_vm(body)
    assert (vm.server, vm.phase) == ("server-3", Phase.PENDING)
    assert vm.claim is not None


def test_a_server_that_only_the_status_names_is_known_too() -> None:
    vm = read_vm(a_vm_body(3, providerID=None))
    assert (vm.server, vm.place.region) == ("server-3", "")


def test_a_vm_without_a_server_has_none() -> None:
    body = a_vm_body(providerID="aws:///eu/i-1")
    body["status"] = {}
    assert read_vm(body).server is None


def test_a_region_may_hold_a_slash() -> None:
    vm = read_vm(a_vm_body(providerID=provider_id("eu/west", ServerId("s"))))
    assert (vm.place.region, vm.server) == ("eu/west", "s")


@pytest.mark.parametrize("read", [(read_vm, a_vm_body), (read_claim, a_claim_body)])
def test_an_object_that_is_going_is_read_so(read: Any) -> None:
    reader, body = read
    assert reader(body(meta={"deletionTimestamp": NOW.isoformat()})).deleting


def test_what_was_never_stored_has_no_time() -> None:
    body = a_claim_body()
    del body["metadata"]["creationTimestamp"]
    assert read_claim(body).created == EPOCH


def test_a_pool_knows_whether_our_finalizer_is_on_it() -> None:
    assert not read_pool(a_pool_body()).finalized
    assert read_pool(a_pool_body(meta={"finalizers": [POOL_FINALIZER]})).finalized


def test_fields_of_a_newer_version_are_passed_over() -> None:
    assert read_pool(a_pool_body(shinyNewField={"a": 1})).spec.replicas == 3


# --- labels and pointers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("r1", "r1"),
        ("Rack 7/B", "Rack-7-B"),
        ("-_.", ""),
        ("überrack", "berrack"),
        ("x" * 70, "x" * 63),
        ("y" * 62 + "- z", "y" * 62),
    ],
)
def test_names_become_label_values(name: str, label: str) -> None:
    assert label_value(name) == label


@settings(max_examples=settings().max_examples // 5)
@given(st.text(max_size=90))
def test_every_label_value_is_one_that_kubernetes_takes(name: str) -> None:
    value = label_value(name)
    letters = string.ascii_letters + string.digits
    assert len(value) <= 63
    assert not value or (value[0] in letters and value[-1] in letters)
    assert set(value) <= set(letters + "-_.")


def test_a_pointer_escapes_slashes_and_tildes() -> None:
    assert pointer("a/b", "c~d") == "/a~1b/c~0d"


def test_only_what_is_known_of_a_place_becomes_a_label() -> None:
    assert list(place_labels(Place("R", "az1", "", "h1")).values()) == ["az1", "h1"]


# --- patches --------------------------------------------------------------------------------


def settled(vm: Vm, body: dict[str, Any]) -> dict[str, Any]:
    return patched(body, bind_vm(vm, a_claim_ref()))


def test_a_binding_is_written_with_its_labels() -> None:
    body = a_vm_body(meta={"labels": {}})
    bound = settled(read_vm(body), body)
    assert read_vm(bound | {"kind": Kind.WARM_VM}).claim == a_claim_ref()
    assert bound["metadata"]["labels"] == {LABEL_CLAIM: "logs", LABEL_CLAIM_UID: "uid-of-logs"}


def test_a_binding_is_not_written_on_another_vm_of_the_same_name() -> None:
    with pytest.raises(TestFailed):
        settled(a_vm(1), a_vm_body(uid="another", meta={"labels": {}}))


def test_a_recycled_vm_is_nobodys_and_dirty() -> None:
    body = a_vm_body(meta={"labels": {}})
    used = settled(read_vm(body), body)
    again = read_vm(patched(used, recycle_vm(read_vm(used))))
    assert (again.claim, again.dirty) == (None, True)


def test_a_retained_vm_keeps_its_claim() -> None:
    body = a_vm_body(claim="logs")
    kept = read_vm(patched(body, retain_vm(read_vm(body))))
    assert kept.retained
    assert kept.claim is not None


def test_labels_are_set_one_by_one() -> None:
    body = patched({"metadata": {"labels": {"a/b": "old", "c": "d"}}}, set_labels({"a/b": "new x"}))
    assert body["metadata"]["labels"] == {"a/b": "new-x", "c": "d"}


@pytest.mark.parametrize(
    "guard", [{"phase": "Bound"}, {"version": 2}], ids=["another phase", "another version"]
)
def test_a_status_is_replaced_only_where_its_guard_holds(guard: dict[str, Any]) -> None:
    body = a_claim_body() | {"status": {"phase": "Pending"}}
    uid = body["metadata"]["uid"]
    status = VMClaimStatus(phase=ClaimPhase.FAILED)
    assert patched(body, put_status(uid, status))["status"]["phase"] == "Failed"
    with pytest.raises(TestFailed):
        patched(body, put_status(uid, status, **guard))


# --- statuses of claims ---------------------------------------------------------------------


def an_entry(*numbers: int) -> LedgerEntry:
    return LedgerEntry(
        claim=LedgerClaim(namespace="search", name="logs", uid="uid-of-logs"),
        bound_at=NOW,
        vms=[
            LedgerVM(namespace="search", name=f"data-{n}", uid=f"vm-{n}", request="data")
            for n in numbers
        ],
    )


def vms(*numbers: int) -> dict[VmUid, Vm]:
    return {vm.uid: vm for vm in (a_vm(n) for n in numbers)}


def test_a_bound_claim_names_all_its_vms_and_is_in_good_health() -> None:
    status = bound_status(a_claim(count=2), an_entry(2, 1), vms(1, 2), None)
    assert status.phase is ClaimPhase.BOUND
    assert status.allocation is not None
    assert [vm.name for vm in status.allocation.vms] == ["data-1", "data-2"]
    assert status.allocation.expires_at is None
    assert status.placed == "2 VMs, 2 racks, 2 hypervisors"
    assert {c.type: c.status.value for c in status.conditions} == {
        "Bound": "True",
        "Healthy": "True",
    }


def test_one_of_each_is_told_in_the_singular() -> None:
    status = bound_status(a_claim(), an_entry(1), vms(1), None)
    assert status.placed == "1 VM, 1 rack, 1 hypervisor"


def test_a_claim_with_a_lifetime_is_told_when_it_ends() -> None:
    status = bound_status(a_claim(), an_entry(1), vms(1), after(60) - NOW)
    assert status.allocation is not None
    assert status.allocation.expires_at == after(60)


def test_a_vm_that_was_deleted_by_force_is_still_named() -> None:
    status = bound_status(a_claim(), an_entry(1), {}, None)
    assert status.allocation is not None
    (vm,) = status.allocation.vms
    assert (vm.name, vm.server_id) == ("data-1", "")


def test_a_substitute_joins_what_the_claim_has_and_changes_nothing_of_it() -> None:
    first = bound_status(a_claim(count=2), an_entry(1, 2), vms(1, 2), None)
    assert first.allocation is not None
    marked = [vm.model_copy(update={"lost": vm.name == "data-2"}) for vm in first.allocation.vms]
    lost = first.allocation.model_copy(update={"vms": marked})
    claim: Claim = a_claim(count=2, status=first.model_copy(update={"allocation": lost}))
    later = an_entry(3).model_copy(update={"bound_at": after(60)})
    status = bound_status(claim, later, vms(3), None)
    assert status.allocation is not None
    assert [(vm.name, vm.lost) for vm in status.allocation.vms] == [
        ("data-1", False),
        ("data-2", True),
        ("data-3", False),
    ]
    assert status.allocation.bound_at == NOW
    assert status.placed.startswith("2 VMs")


def test_a_refused_claim_says_what_was_short() -> None:
    status = refused_status(a_claim(), Reason.NOT_ENOUGH_READY, "m" * 2000, NOW)
    assert status.phase is ClaimPhase.FAILED
    assert status.shortfall is not None
    assert status.shortfall.reason == "NotEnoughReady"
    assert len(status.shortfall.message) == 1000


def test_a_waiting_claim_says_the_same_and_stays_pending() -> None:
    status = waiting_status(a_claim(), Reason.NOT_ENOUGH_READY, "2 of 3", NOW)
    assert status.phase is ClaimPhase.PENDING
    assert status.shortfall is not None
    again = waiting_status(a_claim(status=status), Reason.NOT_ENOUGH_READY, "1 of 3", after(9))
    assert again.conditions[0].last_transition_time == NOW


@pytest.mark.parametrize(
    ("span", "kept"),
    [("2h", timedelta(hours=2)), ("90d", None), ("", None), ("9999h", PRESERVE_MAX)],
)
def test_how_long_to_keep_what_fails_is_an_annotation(span: str, kept: timedelta | None) -> None:
    body = a_vm_body(1)
    body["metadata"]["annotations"] = {ANNOTATION_PRESERVE: span}
    assert read_vm(body).preserve == kept
    body = a_pool_body()
    assert read_pool(body).preserve is None
    body["metadata"]["annotations"] = {ANNOTATION_PRESERVE: span}
    assert read_pool(body).preserve == kept


def test_a_vm_that_is_kept_says_until_when() -> None:
    body = a_vm_body(1, phase="Failed")
    kept = read_vm(patched(body, preserve_vm(read_vm(body), after(60))))
    assert (kept.retained, kept.keep_until) == (True, after(60))
