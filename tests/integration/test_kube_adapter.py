"""`effects.kube` against a real API server: what each refusal, loss and silence comes out as."""

import asyncio
import contextlib
import json
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from warmpool.api.names import LEASE_NAME, Kind
from warmpool.domain.errors import (
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TestFailed,
)
from warmpool.domain.ids import Ref
from warmpool.effects import kube
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.ports.cluster import Body
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.crds import ROOT

pytestmark = pytest.mark.integration

HOME = f"adapter-{secrets.token_hex(3)}"
"""A namespace of this module's own."""

MANY = 2 * kube.PAGE_SIZE + 1
"""Objects that need three pages."""

PATIENCE = 1.5
"""Seconds for a request that a hung API server does not answer: the real bound takes too long."""


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    with prepared(control_plane) as it:
        yield it


@pytest.fixture(scope="module")
def shaky(fragile: ControlPlane) -> Iterator[ControlPlane]:
    """One that may be broken."""
    with prepared(fragile) as it:
        yield it


@contextlib.contextmanager
def prepared(plane: ControlPlane) -> Iterator[ControlPlane]:
    plane.kubectl("apply", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
    plane.kubectl("create", "namespace", HOME)
    yield plane
    plane.kubectl("delete", "namespace", HOME, "--wait=false")


@contextlib.asynccontextmanager
async def opened(
    kubeconfig: Path, observe: kube.Observer = lambda *_: None
) -> AsyncIterator[KubeCluster]:
    async with KubeCluster(await Credentials.load(str(kubeconfig)), HOME, observe=observe) as it:
        yield it


@pytest.fixture
async def cluster(plane: ControlPlane) -> AsyncIterator[KubeCluster]:
    async with opened(plane.kubeconfig) as it:
        yield it


@pytest.fixture
async def hurried(
    shaky: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[KubeCluster]:
    """One that gives up soon. What a test breaks is whole again afterwards."""
    monkeypatch.setattr(kube, "REQUEST_TIMEOUT", PATIENCE)
    async with opened(shaky.kubeconfig) as it:
        yield it
        shaky.resume_apiserver()
    if not shaky.apiserver.process.alive:
        await asyncio.to_thread(shaky.restart_apiserver)


def a_claim(name: str = "") -> dict[str, Any]:
    request = {"name": "data", "pool": {"name": "es-data"}, "count": 1}
    name = name or f"c-{secrets.token_hex(4)}"
    return {"metadata": {"namespace": HOME, "name": name}, "spec": {"requests": [request]}}


def a_vm(pool_uid: str = "u-1") -> dict[str, Any]:
    meta = {"namespace": HOME, "name": f"v-{secrets.token_hex(4)}"}
    return {"metadata": meta, "spec": {"poolRef": {"name": "es-data", "uid": pool_uid}}}


def a_lease(name: str, holder: str, version: str | None = None) -> dict[str, Any]:
    meta = {"name": name} | ({"resourceVersion": version} if version else {})
    return {"metadata": meta, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 10}}


def ref_of(body: Body) -> Ref:
    return Ref(body["metadata"]["namespace"], body["metadata"]["name"])


def version_of(body: Body) -> int:
    return int(body["metadata"]["resourceVersion"])


def label(value: str) -> dict[str, Any]:
    return {"op": "add", "path": "/metadata/labels", "value": {"seen": value}}


def is_uid(uid: str) -> dict[str, Any]:
    return {"op": "test", "path": "/metadata/uid", "value": uid}


# -- refusals ---------------------------------------------------------------------------------


async def test_a_name_that_is_taken_is_a_conflict(cluster: KubeCluster) -> None:
    body = a_claim()
    await cluster.create(Kind.VM_CLAIM, body)
    with pytest.raises(Conflict, match="already exists"):
        await cluster.create(Kind.VM_CLAIM, body)


async def test_credentials_that_are_not_taken_are_named_with_their_remedy(
    plane: ControlPlane, tmp_path: Path
) -> None:
    """An expired token said `401: Unauthorized` every second, and not what to do."""
    document = yaml.safe_load(plane.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "expired"}
    stale = tmp_path / "kubeconfig"
    stale.write_text(yaml.safe_dump(document))
    async with opened(stale) as cluster:
        with pytest.raises(Forbidden, match=r"401: Unauthorized \(our token .* see KUBECONFIG"):
            await cluster.get(Kind.VM_CLAIM, Ref(HOME, "any"))


async def test_replacing_an_older_version_is_a_conflict(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.VM_CLAIM, a_claim())
    await cluster.patch(Kind.VM_CLAIM, ref_of(made), [label("newer")])
    with pytest.raises(Conflict, match="modified"):
        await cluster.replace(Kind.VM_CLAIM, made)


async def test_replacing_the_newest_version_answers_with_the_next(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.VM_CLAIM, a_claim())
    metadata = {**made["metadata"], "labels": {"seen": "now"}}
    replaced = await cluster.replace(Kind.VM_CLAIM, {**made, "metadata": metadata})
    assert version_of(replaced) > version_of(made)


async def test_nobody_keeps_account_of_who_wrote_what_of_a_vm(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.WARM_VM, a_vm())
    assert made["metadata"]["managedFields"]
    changed = await cluster.patch(Kind.WARM_VM, ref_of(made), [label("now")])
    assert "managedFields" not in changed["metadata"]
    ready = [{"op": "add", "path": "/status", "value": {"phase": "Ready"}}]
    told = await cluster.patch(Kind.WARM_VM, ref_of(made), ready, status=True)
    assert "managedFields" not in told["metadata"]


async def test_the_account_of_who_wrote_a_status_is_one_field(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.VM_CLAIM, a_claim())
    short = [{"op": "add", "path": "/status", "value": {"placed": "none", "phase": "Pending"}}]
    told = await cluster.patch(Kind.VM_CLAIM, ref_of(made), short, status=True)
    entries = told["metadata"]["managedFields"]
    assert [e["fieldsV1"] for e in entries if e.get("subresource")] == [{"f:status": {}}]


async def test_nobody_keeps_account_of_who_wrote_what_in_the_ledger(cluster: KubeCluster) -> None:
    spec = {"epoch": 1, "installation": secrets.token_hex(4)}
    meta = {"namespace": HOME, "name": f"l-{secrets.token_hex(4)}"}
    made = await cluster.create(Kind.BINDING_LEDGER, {"metadata": meta, "spec": spec})
    meta["resourceVersion"] = made["metadata"]["resourceVersion"]
    next_term = {"metadata": meta, "spec": {**spec, "epoch": 2}}
    assert (
        "managedFields" not in (await cluster.replace(Kind.BINDING_LEDGER, next_term))["metadata"]
    )


async def test_a_test_operation_that_fails_is_not_an_invalid_object(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.VM_CLAIM, a_claim())
    with pytest.raises(TestFailed):
        await cluster.patch(Kind.VM_CLAIM, ref_of(made), [is_uid("another"), label("x")])
    assert "labels" not in (await cluster.get(Kind.VM_CLAIM, ref_of(made)))["metadata"]


async def test_a_test_of_a_path_that_is_not_there_fails_as_a_test(cluster: KubeCluster) -> None:
    """A finalizer at an index that another writer's removal has left empty."""
    made = await cluster.create(Kind.WARM_VM, a_vm())
    gone = {"op": "test", "path": "/metadata/finalizers/0", "value": "warmpool.dev/server"}
    with pytest.raises(TestFailed):
        await cluster.patch(Kind.WARM_VM, ref_of(made), [gone, label("x")])


async def test_a_status_of_a_test_operation_that_fails(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.VM_CLAIM, a_claim())
    status = {"op": "add", "path": "/status", "value": {"phase": "Failed"}}
    with pytest.raises(TestFailed):
        await cluster.patch(Kind.VM_CLAIM, ref_of(made), [is_uid("another"), status], status=True)


async def test_a_schema_refusal_is_invalid_and_names_the_field(cluster: KubeCluster) -> None:
    body = a_claim()
    body["spec"]["requests"][0]["count"] = 0
    with pytest.raises(Invalid, match=r"spec\.requests\[0\]\.count"):
        await cluster.create(Kind.VM_CLAIM, body)


async def test_a_rule_that_refuses_a_double_booking_is_invalid(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.WARM_VM, a_vm())
    owner = {"namespace": HOME, "name": "c", "request": "data"}
    for uid in ("claim-1", "claim-1"):
        take = {"op": "add", "path": "/spec/claimRef", "value": {**owner, "uid": uid}}
        await cluster.patch(Kind.WARM_VM, ref_of(made), [take])
    steal = {"op": "add", "path": "/spec/claimRef", "value": {**owner, "uid": "claim-2"}}
    with pytest.raises(Invalid, match="the VM is taken"):
        await cluster.patch(Kind.WARM_VM, ref_of(made), [steal])


async def test_what_is_not_there_is_not_found(cluster: KubeCluster) -> None:
    nobody = Ref(HOME, "nobody")
    with pytest.raises(NotFound):
        await cluster.get(Kind.VM_CLAIM, nobody)
    with pytest.raises(NotFound):
        await cluster.patch(Kind.VM_CLAIM, nobody, [label("x")])
    with pytest.raises(NotFound):
        await cluster.patch(Kind.VM_CLAIM, nobody, [is_uid("u"), label("x")], status=True)
    with pytest.raises(NotFound):
        await cluster.secret(nobody)
    with pytest.raises(NotFound):
        await cluster.get_lease("nobody")


async def test_creating_in_a_namespace_that_is_not_there(cluster: KubeCluster) -> None:
    body = a_claim()
    body["metadata"]["namespace"] = "nowhere-at-all"
    with pytest.raises(NotFound, match="nowhere-at-all"):
        await cluster.create(Kind.VM_CLAIM, body)


async def test_what_the_role_lacks_is_forbidden_and_told(plane: ControlPlane) -> None:
    async with opened(plane.user_kubeconfig("warmpool-user")) as stranger:
        with pytest.raises(Forbidden, match="warmpool-user"):
            await stranger.list(Kind.WARM_POOL)


# -- deleting ---------------------------------------------------------------------------------


async def test_deleting_another_object_of_the_name_is_a_conflict(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.WARM_VM, a_vm())
    with pytest.raises(Conflict):
        await cluster.delete(Kind.WARM_VM, ref_of(made), uid="another", version=version_of(made))
    await cluster.get(Kind.WARM_VM, ref_of(made))


async def test_deleting_what_has_changed_since_is_a_conflict(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.WARM_VM, a_vm())
    await cluster.patch(Kind.WARM_VM, ref_of(made), [label("claimed")])
    uid = made["metadata"]["uid"]
    with pytest.raises(Conflict):
        await cluster.delete(Kind.WARM_VM, ref_of(made), uid=uid, version=version_of(made))
    await cluster.get(Kind.WARM_VM, ref_of(made))


async def test_deleting_twice_is_quiet(cluster: KubeCluster) -> None:
    made = await cluster.create(Kind.WARM_VM, a_vm())
    for _ in range(2):
        await cluster.delete(
            Kind.WARM_VM, ref_of(made), uid=made["metadata"]["uid"], version=version_of(made)
        )
    with pytest.raises(NotFound):
        await cluster.get(Kind.WARM_VM, ref_of(made))


# -- lists ------------------------------------------------------------------------------------


async def test_a_list_of_several_pages_is_whole_and_of_one_moment(plane: ControlPlane) -> None:
    calls: list[tuple[str, int]] = []

    def observe(method: str, resource: str, status: int, _seconds: float) -> None:
        calls.append((f"{method} {resource}", status))

    async with opened(plane.kubeconfig, observe) as cluster:
        names = [f"many-{n:04}" for n in range(MANY)]
        gate = asyncio.Semaphore(32)

        async def create(name: str) -> None:
            async with gate:
                await cluster.create(Kind.VM_CLAIM, a_claim(name))

        await asyncio.gather(*map(create, names))
        calls.clear()
        snapshot = await cluster.list(Kind.VM_CLAIM)
        listed = [body["metadata"]["name"] for body in snapshot.items]
        assert [name for name in listed if name.startswith("many-")] == names
        assert calls == [("GET vmclaims", 200)] * 3
        assert snapshot.version >= max(map(version_of, snapshot.items))
        await asyncio.to_thread(
            plane.kubectl, "delete", "vmclaims", "--all", "-n", HOME, "--wait=false"
        )


async def test_a_list_has_the_version_of_its_moment_whatever_is_in_it(cluster: KubeCluster) -> None:
    before = await cluster.list(Kind.BINDING_LEDGER)
    made = await cluster.create(Kind.VM_CLAIM, a_claim())
    after = await cluster.list(Kind.BINDING_LEDGER)
    assert before.items == after.items
    assert before.version < version_of(made) <= after.version


async def test_a_secret_comes_decoded(plane: ControlPlane, cluster: KubeCluster) -> None:
    literal = "--from-literal=clouds.yaml=clouds: {}"
    plane.kubectl("create", "secret", "generic", "cloud", literal, "-n", HOME)
    assert await cluster.secret(Ref(HOME, "cloud")) == {"clouds.yaml": b"clouds: {}"}
    plane.kubectl("create", "secret", "generic", "empty", "-n", HOME)
    assert await cluster.secret(Ref(HOME, "empty")) == {}


async def test_a_config_map_comes_as_it_is(plane: ControlPlane, cluster: KubeCluster) -> None:
    plane.kubectl("create", "configmap", "racks", "--from-literal=h1=r1", "-n", HOME)
    assert await cluster.config_map(Ref(HOME, "racks")) == {"h1": "r1"}
    plane.kubectl("create", "configmap", "bare", "-n", HOME)
    assert await cluster.config_map(Ref(HOME, "bare")) == {}
    with pytest.raises(NotFound):
        await cluster.config_map(Ref(HOME, "nobody"))


# -- leases -----------------------------------------------------------------------------------


async def test_a_lease_is_for_one_of_two_who_want_it(cluster: KubeCluster) -> None:
    name = f"lease-{secrets.token_hex(3)}"
    won = await cluster.put_lease(name, a_lease(name, "one"))
    with pytest.raises(Conflict):
        await cluster.put_lease(name, a_lease(name, "two"))
    version = won["metadata"]["resourceVersion"]
    await cluster.put_lease(name, a_lease(name, "two", version))
    with pytest.raises(Conflict):
        await cluster.put_lease(name, a_lease(name, "one", version))
    assert (await cluster.get_lease(name))["spec"]["holderIdentity"] == "two"


async def test_whoever_watches_a_lease_sees_it_change_and_go(
    plane: ControlPlane, cluster: KubeCluster
) -> None:
    name = LEASE_NAME
    first = await cluster.put_lease(name, a_lease(name, "one"))
    version = first["metadata"]["resourceVersion"]
    stream = cluster.watch_lease(name, version)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        seen = tasks.create_task(anext(stream))
        await asyncio.sleep(0.1)
        await cluster.put_lease(name, a_lease(name, "", version))
        body = await seen
        assert body is not None
        assert body["spec"]["holderIdentity"] == ""
        await asyncio.to_thread(plane.kubectl, "delete", "lease", name, "-n", HOME)
        assert await anext(stream) is None
    await stream.aclose()


async def test_a_lease_is_not_watched_from_before_what_the_server_remembers(
    shaky: ControlPlane, hurried: KubeCluster
) -> None:
    """A server that has just started knows nothing of version 1: the stream just ends."""
    await asyncio.to_thread(shaky.restart_apiserver)
    stream = hurried.watch_lease("nobody", "1")
    async with asyncio.timeout(10):
        assert [seen async for seen in stream] == []


# -- an API server that hangs or dies ---------------------------------------------------------


async def test_a_write_that_gets_no_answer_may_have_happened(
    shaky: ControlPlane, hurried: KubeCluster
) -> None:
    body = a_claim()
    await hurried.list(Kind.WARM_POOL)  # a connection is open
    shaky.pause_apiserver()
    with pytest.raises(ClusterOutcomeUnknown):
        await hurried.create(Kind.VM_CLAIM, body)
    with pytest.raises(ClusterUnavailable):
        await hurried.get(Kind.VM_CLAIM, ref_of(body))


async def test_a_write_cut_off_by_the_death_of_the_server_may_have_happened(
    shaky: ControlPlane, hurried: KubeCluster
) -> None:
    await hurried.list(Kind.WARM_POOL)
    shaky.pause_apiserver()
    killing = threading.Timer(0.3, shaky.kill_apiserver)
    killing.start()
    with pytest.raises(ClusterOutcomeUnknown):
        await hurried.create(Kind.VM_CLAIM, a_claim())
    await asyncio.to_thread(killing.join)


async def test_with_nobody_listening_nothing_happened(
    shaky: ControlPlane, hurried: KubeCluster
) -> None:
    shaky.kill_apiserver()
    with pytest.raises(ClusterUnavailable):
        await hurried.create(Kind.VM_CLAIM, a_claim())
    with pytest.raises(ClusterUnavailable):
        await hurried.list(Kind.VM_CLAIM)
    with pytest.raises(ClusterUnavailable):
        _ = [seen async for seen in hurried.watch_lease("nobody", "1")]


async def test_errors_hold_no_token(shaky: ControlPlane, hurried: KubeCluster) -> None:
    token = await hurried._credentials.token()
    shaky.kill_apiserver()
    with pytest.raises(ClusterUnavailable) as caught:
        await hurried.create(Kind.VM_CLAIM, a_claim())
    cause = caught.value.__cause__
    assert isinstance(cause, aiohttp.ClientError)
    assert token is not None
    assert token not in f"{caught.value!r} {cause!r} {json.dumps(str(cause))}"
