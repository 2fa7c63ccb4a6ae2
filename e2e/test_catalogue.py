"""What a pool builds from, by one name out of the catalogue."""

from collections.abc import Iterator
from typing import Any

import pytest
from harness.clouds import Simulator
from harness.sandbox import Sandbox

from warmpool.api.names import API_VERSION, Kind

pytestmark = pytest.mark.simulator


@pytest.fixture
def entry(sandbox: Sandbox) -> Iterator[str]:
    """Name of an entry of the test's own, which is not there yet."""
    name = f"e2e-{sandbox.mark}"
    yield name
    sandbox.cluster.kubectl("delete", "vmflavor", name, "--ignore-not-found")


def write(sandbox: Sandbox, name: str, tier: str, **spec: Any) -> None:
    """`kubectl apply` an entry."""
    template = sandbox.cloud.template()
    image = {"name": template["image"]}
    spec |= {"flavor": template["flavor"], "image": image, "metadata": {"tier": tier}}
    metadata = {"name": name}
    kind = {"apiVersion": API_VERSION, "kind": Kind.VM_FLAVOR.value}
    sandbox.apply({**kind, "metadata": metadata, "spec": spec})


def tiers(simulator: Simulator, mark: str) -> set[str]:
    return {server["metadata"]["tier"] for server in simulator.records(mark)}


def test_a_pool_follows_its_entry_as_far_as_its_project_may(
    sandbox: Sandbox, simulator: Simulator, entry: str
) -> None:
    write(sandbox, entry, "silver", projects=[{"projectID": "demo"}])
    template = {"flavor": None, "image": None, "flavorRef": {"name": entry}}
    rolls = {"type": "RollingUpdate", "maxUnavailable": 1}
    pool = sandbox.pool("data", 2, template=template, updateStrategy=rolls)
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False")
    told = sandbox.condition(pool, "DependenciesResolved")
    assert told["reason"] == "ProjectNotPermitted"
    assert "its projects do not name it: add it there" in told["message"]
    assert sandbox.servers() == []

    write(sandbox, entry, "silver", projects=[{"project": "demo", "domain": "Default"}])
    sandbox.await_ready(pool, 2)
    assert tiers(simulator, sandbox.mark) == {"silver"}
    sandbox.cluster.kubectl("wait", f"vmflavor/{entry}", "--for=condition=Resolved")
    [claimed] = sandbox.bound("one", {pool: 1})

    write(sandbox, entry, "gold", projects=[{"project": "demo", "domain": "Default"}])
    sandbox.until(
        lambda: (
            sorted(server["metadata"]["tier"] for server in simulator.records(sandbox.mark))
            == ["gold", "gold", "silver"]
        ),
        "the new meaning of the entry, but for the claimed VM",
    )
    sandbox.await_ready(pool, 2)
    [kept] = [s for s in simulator.records(sandbox.mark) if s["metadata"]["tier"] == "silver"]
    assert kept["id"] == claimed["serverID"]
