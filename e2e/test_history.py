"""What a whole operator tells of what it did: its history, its metrics, its page."""

from harness.fleet import Fleet
from harness.sandbox import Sandbox

from warmpool.api.names import Reason
from warmpool.domain.history import BuildRecord, ClaimRecord, ReleaseRecord, RemovalRecord, Result
from warmpool.domain.ids import Ref
from warmpool.tools.processes import wait_until

SECONDS = 60.0


def test_a_claim_and_its_vms_have_their_story(fleet: Fleet, sandbox: Sandbox) -> None:
    pool = sandbox.full_pool("data", 3)
    vms = sandbox.bound("told", {pool: 2})
    names = {Ref(sandbox.namespace, vm["name"]) for vm in vms}
    claim = Ref(sandbox.namespace, "told")

    def answer() -> ClaimRecord | None:
        return next((r for r in fleet.records(ClaimRecord) if r.claim == claim), None)

    told = wait_until(answer, timeout=SECONDS, what="the claim's record")
    assert (told.result, told.size) == (Result.BOUND, 2)
    builds = {r.vm.ref: r for r in fleet.records(BuildRecord) if r.vm.ref in names}
    assert builds.keys() == names
    assert {build.result for build in builds.values()} == {Result.READY}
    assert all(build.took for build in builds.values())
    removals = [r for r in fleet.records(RemovalRecord) if r.claim == claim]
    assert {(r.vm.ref, r.why) for r in removals} == {(name, Reason.BOUND) for name in names}
    places = {(r.vm.ref, r.vm.place.rack, r.vm.place.hypervisor) for r in removals}
    assert {(name.name, rack, host) for name, rack, host in places} == {
        (vm["name"], vm.get("rack", ""), vm["hypervisor"]) for vm in vms
    }
    metrics = fleet.metrics()
    assert "warmpool_leader 1.0" in metrics
    labels = f'namespace="{sandbox.namespace}",outcome="hit",pool="{pool}"'
    assert f"warmpool_pool_claims_total{{{labels}}} 1.0" in metrics
    shown = fleet.page(f"api/claims?hours=1&pool={sandbox.namespace}/{pool}")
    assert [(each["claim"]["name"], each["result"]) for each in shown["claims"]] == [
        ("told", "bound")
    ]
    pools = {(each["namespace"], each["name"]) for each in fleet.page("api/now")["pools"]}
    assert (sandbox.namespace, pool) in pools
    sandbox.kubectl("delete", "vmclaim", "told")
    wait_until(
        lambda: {r.vm.ref for r in fleet.records(ReleaseRecord) if r.claim == claim} == names,
        timeout=SECONDS,
        what="the VMs' release",
    )
