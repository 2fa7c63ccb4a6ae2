"""A storm of claims of mixed shapes against pools that cannot serve all, while leaders are killed.

`make test` runs a small one; `WARMPOOL_STORM=full` runs 1,000 claims and 10 kills. `--seed` repeats
the choices of a run, though not its timing.
"""

import asyncio
import contextlib
import json
import os
import random
import secrets
import statistics
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from harness.clouds import Simulator
from harness.fleet import HOME, Fleet
from harness.history import Api, Recorder
from harness.replay import Replay, Verdict
from harness.sandbox import Body, Sandbox
from harness.storm import FULL, SMALL, Storm

from warmpool.api.names import Kind
from warmpool.tools.cluster import Cluster
from warmpool.tools.crds import ROOT
from warmpool.tools.processes import temporary_directory

pytestmark = pytest.mark.simulator

WORLD = Path(__file__).parent / "storm_world.yaml"
REPLICAS = {"data": 80, "master": 40}
RESERVE = 3
"""Of `data`, for claims of priority 1000."""


@pytest.fixture
def stormy(cluster: Cluster, fleet: Fleet) -> Iterator[Sandbox]:
    """A namespace over a cloud of the storm's own."""
    with temporary_directory("warmpool-storm-") as directory:
        cloud = Simulator(directory, world=WORLD)
        cloud.zones = ("az1", "az2", "az3")
        opened = Sandbox(cluster, cloud)
        opened.create()
        yield opened
        fleet.ensure(1)
        opened.clear()
        assert opened.servers() == []
        opened.remove()
        cloud.stop()


@pytest.fixture
def claimant(cluster: Cluster, stormy: Sandbox) -> Path:
    """The kubeconfig of a client that may claim, and no more."""
    cluster.kubectl("apply", "-f", str(ROOT / "manifests" / "users.yaml"))
    stormy.kubectl("create", "serviceaccount", "tenant")
    account = f"--serviceaccount={stormy.namespace}:tenant"
    stormy.kubectl("create", "rolebinding", "tenant", "--clusterrole=warmpool-claimant", account)
    return cluster.service_account_kubeconfig(stormy.namespace, "tenant")


@contextlib.asynccontextmanager
async def recording(sandbox: Sandbox) -> AsyncIterator[Recorder]:
    collections = {Kind.VM_CLAIM: sandbox.namespace, Kind.WARM_VM: sandbox.namespace}
    collections[Kind.BINDING_LEDGER] = HOME
    async with (
        Api(sandbox.cluster.kubeconfig) as api,
        Recorder(api, collections).running() as recorder,
    ):
        yield recorder


def filled(sandbox: Sandbox) -> dict[str, str]:
    """The pools, once they are full. VMs of one are built anew after a claim, the other's go."""
    more: dict[str, Body] = {"data": {"reserve": RESERVE}, "master": {"reclaimPolicy": "Recycle"}}
    pools = {
        short: sandbox.pool(short, replicas, maxConcurrent=16, health={}, **more[short])
        for short, replicas in REPLICAS.items()
    }
    for short, pool in pools.items():
        sandbox.await_ready(pool, REPLICAS[short])
    return pools


def spoken(storm: Storm, verdict: Verdict, events: int) -> str:
    """The figures of a run."""
    took = sorted(at - storm.posted[uid] for uid, at in verdict.answered.items())
    gaps = [round(gap, 2) for gap in storm.gaps]
    figures: Body = dict(sorted(verdict.figures.items()))
    figures |= {"events": events, "most claims open at once": storm.most_open}
    times = {f"p{p}": round(took[len(took) * p // 100], 3) for p in (50, 90, 99)}
    figures |= {"seconds to the answer": times, "seconds from kill to takeover": gaps}
    figures["median takeover"] = round(statistics.median(gaps), 2)
    return json.dumps(figures, indent=1)


async def test_a_storm_of_claims_while_leaders_die(
    stormy: Sandbox,
    fleet: Fleet,
    claimant: Path,
    pytestconfig: pytest.Config,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile = FULL if os.environ.get("WARMPOOL_STORM") == "full" else SMALL
    seed = pytestconfig.getoption("--seed") or secrets.randbits(32)
    pools = await asyncio.to_thread(filled, stormy)
    await asyncio.to_thread(fleet.ensure, 2)
    async with recording(stormy) as recorder, Api(claimant) as client:
        storm = Storm(
            profile,
            random.Random(seed),  # noqa: S311 - a test's choices
            client,
            recorder,
            fleet,
            stormy.namespace,
            list(pools.values()),
        )
        await storm.rage()
        await storm.settle(sum(REPLICAS.values()))
        events = list(recorder.events)
    verdict = Replay(events, {pools["data"]: RESERVE}).run()
    with capsys.disabled():
        print(f"\nstorm, seed {seed}: {spoken(storm, verdict, len(events))}")
    assert verdict.faults == [], f"seed {seed}"
    assert len(storm.gaps) == profile.kills
    assert len(storm.posted) == profile.claims
    assert isinstance(stormy.cloud, Simulator)
    known = {vm["status"]["serverID"] for vm in recorder.now[Kind.WARM_VM].values()}
    assert {server["id"] for server in stormy.cloud.records()} == known
