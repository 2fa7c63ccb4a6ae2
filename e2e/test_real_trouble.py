"""Trouble that a real Nova can be made to have: what the pool says, and that it ends by itself.

All that a cloud can do is in tests/scenario/test_faults.py. These are the same faults, as far as
the owner of an OpenStack can bring them about with its own API and its processes.
"""

import pytest
import yaml
from harness.lab import Lab
from harness.sandbox import SECRET, Sandbox

from warmpool.api.names import Kind

pytestmark = pytest.mark.openstack

SHORTLY = 120


def is_even(sandbox: Sandbox) -> bool:
    """There is one server for each WarmVM, and no other of ours."""
    return sorted(sandbox.servers()) == sorted(sandbox.names(Kind.WARM_VM))


def test_no_valid_host_and_then_a_host_comes_back(sandbox: Sandbox, lab: Lab) -> None:
    pool = sandbox.full_pool("data", 2)
    lab.disable_all()
    sandbox.scale(pool, 4)
    sandbox.wait(f"warmpool/{pool}", "condition=CapacityAvailable=False")
    assert sandbox.condition(pool, "CapacityAvailable")["reason"] == "NoValidHost"
    assert sandbox.status(pool)["ready"] == 2
    lab.enable_all()
    sandbox.await_ready(pool, 4, seconds=SHORTLY)
    assert sandbox.condition(pool, "CapacityAvailable")["status"] == "True"
    sandbox.until(lambda: is_even(sandbox), "no wreck is left")


@pytest.mark.parametrize(("kind", "reason"), [("image", "ImageNotFound"),
                                              ("flavor", "FlavorNotFound")])  # fmt: skip
def test_image_or_flavor_deleted(sandbox: Sandbox, lab: Lab, kind: str, reason: str) -> None:
    name = lab.make(kind, f"warm-{sandbox.mark}")
    pool = sandbox.full_pool("data", 2, template={kind: name})
    before = set(sandbox.servers())
    lab.remove(kind, name)
    sandbox.scale(pool, 3)
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False", seconds=SHORTLY)
    assert sandbox.condition(pool, "DependenciesResolved")["reason"] == reason
    assert sandbox.status(pool)["ready"] == 2
    lab.make(kind, name)
    sandbox.await_ready(pool, 3, seconds=SHORTLY)
    assert before < set(sandbox.servers())
    sandbox.until(lambda: is_even(sandbox), "one server for each VM")


def test_deleted_renamed_moved_and_wiped_by_someone(sandbox: Sandbox, lab: Lab) -> None:
    pool = sandbox.full_pool("data", 4)
    places = {vm["NAME"]: vm["HYPERVISOR"] for vm in sandbox.table("wvm")}
    deleted, renamed, moved, untagged = places
    lab.change(renamed, "rename")
    lab.change(untagged, "untag")
    lab.change(moved, "move")
    lab.change(deleted, "wipe")
    sandbox.wait(f"warmvm/{deleted}", "delete", seconds=SHORTLY)
    sandbox.await_ready(pool, 4)

    def now() -> dict[str, str]:
        return {vm["NAME"]: vm["HYPERVISOR"] for vm in sandbox.table("wvm")}

    sandbox.until(lambda: now()[moved] != places[moved], "its new place", SHORTLY)
    assert now().keys() > {renamed, moved, untagged}
    sandbox.await_ready(pool, 4)
    assert len(sandbox.servers()) == 4


def test_active_and_never_reachable(sandbox: Sandbox, lab: Lab) -> None:
    if not sandbox.cloud.template()["networks"]:
        pytest.skip("without a network a server has no address to probe")
    assert lab.hypervisors()
    probe = {"tcpSocket": {"port": 9}}
    pool = sandbox.pool("data", 1, health={"launchTimeout": "6s", "probe": probe})
    sandbox.await_status(pool, "lastFailure.reason", "ProbeFailed")
    assert sandbox.status(pool)["ready"] == 0
    health = {"launchTimeout": "5m", "probe": {"tcpSocket": None, "none": {}}}
    sandbox.change(pool, {"health": health})
    sandbox.await_ready(pool, 1, seconds=SHORTLY)
    sandbox.until(lambda: is_even(sandbox), "what failed is gone")


def test_a_delete_that_hangs(sandbox: Sandbox, lab: Lab) -> None:
    """Its nova-compute is dead, and Nova does not know it yet."""
    pool = sandbox.full_pool("data", 2)
    victim = sandbox.table("wvm")[0]
    lab.kill_compute(victim["HYPERVISOR"])
    sandbox.kubectl("delete", "wvm", victim["NAME"], "--wait=false")
    sandbox.await_ready(pool, 2, seconds=SHORTLY)
    lab.revive_computes()
    sandbox.wait(f"warmvm/{victim['NAME']}", "delete", seconds=SHORTLY)
    sandbox.until(lambda: is_even(sandbox) and len(sandbox.servers()) == 2, "it is gone", SHORTLY)


def test_stuck_in_build(sandbox: Sandbox, lab: Lab) -> None:
    """All nova-compute are dead, and Nova sends them builds."""
    for hypervisor in lab.hypervisors():
        lab.kill_compute(hypervisor)
    pool = sandbox.pool("data", 2, health={"launchTimeout": "8s"})
    sandbox.await_status(pool, "lastFailure.reason", "LaunchTimeout", seconds=SHORTLY)
    lab.revive_computes()
    sandbox.change(pool, {"health": {"launchTimeout": "5m"}})
    sandbox.await_ready(pool, 2, seconds=2 * SHORTLY)
    sandbox.until(lambda: is_even(sandbox) and len(sandbox.servers()) == 2, "no wreck", SHORTLY)


def test_a_wrong_password_for_a_while(sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 2)
    before = set(sandbox.servers())
    clouds = yaml.safe_load(sandbox.cloud.clouds_yaml)
    clouds["clouds"][sandbox.cloud.name]["auth"]["password"] = "wrong"  # noqa: S105 - the point
    sandbox.secret(SECRET, {"clouds.yaml": yaml.safe_dump(clouds)})
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False", seconds=SHORTLY)
    assert sandbox.condition(pool, "DependenciesResolved")["reason"] == "CredentialsRefused"
    assert sandbox.status(pool)["ready"] == 2
    sandbox.secret(SECRET, {"clouds.yaml": sandbox.cloud.clouds_yaml})
    sandbox.scale(pool, 3)
    sandbox.await_ready(pool, 3, seconds=SHORTLY)
    assert before < set(sandbox.servers())
