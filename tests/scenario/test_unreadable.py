"""Objects that cannot be read, say a newer operator's: nothing stops, and none counts as gone."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
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


def mend(lab: Lab) -> None:
    """Make all WarmVMs such again that everybody can read them."""
    for ref, body in lab.cluster.peek(Kind.WARM_VM).items():
        spec = {key: value for key, value in body["spec"].items() if key != "retained"}
        lab.cluster.edit(Kind.WARM_VM, ref, spec)


def mar_one(lab: Lab) -> Ref:
    """Make one WarmVM such that nobody can read it."""
    ref, body = next(iter(lab.cluster.peek(Kind.WARM_VM).items()))
    lab.cluster.edit(Kind.WARM_VM, ref, body["spec"] | {"retained": "perhaps"})
    return ref


def count_calls(lab: Lab) -> Counter[Ref]:
    """Calls about single WarmVMs from now on."""
    calls: Counter[Ref] = Counter()

    def counted(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counting(kind: Kind, ref: Ref, *args: Any, **more: Any) -> Any:
            calls[ref] += kind is Kind.WARM_VM
            return await call(kind, ref, *args, **more)

        return counting

    for name in ("get", "patch", "delete"):
        setattr(lab.cluster, name, counted(getattr(lab.cluster, name)))
    return calls


async def test_a_pool_that_shrinks_gives_up_what_can_be_read() -> None:
    """Each removal of one that cannot held a slot of its pool, and room in the ledger, for ever."""
    async with Lab() as lab:
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        odd = mar_one(lab)
        calls = count_calls(lab)
        await lab.change(pool, replicas=1)
        await lab.until(lambda: {vm for vm, _ in lab.vms()} == {odd})
        await lab.change(pool, replicas=0)
        await lab.always(lambda: len(lab.servers()) == 1, 60)
        assert calls[odd] == 0
        mend(lab)
        await lab.until(lambda: lab.is_even(pool, 0))


@pytest.mark.parametrize("build", [2.0, 90.0], ids=["ready", "building"])
async def test_a_pool_that_goes_waits_for_what_cannot_be_read(build: float) -> None:
    """Of one that was being built a DELETE was refused some twenty times a second."""
    async with Lab(build=build) as lab:
        pool = lab.pool(replicas=3, health={"launchTimeout": "5m"})
        await lab.until(lambda: lab.is_even(pool, 3) if build < 60 else len(lab.servers()) == 3)
        await asyncio.sleep(10)
        mar(lab, Kind.WARM_VM)
        calls = count_calls(lab)
        lab.delete(Kind.WARM_POOL, pool)
        await lab.always(lambda: len(lab.servers()) == 3, 60)
        assert not calls.total()
        mend(lab)
        await lab.until(lambda: not lab.servers() and not list(lab.vms()))
        await lab.until(lambda: pool not in lab.cluster.peek(Kind.WARM_POOL))


async def test_a_new_template_is_rolled_out_to_all_that_can_be_read() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=3, updateStrategy={"maxUnavailable": 1})
        await lab.until(lambda: lab.is_even(pool, 3))
        odd = mar_one(lab)
        calls = count_calls(lab)
        template = {"flavor": "m1.micro", "image": "debian-13", "metadata": {"generation": "2"}}
        await lab.change(pool, template=template)
        renewed = lambda: [s.metadata.get("generation") for s in lab.servers()].count("2")  # noqa: E731
        await lab.until(lambda: renewed() == 2 and len(lab.servers()) == 3)
        await lab.always(lambda: len(lab.servers()) == 3, 60)
        assert calls[odd] == 0
        mend(lab)
        await lab.until(lambda: renewed() == 3 and lab.is_even(pool, 3))


async def test_a_build_that_cannot_be_read_is_not_failed_again_and_again() -> None:
    """Its time was over: each attempt to write that down was one more failure of the pool's."""
    async with Lab(build=600.0) as lab:
        lab.pool(replicas=1, health={"launchTimeout": "30s"})
        await lab.until(lambda: len(lab.servers()) == 1)
        await asyncio.sleep(10)
        mar(lab, Kind.WARM_VM)
        calls, told = count_calls(lab), len(lab.records)
        await lab.always(lambda: len(lab.servers()) == 1, 60)
        assert not calls.total()
        assert not lab.notes("LaunchTimeout")
        assert len(lab.records) == told
        mend(lab)
        await lab.until(lambda: lab.notes("LaunchTimeout"))


async def test_a_failure_that_cannot_be_written_down_is_tried_again_later() -> None:
    """A watch that is behind shows nothing of what cannot be read."""
    async with Lab(build=600.0) as lab:
        lab.pool(replicas=1, health={"launchTimeout": "30s"})
        await lab.until(lambda: len(lab.servers()) == 1)
        await asyncio.sleep(10)
        lab.feed.paused = True
        mar(lab, Kind.WARM_VM)
        calls = count_calls(lab)
        await asyncio.sleep(60)
        assert 1 < calls.total() < 15
        assert len(lab.notes("LaunchTimeout")) < 15


async def test_removals_that_are_in_vain_leave_a_pool_its_slots() -> None:
    """They were committed before it was known that nobody can read the VMs."""
    async with Lab() as lab:
        pool = lab.pool(replicas=66, maxConcurrent=100)
        await lab.until(lambda: lab.is_even(pool, 66))
        claim = lab.claim()
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 66))
        theirs = next(vm for vm, body in lab.vms() if "claimRef" in body["spec"])
        lab.feed.paused = True
        for ref, body in lab.cluster.peek(Kind.WARM_VM).items():
            if ref != theirs:
                lab.cluster.edit(Kind.WARM_VM, ref, body["spec"] | {"retained": "perhaps"})
        calls = count_calls(lab)
        body = await lab.cluster.patch(
            Kind.WARM_POOL, pool, [{"op": "add", "path": "/spec/replicas", "value": 0}]
        )
        lab.store.apply(Kind.WARM_POOL, body)
        await asyncio.sleep(10)
        assert calls.total() >= 66
        lab.feed.resume()
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: theirs not in dict(lab.vms()))
        before = calls.total()
        await asyncio.sleep(20)
        assert calls.total() - before <= 66 * 2 * 5
        assert len(lab.servers()) == 66
        mend(lab)
        await lab.until(lambda: lab.is_even(pool, 0), within=90)


async def test_bindings_that_cannot_be_settled_leave_room_for_others() -> None:
    """Two of them kept all that were bound beside a flow of claims from being settled."""
    async with Lab() as lab:
        pool = lab.pool(replicas=20)
        await lab.until(lambda: lab.is_even(pool, 20))
        lab.feed.paused = True
        odd = [vm for vm, _ in lab.vms()]
        mar(lab, Kind.WARM_VM)
        calls = count_calls(lab)
        claims = [lab.claim(f"odd-{n}") for n in range(20)]
        for body in lab.cluster.peek(Kind.VM_CLAIM).values():
            lab.store.apply(Kind.VM_CLAIM, body)
        bodies = lambda: lab.cluster.peek(Kind.VM_CLAIM).values()  # noqa: E731
        await lab.until(lambda: all(b["status"].get("phase") == "Bound" for b in bodies()))
        lab.feed.resume()
        last = lab.claim("last", onUnsatisfied="Wait", timeout="1h")
        await lab.until(lambda: lab.bound(last))
        before = calls.total()
        await asyncio.sleep(20)
        assert calls.total() - before <= len(odd) * 3 * 5
        mend(lab)
        await lab.until(lambda: all(lab.bound(claim) for claim in claims))
