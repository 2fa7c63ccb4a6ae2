"""Pools stay sound: what works no more leaves, what is old is replaced, and nobody has to look."""

import pytest
from harness.clouds import Simulator
from harness.sandbox import Sandbox

from warmpool.api.names import Kind


@pytest.mark.simulator
def test_a_vm_that_answers_no_more_leaves_at_once_and_is_replaced(
    sandbox: Sandbox, simulator: Simulator
) -> None:
    health = {"probe": simulator.probe(), "period": "2s"}
    pool = sandbox.full_pool("data", 3, health=health)
    victim = simulator.records(sandbox.mark)[0]
    simulator.do(do="server", server=victim["id"], change="silence")
    sandbox.await_status(pool, "ready", 2)
    [row] = [vm for vm in sandbox.table("wvm") if vm["NAME"] == victim["name"]]
    assert row["PHASE"] == "Failed"
    sandbox.wait(f"warmvm/{victim['name']}", "delete")
    sandbox.await_ready(pool, 3)
    assert victim["name"] not in sandbox.names(Kind.WARM_VM)
    assert sandbox.condition(pool, "Healthy")["status"] == "True"
