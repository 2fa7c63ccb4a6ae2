"""The life of a claim after Bound: its end, its health, who may have it, what others see of it."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import openstack
import pytest
import yaml
from harness.clouds import Simulator
from harness.sandbox import Sandbox

from warmpool.api.names import Kind
from warmpool.tools.cluster import Cluster
from warmpool.tools.crds import ROOT

Body = dict[str, Any]


def allocation(sandbox: Sandbox, claim: str) -> Body:
    found: Body = sandbox.get(Kind.VM_CLAIM, claim)["status"]["allocation"]
    return found


def condition(sandbox: Sandbox, claim: str, kind: str) -> Body:
    conditions = sandbox.get(Kind.VM_CLAIM, claim)["status"].get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def kept_for(sandbox: Sandbox, claim: str) -> timedelta | None:
    found = allocation(sandbox, claim)
    if "expiresAt" not in found:
        return None
    ends, began = (datetime.fromisoformat(found[key]) for key in ("expiresAt", "boundAt"))
    return ends - began


# -- lifetime ---------------------------------------------------------------------------------


def test_lifetimes_come_from_the_claim_and_its_pool(sandbox: Sandbox) -> None:
    endless = sandbox.pool("endless", 2)
    rules = {"defaultLifetime": "1h", "maxLifetime": "2h"}
    bounded = sandbox.pool("bounded", 4, claims=rules)
    sandbox.await_ready(endless, 2)
    sandbox.await_ready(bounded, 4)
    sandbox.bound("for-ever", {endless: 1})
    sandbox.bound("default", {bounded: 1})
    sandbox.bound("own", {bounded: 1}, lifetime="30m")
    sandbox.bound("greedy", {bounded: 1}, lifetime="0s")
    sandbox.bound("over-both", {bounded: 1, endless: 1}, lifetime="100h")
    assert kept_for(sandbox, "for-ever") is None
    assert kept_for(sandbox, "default") == timedelta(hours=1)
    assert kept_for(sandbox, "own") == timedelta(minutes=30)
    assert kept_for(sandbox, "greedy") == timedelta(hours=2)
    assert kept_for(sandbox, "over-both") == timedelta(hours=2)


def test_a_lifetime_that_ends_releases_the_vms_and_leaves_the_claim(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    vms = sandbox.bound("brief", {pool: 2}, lifetime="1h")
    names = {vm["name"] for vm in vms}
    patch = json.dumps({"spec": {"lifetime": "2s"}})
    sandbox.kubectl("patch", "vmclaim/brief", "--type=merge", f"--patch={patch}")
    sandbox.wait("vmclaim/brief", "jsonpath={.status.phase}=Released")
    assert condition(sandbox, "brief", "Bound")["reason"] == "Expired"
    sandbox.until(lambda: not names & set(sandbox.servers()), "its servers are gone")
    sandbox.await_ready(pool, 2)
    assert {vm["name"] for vm in allocation(sandbox, "brief")["vms"]} == names


def test_a_lifetime_may_be_prolonged_and_nothing_else_changed(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 1)
    sandbox.bound("long", {pool: 1}, lifetime="1h")
    sandbox.kubectl("patch", "vmclaim/long", "--type=merge", '--patch={"spec":{"lifetime":"3h"}}')
    sandbox.until(lambda: kept_for(sandbox, "long") == timedelta(hours=3), "three hours")
    changed = sandbox.claim_manifest("long", {pool: 2}, lifetime="3h")
    assert "requests cannot be changed" in sandbox.refusal(changed)


# -- namespaces -------------------------------------------------------------------------------


@pytest.fixture
def neighbour(sandbox: Sandbox) -> Iterator[str]:
    """Another namespace, whose claims are gone before the pools must go."""
    name = f"{sandbox.namespace}-b"
    sandbox.cluster.kubectl("create", "namespace", name)
    yield name
    sandbox.cluster.kubectl("delete", "vmclaims", "--all", "-n", name)
    sandbox.cluster.kubectl("delete", "namespace", name, "--wait=false")


def claim_from(sandbox: Sandbox, namespace: str, name: str, pool: str) -> Body:
    """The status of a claim from another namespace, once it is answered."""
    body = sandbox.claim_manifest(name, {pool: 1})
    body["metadata"]["namespace"] = namespace
    body["spec"]["requests"][0]["pool"]["namespace"] = sandbox.namespace
    sandbox.apply(body)

    def answer() -> Body | None:
        shown = sandbox.cluster.kubectl("get", "vmclaim", name, "-n", namespace, "-o", "json")
        status: Body = json.loads(shown.stdout).get("status", {})
        return status if status.get("phase") in ("Bound", "Failed") else None

    sandbox.until(answer, f"an answer to {name}")
    status = answer()
    assert status is not None
    return status


def test_a_pool_says_whose_claims_it_serves(sandbox: Sandbox, neighbour: str) -> None:
    pool = sandbox.full_pool("data", 3)
    refused = claim_from(sandbox, neighbour, "same", pool)
    assert refused["shortfall"]["reason"] == "NotPermitted"
    assert neighbour in refused["shortfall"]["message"]
    rule = {"from": "Selector", "matchLabels": {"team": "blue"}}
    sandbox.change(pool, {"claims": {"namespaces": rule}})
    assert claim_from(sandbox, neighbour, "no-label", pool)["phase"] == "Failed"
    sandbox.cluster.kubectl("label", "namespace", neighbour, "team=blue")
    labelled = claim_from(sandbox, neighbour, "labelled", pool)
    assert labelled["phase"] == "Bound"
    assert labelled["allocation"]["vms"][0]["namespace"] == sandbox.namespace
    sandbox.cluster.kubectl("label", "namespace", neighbour, "team-")
    assert claim_from(sandbox, neighbour, "unlabelled", pool)["phase"] == "Failed"
    sandbox.bound("own", {pool: 1})
    sandbox.change(pool, {"claims": {"namespaces": {"from": "All", "matchLabels": None}}})
    assert claim_from(sandbox, neighbour, "all", pool)["phase"] == "Bound"


# -- release ----------------------------------------------------------------------------------


def test_a_recycled_vm_is_the_same_server_built_anew(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 1, maxSize=1, reclaimPolicy="Recycle")
    [first] = sandbox.bound("first", {pool: 1})
    ready_at = sandbox.get(Kind.WARM_VM, first["name"])["status"]["readyAt"]
    sandbox.kubectl("delete", "vmclaim", "first")
    sandbox.until(lambda: sandbox.status(pool)["ready"] == 1, "it is ready again", 120)
    vm = sandbox.get(Kind.WARM_VM, first["name"])
    assert vm["status"]["serverID"] == first["serverID"]
    assert vm["status"]["readyAt"] > ready_at
    assert "claimRef" not in vm["spec"]
    assert "warmpool.dev/claim" not in vm["metadata"]["labels"]
    [second] = sandbox.bound("second", {pool: 1})
    assert (second["uid"], second["serverID"]) == (first["uid"], first["serverID"])


def test_a_retained_vm_is_kept_outside_the_pools_account(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 1, maxSize=1, reclaimPolicy="Retain")
    [vm] = sandbox.bound("first", {pool: 1})
    sandbox.kubectl("delete", "vmclaim", "first")
    sandbox.await_status(pool, "retained", 1)
    sandbox.await_ready(pool, 1)
    assert len(sandbox.servers()) == 2
    assert sandbox.get(Kind.WARM_VM, vm["name"])["spec"]["retained"] is True
    [other] = sandbox.bound("second", {pool: 1})
    assert other["uid"] != vm["uid"]
    sandbox.kubectl("delete", "vmclaim", "second")
    sandbox.await_status(pool, "retained", 2)
    sandbox.kubectl("delete", "warmvm", vm["name"], other["name"])
    sandbox.await_status(pool, "retained", 0)
    sandbox.until(lambda: len(sandbox.servers()) == 1, "they go when their owner says so")


# -- health -----------------------------------------------------------------------------------


def await_health(sandbox: Sandbox, claim: str, reason: str) -> Body:
    sandbox.until(
        lambda: condition(sandbox, claim, "Healthy").get("reason") == reason,
        f"Healthy of {claim} says {reason}",
    )
    return condition(sandbox, claim, "Healthy")


@pytest.mark.simulator
def test_a_server_that_is_gone_is_named_and_marked_lost(
    sandbox: Sandbox, simulator: Simulator
) -> None:
    pool = sandbox.full_pool("data", 3)
    vms = sandbox.bound("hit", {pool: 3})
    assert condition(sandbox, "hit", "Healthy")["status"] == "True"
    simulator.do(do="server", server=vms[1]["serverID"], change="wipe")
    health = await_health(sandbox, "hit", "VMsLost")
    assert health["status"] == "False"
    assert vms[1]["name"] in health["message"]
    assert vms[0]["name"] not in health["message"]
    entries = allocation(sandbox, "hit")["vms"]
    assert [vm["uid"] for vm in entries] == [vm["uid"] for vm in vms]
    assert [vm.get("lost", False) for vm in entries] == [False, True, False]
    assert sandbox.get(Kind.VM_CLAIM, "hit")["status"]["phase"] == "Bound"


@pytest.mark.simulator
def test_a_server_in_error_is_named_and_left_alone(sandbox: Sandbox, simulator: Simulator) -> None:
    pool = sandbox.full_pool("data", 2)
    vms = sandbox.bound("hit", {pool: 2})
    set_state(simulator, vms[0]["serverID"], "error")
    health = await_health(sandbox, "hit", "VMsUnhealthy")
    assert vms[0]["name"] in health["message"]
    assert "ERROR" in health["message"]
    assert not any(vm.get("lost") for vm in allocation(sandbox, "hit")["vms"])
    assert vms[0]["name"] in sandbox.servers()
    set_state(simulator, vms[0]["serverID"], "active")
    assert await_health(sandbox, "hit", "AllVMsHealthy")["status"] == "True"


def set_state(simulator: Simulator, server: str, state: str) -> None:
    """As an administrator of the cloud does."""
    config = yaml.safe_load(simulator.clouds_yaml)["clouds"][simulator.name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's, about itself
        with openstack.connect(load_yaml_config=False, load_envvars=False, **config) as cloud:
            cloud.compute.reset_server_state(server, state)


@pytest.mark.simulator
def test_a_vm_that_moves_is_followed(sandbox: Sandbox, simulator: Simulator) -> None:
    pool = sandbox.full_pool("data", 3)
    vms = sandbox.bound("moved", {pool: 3}, mode="RackAware")
    target = next(vm for vm in vms if vm["rack"] == "r1")
    simulator.do(do="server", server=target["serverID"], change="move", to="r2-h2")

    def place() -> Body:
        return next(vm for vm in allocation(sandbox, "moved")["vms"] if vm["uid"] == target["uid"])

    sandbox.until(lambda: place()["hypervisor"] == "r2-h2", "the allocation says where it is")
    assert place()["rack"] == "r2"
    assert not place().get("lost", False)
    health = condition(sandbox, "moved", "Healthy")
    assert health["status"] == "False"
    assert target["name"] in health["message"]


@pytest.mark.simulator
def test_a_lost_vm_is_replaced_within_the_same_constraints(
    sandbox: Sandbox, simulator: Simulator
) -> None:
    pool = sandbox.full_pool("data", 6)
    vms = sandbox.bound("whole", {pool: 4}, mode="HypervisorAware", replaceLost=True)
    simulator.do(do="server", server=vms[2]["serverID"], change="wipe")
    sandbox.until(lambda: len(allocation(sandbox, "whole")["vms"]) == 5, "a substitute")
    entries = allocation(sandbox, "whole")["vms"]
    lost = [vm["uid"] for vm in entries if vm.get("lost")]
    assert lost == [vms[2]["uid"]]
    present = [vm for vm in entries if not vm.get("lost")]
    assert len({vm["hypervisor"] for vm in present}) == len(present) == 4
    assert await_health(sandbox, "whole", "AllVMsHealthy")["status"] == "True"


# -- what others see of it --------------------------------------------------------------------


@pytest.mark.simulator
def test_the_claims_metadata_stands_on_its_servers(sandbox: Sandbox, simulator: Simulator) -> None:
    pool = sandbox.full_pool("data", 2)
    wanted = {"cluster": "logs-7", "tier": "hot"}
    vms = sandbox.bound("told", {pool: 2}, metadata=wanted)
    sandbox.wait("vmclaim/told", "condition=MetadataWritten")
    servers = {server["id"]: server for server in simulator.records(sandbox.mark)}
    for vm in vms:
        assert servers[vm["serverID"]]["metadata"].items() >= wanted.items()


def test_events_tell_the_story_of_a_claim(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 1)
    sandbox.bound("good", {pool: 1})
    sandbox.refused("bad", {pool: 9})

    def events(claim: str) -> list[tuple[str, str]]:
        selector = f"--field-selector=involvedObject.name={claim}"
        found = json.loads(sandbox.kubectl("get", "events", selector, "-o", "json"))["items"]
        return [(event["type"], event["reason"]) for event in found]

    sandbox.until(lambda: events("good") and events("bad"), "events on both")
    assert ("Normal", "Bound") in events("good")
    assert ("Warning", "NotEnoughReady") in events("bad")


def fit(sandbox: Sandbox, body: Body) -> tuple[int, str]:
    """`warmpool fit`: its exit status and what it says."""
    command = [sys.executable, "-m", "warmpool", "fit", "-f", "-", "-o", "json"]
    command += ["--kubeconfig", str(sandbox.cluster.kubeconfig)]
    done = subprocess.run(
        command, input=yaml.safe_dump(body), capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("mode", ["BestEffort", "RackAware", "HypervisorAware"])
def test_fit_says_beforehand_what_the_operator_then_does(sandbox: Sandbox, mode: str) -> None:
    data, master = sandbox.pool("data", 4), sandbox.pool("master", 3)
    sandbox.await_ready(data, 4)
    sandbox.await_ready(master, 3)
    asked = sandbox.claim_manifest("asked", {data: 1, master: 1}, mode=mode)
    code, text = fit(sandbox, asked)
    assert code == 0, text
    foretold = {(vm["request"], vm["name"]) for vm in json.loads(text)["vms"]}
    vms = sandbox.bound("asked", {data: 1, master: 1}, mode=mode)
    assert {(vm["request"], vm["name"]) for vm in vms} == foretold
    sandbox.await_ready(data, 4)
    sandbox.await_ready(master, 3)
    code, text = fit(sandbox, sandbox.claim_manifest("large", {data: 3, master: 4}, mode=mode))
    assert code == 1, text
    answer = json.loads(text)
    short = sandbox.refused("large", {data: 3, master: 4}, mode=mode)
    assert (answer["reason"], answer["message"]) == (short["reason"], short["message"])


def test_fit_that_cannot_tell_exits_with_two(sandbox: Sandbox) -> None:
    code, text = fit(sandbox, {"kind": "VMClaim", "spec": {"requests": []}})
    assert (code, text) == (2, "")


@pytest.fixture
def claimant(sandbox: Sandbox) -> Path:
    """The kubeconfig of somebody who may claim, and no more."""
    cluster: Cluster = sandbox.cluster
    cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "users.yaml"))
    sandbox.kubectl("create", "serviceaccount", "tenant")
    account = f"--serviceaccount={sandbox.namespace}:tenant"
    sandbox.kubectl("create", "rolebinding", "tenant", "--clusterrole=warmpool-claimant", account)
    return cluster.service_account_kubeconfig(sandbox.namespace, "tenant")


def test_a_claimant_reads_all_from_the_claim_the_moment_it_is_bound(
    sandbox: Sandbox, claimant: Path
) -> None:
    pool = sandbox.full_pool("data", 3)
    manifest = json.dumps(sandbox.claim_manifest("mine", {pool: 3}))

    def tenant(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        where = ("-n", sandbox.namespace)
        return sandbox.cluster.kubectl(*args, *where, kubeconfig=claimant, **more)

    tenant("create", "-f", "-", stdin=manifest)
    tenant("wait", "--for=condition=Bound", "vmclaim/mine", "--timeout=60s")
    vms = json.loads(tenant("get", "vmclaim", "mine", "-o", "json").stdout)["status"]["allocation"]
    wanted = {"name", "namespace", "uid", "request", "serverID", "hostname", "zone", "rack"}
    for vm in vms["vms"]:
        assert {key for key, value in vm.items() if value} >= wanted | {"hypervisor"}
    for deed in (["get", "warmvms"], ["get", "secrets"], ["delete", "warmpool", pool]):
        refused = tenant(*deed, check=False)
        assert refused.returncode != 0
        assert "orbidden" in refused.stderr
