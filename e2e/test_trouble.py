"""Trouble in Nova: the pool says so, holds, cleans up, and finds out by itself when it is over."""

import pytest
from harness.clouds import Simulator
from harness.sandbox import Sandbox

from warmpool.api.names import Kind

pytestmark = pytest.mark.simulator


def test_a_vm_whose_guest_never_answers_is_replaced(sandbox: Sandbox, simulator: Simulator) -> None:
    probe = simulator.probe()
    pool = sandbox.pool("data", 1, health={"launchTimeout": "4s", "probe": probe})

    def silenced() -> str:
        for server in simulator.records(sandbox.mark):
            simulator.do(do="server", server=server["id"], change="silence")
            return str(server["name"])
        return ""

    sandbox.until(silenced, "a server, before its guest is up")
    [silent] = sandbox.servers()
    sandbox.await_ready(pool, 1)
    sandbox.until(lambda: silent not in sandbox.names(Kind.WARM_VM), "the silent VM is gone")
    assert sandbox.servers() == sandbox.names(Kind.WARM_VM)


def test_a_pool_whose_guests_never_answer_says_so(sandbox: Sandbox, simulator: Simulator) -> None:
    wrong = {"tcpSocket": {"port": simulator.guest_port + 1}}
    pool = sandbox.pool("data", 1, health={"launchTimeout": "2s", "probe": wrong})
    sandbox.await_status(pool, "lastFailure.reason", "ProbeFailed")
    failure = sandbox.status(pool)["lastFailure"]
    assert "2s" in failure["message"]
    sandbox.change(pool, {"health": {"launchTimeout": "5m", "probe": simulator.probe()}})
    sandbox.await_ready(pool, 1)
    sandbox.until(lambda: len(sandbox.servers()) == 1, "what failed is gone")


def test_a_server_in_error_is_cleaned_up(sandbox: Sandbox, simulator: Simulator) -> None:
    simulator.break_with(kind="spawn", effect="abort", name=sandbox.mark, count=2)
    pool = sandbox.pool("data", 3)
    sandbox.await_ready(pool, 3)
    sandbox.until(lambda: len(sandbox.servers()) == 3, "those in ERROR are gone")
    assert {server["status"] for server in simulator.records(sandbox.mark)} == {"ACTIVE"}


def test_no_valid_host_holds_and_leaves_nothing_behind(sandbox: Sandbox) -> None:
    pool = sandbox.pool("huge", 1, template={"flavor": "m1.huge"})
    sandbox.wait(f"warmpool/{pool}", "condition=CapacityAvailable=False")
    assert sandbox.condition(pool, "CapacityAvailable")["reason"] == "NoValidHost"
    sandbox.until(lambda: sandbox.servers() == [], "its ERROR server is deleted")


def test_an_answer_that_is_lost_builds_no_second_server(
    sandbox: Sandbox, simulator: Simulator
) -> None:
    simulator.break_with(
        kind="api", effect="lost", method="POST", path="^/compute/v2.1/servers$", count=2
    )
    pool = sandbox.pool("data", 3)
    sandbox.await_ready(pool, 3)
    assert sorted(sandbox.servers()) == sorted(sandbox.names(Kind.WARM_VM))


def test_a_server_that_vanishes_is_replaced(sandbox: Sandbox, simulator: Simulator) -> None:
    pool = sandbox.full_pool("data", 2)
    victim = simulator.records(sandbox.mark)[0]
    simulator.do(do="server", server=victim["id"], change="wipe")
    sandbox.wait(f"warmvm/{victim['name']}", "delete", seconds=90)
    sandbox.await_ready(pool, 2)
    assert victim["name"] not in sandbox.servers()


def test_an_outage_of_nova_condemns_nothing(sandbox: Sandbox, simulator: Simulator) -> None:
    pool = sandbox.full_pool("data", 2)
    before = sorted(sandbox.servers())
    outage = simulator.break_with(kind="api", effect="status", status=503, path="^/compute/")
    sandbox.scale(pool, 3)
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False")
    assert sandbox.condition(pool, "DependenciesResolved")["reason"] == "CloudUnavailable"
    [vm] = sandbox.bound("during", {pool: 1})
    assert vm["name"] in before
    simulator.disarm(outage)
    sandbox.await_ready(pool, 3)
    assert set(before) < set(sandbox.servers())
