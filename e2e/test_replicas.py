"""Replicas: one leads, the other follows at once; a restart goes on where it was; few rights do."""

import signal
import time

import pytest
from harness.fleet import ACCOUNT, HOME, Fleet
from harness.sandbox import Sandbox

from warmpool.api.names import Kind
from warmpool.embed import OperatorThread, Placed, Settings
from warmpool.tools.cluster import Cluster

TAKEOVER = 10.0
"""Seconds, the length of the lease: a takeover that takes as long has waited for its end."""


def test_the_other_replica_takes_over_on_sigterm(sandbox: Sandbox, fleet: Fleet) -> None:
    pool = sandbox.full_pool("data", 3)
    fleet.ensure(2)
    first = fleet.leader()
    first.send(signal.SIGTERM)
    started = time.monotonic()
    sandbox.bound("after", {pool: 1})
    took = time.monotonic() - started
    assert first.wait(20) == 0
    assert fleet.leader() is not first
    assert took < TAKEOVER
    sandbox.await_ready(pool, 3)
    assert len(sandbox.servers()) == 4


def test_a_restart_while_filling_builds_none_too_many(sandbox: Sandbox, fleet: Fleet) -> None:
    pool = sandbox.pool("data", 8, maxConcurrent=2)
    sandbox.until(lambda: sandbox.status(pool).get("ready", 0) >= 2, "two VMs")
    assert fleet.leader().terminate() == 0
    assert fleet.running == []
    seen = set(sandbox.servers())
    assert 2 <= len(seen) < 8
    fleet.ensure(1)
    sandbox.await_ready(pool, 8)
    now = sandbox.servers()
    assert len(now) == 8
    assert seen <= set(now)


def test_a_claim_made_while_nobody_runs_is_served(sandbox: Sandbox, fleet: Fleet) -> None:
    pool = sandbox.full_pool("data", 3)
    sandbox.bound("kept", {pool: 1})
    sandbox.await_ready(pool, 3)
    fleet.stop()
    sandbox.claim("new", {pool: 2})
    sandbox.kubectl("delete", "vmclaim", "kept")
    fleet.ensure(1)
    sandbox.wait("vmclaim/new", "condition=Bound")
    sandbox.await_ready(pool, 3)
    sandbox.until(lambda: len(sandbox.servers()) == 5, "the claim that went is released")


def test_the_operator_has_its_role_and_no_more(
    cluster: Cluster, fleet: Fleet, sandbox: Sandbox
) -> None:
    """What it does in all the other journeys, it does with this."""
    sandbox.full_pool("data", 1)
    account = f"system:serviceaccount:{HOME}:{ACCOUNT}"

    def may(*deed: str) -> bool:
        asked = cluster.kubectl("auth", "can-i", *deed, f"--as={account}", check=False)
        return asked.stdout.strip() == "yes"

    assert may("create", "warmvms.warmpool.dev", "-n", sandbox.namespace)
    for deed in ("list secrets", "delete warmpools.warmpool.dev", "create vmclaims.warmpool.dev"):
        assert not may(*deed.split(), "-n", sandbox.namespace), deed
    assert "orbidden" not in fleet.log()


@pytest.mark.simulator
def test_whoever_stands_by_writes_nothing(sandbox: Sandbox, fleet: Fleet) -> None:
    fleet.ensure(2)
    leader = fleet.leader()
    pool = sandbox.full_pool("data", 4)
    sandbox.bound("c", {pool: 2})
    sandbox.await_ready(pool, 4)
    assert fleet.leader() is leader
    assert len(sandbox.names(Kind.WARM_VM)) == len(sandbox.servers()) == 6


def test_the_fleet_is_listed_and_says_who_leads(sandbox: Sandbox, fleet: Fleet) -> None:
    fleet.ensure(2)
    first, second = fleet.running

    def roles() -> dict[str, str]:
        done = fleet.status()
        return {each["identity"]: each["role"] for each in done["replicas"]}

    here = {fleet.leader().name: "leader"}
    here = {each.name: here.get(each.name, "standby") for each in (first, second)}
    sandbox.until(lambda: here.items() <= roles().items(), f"{here} are listed")
    victim = fleet.leader()
    victim.kill()
    other = second if victim is first else first
    sandbox.until(lambda: roles()[other.name] == "leader", f"{other.name} leads")
    assert fleet.status()["leader"]["identity"] == other.name
    assert other.terminate() == 0
    assert other.name not in roles()
    assert fleet.status()["led"] is False


def test_an_embedded_operator_serves_claims_while_another_only_answers(
    sandbox: Sandbox, fleet: Fleet
) -> None:
    """Both in this process, with the rights of the operator's role; no other operator runs."""
    pool = sandbox.full_pool("data", 2)
    fleet.stop()
    settings = Settings(kubeconfig=str(fleet.kubeconfig))
    with OperatorThread(settings) as leading, OperatorThread(settings, participate=False) as other:
        sandbox.until(lambda: leading.leads, "it leads")
        manifest = sandbox.claim_manifest("logs", {pool: 2})
        assert isinstance(other.fit(manifest), Placed)
        sandbox.bound("logs", {pool: 2})
        sandbox.await_ready(pool, 2)
        sandbox.until(lambda: claimable(other, sandbox, pool) == 2, "the other has seen it")
        leader = other.leader()
        assert leader is not None
        assert leader.identity == leading.identity
        assert not other.leads


def claimable(operator: OperatorThread, sandbox: Sandbox, pool: str) -> int:
    found = operator.claimable(sandbox.namespace, pool)
    return found.any if found is not None else 0
