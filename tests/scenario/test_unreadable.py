"""Objects that cannot be read, say a newer operator's: nothing stops, and none counts as gone."""

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.reconcile.sweeper import COMPARE_EVERY, CONDEMN_AFTER, SWEEP_EVERY, Comparer

pytestmark = pytest.mark.looptime

LONG = COMPARE_EVERY + CONDEMN_AFTER + 2 * SWEEP_EVERY


def mar(lab: Lab, kind: Kind) -> None:
    """Make all objects of a kind such that nobody can read them."""
    for ref, body in lab.cluster.peek(kind).items():
        unknown = {
            Kind.WARM_POOL: {"replicas": "a few"},
            Kind.VM_CLAIM: {"lifetime": 5},
            Kind.WARM_VM: {"retained": "perhaps"},
        }
        lab.cluster.edit(kind, ref, body["spec"] | unknown[kind])


@pytest.mark.parametrize("kind", [Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM])
@pytest.mark.parametrize("anew", [False, True], ids=["known", "unknown"])
async def test_nobody_loses_anything_by_what_cannot_be_read(kind: Kind, *, anew: bool) -> None:
    """Neither while who leads has read it before, nor when the next one never has."""
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 2))
        before = {server.id for server in lab.servers()}
        if anew:
            await lab.stop()
        mar(lab, kind)
        if anew:
            lab.start()
        for _ in range(2):
            await lab.always(lambda: {s.id for s in lab.servers()} >= before, LONG / 2)
            await Comparer(lab.store, lab.cluster).compare()
        assert lab.bound(claim)
        conditions = lab.claim_status(claim)["conditions"]
        assert {"type": "Healthy", "status": "True"}.items() <= next(
            c.items() for c in conditions if c["type"] == "Healthy"
        )


async def test_no_claim_gets_a_vm_that_cannot_be_read() -> None:
    """A newer operator may have bound it, before an older one took over."""
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.change(pool, paused=True)
        before = lab.cluster.peek(Kind.WARM_VM)
        specs = {ref: body["spec"] for ref, body in before.items()}
        mar(lab, Kind.WARM_VM)
        claim = lab.claim(count=1, onUnsatisfied="Wait", timeout="1h")
        await lab.always(lambda: lab.claim_status(claim).get("phase") != "Bound", 60)
        assert all("claimRef" not in b["spec"] for b in lab.cluster.peek(Kind.WARM_VM).values())
        for ref, spec in specs.items():
            lab.cluster.edit(Kind.WARM_VM, ref, spec)
        await lab.until(lambda: lab.bound(claim), within=60)


async def test_a_claim_is_gone_though_what_bears_its_name_now_cannot_be_read() -> None:
    """Its VMs were kept for as long as the other claim was there."""
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 1))
        await lab.stop()
        lab.delete(Kind.VM_CLAIM, claim)
        lab.claim()
        mar(lab, Kind.VM_CLAIM)
        lab.start()
        await lab.until(lambda: len(lab.servers()) == len(list(lab.vms())) == 1, within=60)


async def test_all_others_are_served_meanwhile() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        first = lab.claim("first")
        await lab.until(lambda: lab.bound(first) and lab.is_even(pool, 2))
        await lab.stop()
        mar(lab, Kind.VM_CLAIM)
        lab.start()
        second = lab.claim("second")
        await lab.until(lambda: lab.bound(second) and lab.is_even(pool, 2))
        lab.delete(Kind.VM_CLAIM, first)
        await lab.until(lambda: len(lab.servers()) == 3)
