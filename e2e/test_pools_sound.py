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


def test_a_new_template_is_rolled_out_and_shown(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 4, updateStrategy={"maxUnavailable": 2})
    [taken] = [vm["name"] for vm in sandbox.bound("keep", {pool: 1})]
    sandbox.await_ready(pool, 4)
    before = sandbox.status(pool)["revision"]
    sandbox.change(pool, {"template": {"metadata": {"generation": "2"}}})
    sandbox.wait(f"warmpool/{pool}", "condition=UpToDate=False")
    sandbox.wait(f"warmpool/{pool}", "condition=UpToDate", seconds=120)
    sandbox.await_ready(pool, 4)
    after = sandbox.status(pool)["revision"]
    shown = {vm["NAME"]: vm["REVISION"] for vm in sandbox.table("wvm")}
    assert shown.pop(taken) == before
    assert list(shown.values()) == [after] * 4
    assert sandbox.status(pool)["updated"] == 4
