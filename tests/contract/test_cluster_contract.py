"""What every `ports.cluster.Cluster` and `Leases` owes its callers.

Held against the double in memory, on which the scenarios rest, and against the adapter on a real
API server with our CRDs.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from doubles.cluster import FakeCluster
from warmpool.api.names import KOPF_FINALIZER, LEDGER_NAME, VM_FINALIZER, Kind
from warmpool.domain.errors import Conflict, Invalid, NotFound, TestFailed
from warmpool.domain.ids import Ref
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.ports.cluster import Body
from warmpool.tools.crds import ROOT


@dataclass
class Ground:
    """One API server, and a namespace in it that is the test's own."""

    cluster: Any
    namespace: str
    delete_lease: Callable[[str], None]
    """By hand."""

    def claim(self, name: str = "") -> dict[str, Any]:
        request = {"name": "data", "pool": {"name": "es-data"}, "count": 1}
        return {"metadata": self._meta(name), "spec": {"requests": [request]}}

    def vm(self, finalizers: tuple[str, ...] = ()) -> dict[str, Any]:
        meta = self._meta() | {"labels": {"a": "b"}}
        if finalizers:
            meta["finalizers"] = list(finalizers)
        return {"metadata": meta, "spec": {"poolRef": {"name": "es-data", "uid": "u-1"}}}

    def ledger(self, epoch: int) -> dict[str, Any]:
        spec = {"epoch": epoch, "installation": "i-1"}
        return {"metadata": self._meta(LEDGER_NAME), "spec": spec}

    def _meta(self, name: str = "") -> dict[str, Any]:
        return {"namespace": self.namespace, "name": name or f"o-{secrets.token_hex(4)}"}


@pytest.fixture(scope="module")
def kubeconfig(request: pytest.FixtureRequest) -> Iterator[str]:
    plane = request.getfixturevalue("control_plane")
    plane.assert_test_context()
    plane.kubectl("apply", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
    yield str(plane.kubeconfig)
    plane.kubectl("delete", "namespace", "-l", "contract=cluster", "--wait=false")


@pytest.fixture(params=["double", pytest.param("api-server", marks=pytest.mark.integration)])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    namespace = f"contract-{secrets.token_hex(4)}"
    if request.param == "double":
        fake = FakeCluster(lambda: datetime.now(UTC), [namespace])  # noqa: TID251
        yield Ground(fake, namespace, lambda name: fake.edit_lease(name, None))
        return
    config = request.getfixturevalue("kubeconfig")
    plane = request.getfixturevalue("control_plane")
    plane.kubectl("create", "namespace", namespace)
    plane.kubectl("label", "namespace", namespace, "contract=cluster")
    async with KubeCluster(await Credentials.load(config), namespace) as cluster:
        yield Ground(
            cluster, namespace, lambda name: plane.kubectl("delete", "lease", name, "-n", namespace)
        )


def ref_of(body: Body) -> Ref:
    return Ref(body["metadata"]["namespace"], body["metadata"]["name"])


def version_of(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


def add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def is_(path: str, value: Any) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}


def claimed_by(uid: str) -> dict[str, Any]:
    owner = {"namespace": "ns", "name": "c", "request": "data", "uid": uid}
    return add("/spec/claimRef", owner)


def allocation(*uids: str) -> dict[str, Any]:
    vms = [
        {"name": u, "namespace": "ns", "uid": u, "request": "data", "serverID": f"s-{u}"}
        for u in uids
    ]
    return {"boundAt": "2030-01-01T00:00:00Z", "vms": vms}


# -- creating and reading ---------------------------------------------------------------------


async def test_namespaces_are_listed_with_what_tells_them_apart(ground: Ground) -> None:
    snapshot = await ground.cluster.namespaces()
    found = {body["metadata"]["name"]: body["metadata"] for body in snapshot.items}
    mine = found[ground.namespace]
    assert mine["uid"]
    assert 0 < int(mine["resourceVersion"]) <= snapshot.version


async def test_what_is_created_has_identity_and_the_defaults_of_its_status(ground: Ground) -> None:
    body = ground.claim() | {"status": {"phase": "Bound"}}
    made = await ground.cluster.create(Kind.VM_CLAIM, body)
    assert made["metadata"]["uid"]
    assert made["metadata"]["generation"] == 1
    assert made["status"]["phase"] == "Pending"
    assert made["status"]["observedGeneration"] == 0
    read = await ground.cluster.get(Kind.VM_CLAIM, ref_of(made))
    assert version_of(read) == version_of(made)


async def test_names_are_taken_once_and_uids_never_come_again(ground: Ground) -> None:
    body = ground.claim()
    first = await ground.cluster.create(Kind.VM_CLAIM, body)
    with pytest.raises(Conflict):
        await ground.cluster.create(Kind.VM_CLAIM, body)
    meta = first["metadata"]
    await ground.cluster.delete(
        Kind.VM_CLAIM, ref_of(first), uid=meta["uid"], version=version_of(first)
    )
    second = await ground.cluster.create(Kind.VM_CLAIM, body)
    assert second["metadata"]["uid"] != meta["uid"]


async def test_nothing_is_created_where_there_is_no_namespace(ground: Ground) -> None:
    body = ground.claim()
    body["metadata"]["namespace"] = "nowhere-at-all"
    with pytest.raises(NotFound):
        await ground.cluster.create(Kind.VM_CLAIM, body)


async def test_what_is_not_there_is_not_found(ground: Ground) -> None:
    nobody = Ref(ground.namespace, "nobody")
    with pytest.raises(NotFound):
        await ground.cluster.get(Kind.WARM_VM, nobody)
    with pytest.raises(NotFound):
        await ground.cluster.patch(Kind.WARM_VM, nobody, [is_("/metadata/uid", "u")])
    with pytest.raises(NotFound):
        await ground.cluster.get_lease("nobody")
    await ground.cluster.delete(Kind.WARM_VM, nobody, uid="u", version=1)


async def test_a_list_is_of_one_moment(ground: Ground) -> None:
    made = [await ground.cluster.create(Kind.WARM_VM, ground.vm()) for _ in range(3)]
    listed = await ground.cluster.list(Kind.WARM_VM)
    mine = [b for b in listed.items if b["metadata"]["namespace"] == ground.namespace]
    assert {ref_of(b) for b in mine} == {ref_of(b) for b in made}
    assert listed.version >= max(map(version_of, made))


# -- patches ----------------------------------------------------------------------------------


async def test_a_patch_moves_the_version_and_with_the_spec_the_generation(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    ref = ref_of(made)
    labelled = await ground.cluster.patch(Kind.WARM_VM, ref, [add("/metadata/labels/x", "y")])
    assert version_of(labelled) > version_of(made)
    assert labelled["metadata"]["generation"] == 1
    claimed = await ground.cluster.patch(Kind.WARM_VM, ref, [claimed_by("c-1")])
    assert claimed["metadata"]["generation"] == 2
    told = await ground.cluster.patch(
        Kind.WARM_VM, ref, [add("/status/phase", "Ready")], status=True
    )
    assert told["metadata"]["generation"] == 2
    assert version_of(told) > version_of(claimed)


async def test_the_same_patch_again_leaves_the_version(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    patch = [add("/metadata/labels/a", "c")]
    once = await ground.cluster.patch(Kind.WARM_VM, ref_of(made), patch)
    twice = await ground.cluster.patch(Kind.WARM_VM, ref_of(made), patch)
    assert version_of(twice) == version_of(once) > version_of(made)


async def test_replacing_a_field_that_is_not_there_adds_it(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    patch = [claimed_by("c-1") | {"op": "replace"}]
    body = await ground.cluster.patch(Kind.WARM_VM, ref_of(made), patch)
    assert body["spec"]["claimRef"]["uid"] == "c-1"


async def test_status_and_spec_are_written_apart(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    both = [claimed_by("c-1"), add("/status/phase", "Ready")]
    body = await ground.cluster.patch(Kind.WARM_VM, ref_of(made), both)
    assert body["spec"]["claimRef"]["uid"] == "c-1"
    assert body["status"]["phase"] == "Pending"
    both = [{"op": "remove", "path": "/spec/claimRef"}, add("/status/phase", "Ready")]
    body = await ground.cluster.patch(Kind.WARM_VM, ref_of(made), both, status=True)
    assert body["spec"]["claimRef"]["uid"] == "c-1"
    assert body["status"]["phase"] == "Ready"


@pytest.mark.parametrize(
    "op",
    [
        is_("/metadata/uid", "another"),
        is_("/metadata/resourceVersion", "1"),
        is_("/metadata/generation", 7),
        is_("/status/phase", "Ready"),
        is_("/spec/claimRef/uid", "c-1"),
        {"op": "remove", "path": "/spec/claimRef"},
        {"op": "replace", "path": "/metadata/finalizers/0", "value": VM_FINALIZER},
        add("/metadata/annotations/x", "y"),
        is_("/metadata/finalizers/0", VM_FINALIZER),
    ],
    ids=lambda op: f"{op['op']} {op['path']}",
)
@pytest.mark.parametrize("status", [False, True], ids=["main", "status"])
async def test_a_patch_that_does_not_apply_changes_nothing(
    ground: Ground, op: dict[str, Any], status: bool
) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    ops = [op, add("/metadata/labels/seen", "x"), add("/status/phase", "Failed")]
    with pytest.raises(TestFailed):
        await ground.cluster.patch(Kind.WARM_VM, ref_of(made), ops, status=status)
    read = await ground.cluster.get(Kind.WARM_VM, ref_of(made))
    assert version_of(read) == version_of(made)


async def test_a_brief_answer_has_the_metadata_of_the_whole_one(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.VM_CLAIM, ground.claim())
    bound = add("/status", {"phase": "Bound", "allocation": allocation("v-1")})
    brief = await ground.cluster.patch(
        Kind.VM_CLAIM, ref_of(made), [bound], status=True, brief=True
    )
    read = await ground.cluster.get(Kind.VM_CLAIM, ref_of(made))
    assert "status" not in brief
    assert brief["metadata"] == read["metadata"]
    assert read["status"]["phase"] == "Bound"


@pytest.mark.parametrize("status", [False, True], ids=["main", "status"])
async def test_a_test_of_the_version_or_generation_that_holds(ground: Ground, status: bool) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    ops = [
        is_("/metadata/resourceVersion", made["metadata"]["resourceVersion"]),
        is_("/metadata/generation", 1),
        is_("/status/phase", "Pending"),
        add("/status/phase", "Ready") if status else add("/metadata/labels/seen", "x"),
    ]
    body = await ground.cluster.patch(Kind.WARM_VM, ref_of(made), ops, status=status)
    assert version_of(body) > version_of(made)


async def test_of_two_replacements_of_one_version_one_is_refused(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.BINDING_LEDGER, ground.ledger(1))
    one = {"metadata": made["metadata"], "spec": made["spec"] | {"holder": "one"}}
    written = await ground.cluster.replace(Kind.BINDING_LEDGER, one)
    assert version_of(written) > version_of(made)
    assert "spec" not in written, "who replaces it knows what it says"
    two = {"metadata": made["metadata"], "spec": made["spec"] | {"holder": "two"}}
    with pytest.raises(Conflict):
        await ground.cluster.replace(Kind.BINDING_LEDGER, two)


# -- rules ------------------------------------------------------------------------------------


async def test_the_epoch_of_a_ledger_never_goes_down(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.BINDING_LEDGER, ground.ledger(5))
    lower = {"metadata": made["metadata"], "spec": made["spec"] | {"epoch": 4}}
    with pytest.raises(Invalid):
        await ground.cluster.replace(Kind.BINDING_LEDGER, lower)


async def test_a_vm_goes_from_one_claim_to_another_only_by_being_free(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    ref = ref_of(made)
    await ground.cluster.patch(Kind.WARM_VM, ref, [claimed_by("c-1")])
    await ground.cluster.patch(Kind.WARM_VM, ref, [claimed_by("c-1")])
    with pytest.raises(Invalid):
        await ground.cluster.patch(Kind.WARM_VM, ref, [claimed_by("c-2")])
    await ground.cluster.patch(Kind.WARM_VM, ref, [{"op": "remove", "path": "/spec/claimRef"}])
    await ground.cluster.patch(Kind.WARM_VM, ref, [claimed_by("c-2")])


@pytest.mark.parametrize(
    "after",
    [
        {"phase": "Bound", "allocation": allocation("v-1")},
        {"phase": "Bound", "allocation": allocation("v-1", "v-3")},
        {"phase": "Bound"},
        {"phase": "Pending", "allocation": allocation("v-1", "v-2")},
        {"phase": "Failed", "allocation": allocation("v-1", "v-2")},
    ],
    ids=["one fewer", "another one", "none", "pending", "failed"],
)
async def test_a_bound_claim_stays_bound_to_what_it_has(
    ground: Ground, after: dict[str, Any]
) -> None:
    made = await ground.cluster.create(Kind.VM_CLAIM, ground.claim())
    bound = add("/status", {"phase": "Bound", "allocation": allocation("v-1", "v-2")})
    await ground.cluster.patch(Kind.VM_CLAIM, ref_of(made), [bound], status=True)
    with pytest.raises(Invalid):
        await ground.cluster.patch(
            Kind.VM_CLAIM, ref_of(made), [add("/status", after)], status=True
        )


async def test_a_bound_claim_may_get_a_substitute_and_be_released(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.VM_CLAIM, ground.claim())
    for phase, vms in (("Bound", ["v-1"]), ("Bound", ["v-1", "v-2"]), ("Released", ["v-1", "v-2"])):
        status = add("/status", {"phase": phase, "allocation": allocation(*vms)})
        await ground.cluster.patch(Kind.VM_CLAIM, ref_of(made), [status], status=True)


async def test_bound_needs_an_allocation(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.VM_CLAIM, ground.claim())
    with pytest.raises(Invalid):
        await ground.cluster.patch(
            Kind.VM_CLAIM, ref_of(made), [add("/status", {"phase": "Bound"})], status=True
        )


# -- deleting ---------------------------------------------------------------------------------


async def test_deletion_needs_the_uid_and_the_version(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm())
    uid, ref = made["metadata"]["uid"], ref_of(made)
    with pytest.raises(Conflict):
        await ground.cluster.delete(Kind.WARM_VM, ref, uid="another", version=version_of(made))
    newer = await ground.cluster.patch(Kind.WARM_VM, ref, [add("/metadata/labels/x", "y")])
    with pytest.raises(Conflict):
        await ground.cluster.delete(Kind.WARM_VM, ref, uid=uid, version=version_of(made))
    await ground.cluster.delete(Kind.WARM_VM, ref, uid=uid, version=version_of(newer))
    with pytest.raises(NotFound):
        await ground.cluster.get(Kind.WARM_VM, ref)


async def test_a_finalizer_holds_what_is_deleted_until_it_goes(ground: Ground) -> None:
    made = await ground.cluster.create(Kind.WARM_VM, ground.vm((VM_FINALIZER,)))
    uid, ref = made["metadata"]["uid"], ref_of(made)
    await ground.cluster.delete(Kind.WARM_VM, ref, uid=uid, version=version_of(made))
    going = await ground.cluster.get(Kind.WARM_VM, ref)
    assert going["metadata"]["deletionTimestamp"]
    assert going["metadata"]["generation"] == 2
    assert version_of(going) > version_of(made)
    more = add("/metadata/finalizers", [VM_FINALIZER, KOPF_FINALIZER])
    with pytest.raises(Invalid):
        await ground.cluster.patch(Kind.WARM_VM, ref, [more])
    await ground.cluster.patch(Kind.WARM_VM, ref, [claimed_by("c-1")])
    gone = {"op": "remove", "path": "/metadata/finalizers/0"}
    last = await ground.cluster.patch(Kind.WARM_VM, ref, [gone])
    assert not last["metadata"].get("finalizers")
    with pytest.raises(NotFound):
        await ground.cluster.get(Kind.WARM_VM, ref)


# -- leases -----------------------------------------------------------------------------------


def a_lease(name: str, holder: str, version: str | None = None) -> dict[str, Any]:
    meta = {"name": name} | ({"resourceVersion": version} if version else {})
    return {"metadata": meta, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 10}}


async def test_a_lease_is_for_one_of_two_who_want_it(ground: Ground) -> None:
    won = await ground.cluster.put_lease("lease", a_lease("lease", "one"))
    with pytest.raises(Conflict):
        await ground.cluster.put_lease("lease", a_lease("lease", "two"))
    version = won["metadata"]["resourceVersion"]
    await ground.cluster.put_lease("lease", a_lease("lease", "two", version))
    with pytest.raises(Conflict):
        await ground.cluster.put_lease("lease", a_lease("lease", "one", version))
    assert (await ground.cluster.get_lease("lease"))["spec"]["holderIdentity"] == "two"


async def test_a_lease_that_was_deleted_meanwhile_is_not_written_again(ground: Ground) -> None:
    """It would be another one: who knew the old one has to look first."""
    made = await ground.cluster.put_lease("lease", a_lease("lease", "one"))
    held = {"metadata": made["metadata"], "spec": made["spec"]}
    ground.delete_lease("lease")
    with pytest.raises(Conflict):
        await ground.cluster.put_lease(
            "lease", {"metadata": held["metadata"], "spec": held["spec"]}
        )
    await ground.cluster.put_lease("lease", a_lease("lease", "two"))
    with pytest.raises(Conflict):
        await ground.cluster.put_lease(
            "lease", {"metadata": held["metadata"], "spec": held["spec"]}
        )
    assert (await ground.cluster.get_lease("lease"))["spec"]["holderIdentity"] == "two"


async def test_a_watch_shows_what_has_happened_to_a_lease_since_a_version(ground: Ground) -> None:
    first = await ground.cluster.put_lease("lease", a_lease("lease", "one"))
    version = first["metadata"]["resourceVersion"]
    second = await ground.cluster.put_lease("lease", a_lease("lease", "", version))
    stream = ground.cluster.watch_lease("lease", version)
    async with asyncio.timeout(10):
        seen = await anext(stream)
    await stream.aclose()
    assert seen["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert seen["spec"]["holderIdentity"] == ""


async def test_leases_are_listed_by_a_label(ground: Ground) -> None:
    marked = a_lease("marked", "one")
    marked["metadata"]["labels"] = {"warmpool.dev/role": "standby"}
    await ground.cluster.put_lease("marked", marked)
    await ground.cluster.put_lease("other", a_lease("other", "two"))
    [listed] = await ground.cluster.list_leases("warmpool.dev/role")
    assert listed["metadata"]["name"] == "marked"
    assert listed["spec"]["holderIdentity"] == "one"


async def test_a_lease_is_deleted_in_the_version_that_was_looked_at(ground: Ground) -> None:
    old = await ground.cluster.put_lease("lease", a_lease("lease", "one"))
    version = old["metadata"]["resourceVersion"]
    new = await ground.cluster.put_lease("lease", a_lease("lease", "two", version))
    with pytest.raises(Conflict):
        await ground.cluster.delete_lease("lease", version=version)
    for _ in range(2):  # the second time it is gone
        await ground.cluster.delete_lease("lease", version=new["metadata"]["resourceVersion"])
    with pytest.raises(NotFound):
        await ground.cluster.get_lease("lease")
