"""The API server fails: it is cut off, restarted, away for long, restored from a backup.

On a control plane of their own, which nobody shares. What is right in each case is told in
docs/operations.md.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.clouds import Body, Simulator
from harness.fleet import HOME, Fleet, install
from harness.proxy import Proxy
from harness.sandbox import Sandbox

from warmpool.api.names import LEDGER_NAME, META_CLAIM_UID, Kind
from warmpool.tools.controlplane import ControlPlane

LONG_LEASE = {
    "WARMPOOL_LEASE_SECONDS": "60",
    "WARMPOOL_LEASE_DEADLINE_SECONDS": "55",
    "WARMPOOL_LEASE_RETRY_SECONDS": "1",
}
"""Outlives an outage of some seconds: no takeover looks at everything anew."""

OUTAGE = 12.0
"""Seconds that the API server is away. Five minutes are thirty leases of the default, and this is
three of the tests': leadership runs out, and the watches' pauses have grown to their longest."""


MERGE = ("--type=merge", "-p")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disasters")


@pytest.fixture(scope="module")
def cluster(folder: Path, request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """One that may be broken."""
    if request.config.getoption("--kubeconfig"):
        pytest.skip("breaks the API server")
    with ControlPlane(folder / "plane") as plane:
        plane.assert_test_context()
        yield plane


@pytest.fixture(scope="module")
def line(cluster: ControlPlane) -> Iterator[Proxy]:
    """Between the operators and the API server."""
    with Proxy(cluster.apiserver.url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def kubeconfig(cluster: ControlPlane, line: Proxy, folder: Path) -> Path:
    return line.kubeconfig(install(cluster), folder / "operator")


@pytest.fixture(scope="module")
def replicas(cluster: ControlPlane, kubeconfig: Path, folder: Path) -> Iterator[Fleet]:
    fleet = Fleet(cluster, kubeconfig, folder)
    yield fleet
    fleet.stop()


@pytest.fixture
def patient(cluster: ControlPlane, fleet: Fleet, kubeconfig: Path, folder: Path) -> Iterator[Fleet]:
    """One replica that leads on through an outage of seconds; the usual one is gone meanwhile."""
    fleet.stop()
    patient = Fleet(cluster, kubeconfig, folder, name="patient", env=LONG_LEASE)
    patient.ensure(1)
    yield patient
    patient.stop()


def test_watches_that_are_cut_again_and_again_miss_nothing(
    sandbox: Sandbox, fleet: Fleet, line: Proxy
) -> None:
    pool = sandbox.full_pool("data", 3)
    leader = fleet.leader()
    for n in range(4):
        line.cut()
        sandbox.bound(f"c{n}", {pool: 1})
        line.cut()
        sandbox.kubectl("delete", "vmclaim", f"c{n}")
    sandbox.await_ready(pool, 3)
    sandbox.until(lambda: len(sandbox.servers()) == 3, "what was released is gone")
    assert leader.alive


def test_what_goes_while_nobody_can_watch_is_missed_soon(
    sandbox: Sandbox, patient: Fleet, line: Proxy, cluster: ControlPlane
) -> None:
    """A watch that begins anew after a 410 does not tell of it: the store is held against a LIST.

    It was once found out by the comparison of every five minutes.
    """
    pool = sandbox.full_pool("data", 2)
    sandbox.bound("gone", {pool: 1})
    sandbox.await_ready(pool, 2)
    line.refuse()
    sandbox.kubectl("delete", "vmclaim", "gone")
    cluster.restart_apiserver()  # its cache of former states begins after the deletion
    line.heal()
    sandbox.until(lambda: len(sandbox.servers()) == 2, "what was claimed is given up", 30)
    assert patient.log().count("took over") == 1
    assert "had vanished without an event" in patient.log()


@pytest.mark.simulator
def test_an_api_server_that_is_long_away_is_waited_for(
    sandbox: Sandbox, fleet: Fleet, cluster: ControlPlane
) -> None:
    """Nothing is built or deleted meanwhile, and afterwards all goes on by itself."""
    fleet.ensure(2)
    pool = sandbox.full_pool("data", 3)
    sandbox.bound("before", {pool: 1})
    sandbox.await_ready(pool, 3)
    before, replicas = sorted(sandbox.servers()), fleet.running
    cluster.kill_apiserver()
    threading.Event().wait(OUTAGE)
    assert sorted(sandbox.servers()) == before
    cluster.restart_apiserver()
    sandbox.bound("after", {pool: 1})
    sandbox.await_ready(pool, 3)
    assert fleet.running == replicas
    assert set(before) < set(sandbox.servers())


@pytest.mark.simulator
def test_a_backup_that_is_restored_costs_no_claim_its_vms(
    sandbox: Sandbox, fleet: Fleet, cluster: ControlPlane, simulator: Simulator, folder: Path
) -> None:
    """It is said to be old by what the leader last wrote in it, so that nobody waits an hour."""
    pool = sandbox.full_pool("data", 2)
    fleet.stop()
    long_ago = '{"spec": {"writtenAt": "2026-01-01T00:00:00Z"}}'
    cluster.kubectl("patch", "bindingledgers", LEDGER_NAME, "-n", HOME, *MERGE, long_ago)
    cluster.backup(folder / "backup")
    fleet.ensure(1)
    known = ids(sandbox.bound("known", {pool: 2}))
    sandbox.await_ready(pool, 2)
    used = known | ids(sandbox.bound("built-since", {pool: 2}))
    sandbox.until(lambda: used <= marked(simulator), "whose they are stands on the servers")
    [former] = fleet.running

    cluster.restore(folder / "backup")
    sandbox.until(lambda: not former.alive, "whoever remembers more ends")
    fleet.ensure(1)
    new = ids(sandbox.bound("new", {pool: 2}, onUnsatisfied="Wait", timeout="5m"))
    assert not new & used
    sandbox.await_ready(pool, 2)
    assert used <= {server["id"] for server in simulator.records()}
    held = {vm["status"]["serverID"]: vm for vm in retained(sandbox)}
    assert known <= held.keys()
    assert {held[server]["spec"]["claimRef"]["name"] for server in known} == {"known"}

    def given_back() -> bool:
        for vm in retained(sandbox):
            vm_name = vm["metadata"]["name"]
            sandbox.kubectl("patch", "warmvm", vm_name, *MERGE, '{"spec": {"retained": false}}')
        return not known & {server["id"] for server in simulator.records()}

    sandbox.until(given_back, "a person has decided, and they are gone")
    ours = {vm["status"].get("serverID") for vm in sandbox.all(Kind.WARM_VM)}
    for server in simulator.records(sandbox.mark):
        if server["id"] not in ours:
            simulator.do(do="server", server=server["id"], change="wipe")


def ids(vms: list[Body]) -> set[str]:
    return {vm["serverID"] for vm in vms}


def marked(simulator: Simulator) -> set[str]:
    """Servers that are a claim's by what stands on them."""
    return {s["id"] for s in simulator.records() if s["metadata"].get(META_CLAIM_UID)}


def retained(sandbox: Sandbox) -> list[Body]:
    return [vm for vm in sandbox.all(Kind.WARM_VM) if vm["spec"].get("retained")]
