"""What an entry of the ledger names belongs to its claim until the entry is dropped.

Whoever takes over carries the entry out again: were its VMs given to another claim before it is
dropped, both claims would have them.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from doubles.virtual_time import LoopClock
from warmpool.api.names import Kind, Phase
from warmpool.domain.errors import NotFound
from warmpool.domain.facts import Vm
from warmpool.domain.ids import ClaimUid, InstallationId, Ref, VmUid
from warmpool.ports.cluster import Body, PatchOp
from warmpool.reconcile.binder import Binder
from warmpool.reconcile.events import Announcer
from warmpool.reconcile.ledger import Ledger
from warmpool.reconcile.recorder import Recorder, unheard
from warmpool.reconcile.store import Store
from warmpool.reconcile.traffic import Traffic

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, SECOND = VmUid("vm-0"), VmUid("vm-1")


def meta(name: str, version: int) -> dict[str, Any]:
    return {
        "namespace": "ns",
        "name": name,
        "uid": name,
        "resourceVersion": str(version),
        "generation": 1,
    }


class SlowCluster:
    """Does what the binder asks of it; binding the second VM and the ledger's writes can wait."""

    def __init__(self) -> None:
        self.version = 10
        self.second_settles = asyncio.Event()
        self.ledger_open = asyncio.Event()
        self.ledger_open.set()
        self.entries: list[Body] = []

    async def create(self, kind: Kind, body: Body) -> Body:
        del kind
        return {**body, "metadata": meta("bindings", 1)}

    async def replace(self, kind: Kind, body: Body) -> Body:
        del kind
        await self.ledger_open.wait()
        self.version += 1
        self.entries = body["spec"]["entries"]
        return {**body, "metadata": meta("bindings", self.version)}

    async def get(self, kind: Kind, ref: Ref) -> Body:
        del kind
        raise NotFound(f"{ref} is not there")

    async def event(self, namespace: str, body: Body) -> None:
        del namespace, body

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        del brief
        self.version += 1
        if kind is Kind.VM_CLAIM:
            assert status
            return claim(ref.name, self.version, status=ops[-1]["value"])
        if ref.name == SECOND:
            await self.second_settles.wait()
        ref_op = next(op for op in ops if op["path"] == "/spec/claimRef")
        return vm(ref.name, self.version, claimRef=ref_op["value"])


def vm(name: str, version: int, **spec: Any) -> Body:
    return {
        "metadata": meta(name, version),
        "spec": {"poolRef": {"name": "data", "uid": "p"}, **spec},
        "status": {"phase": Phase.READY.value, "serverID": f"s-{name}"},
    }


def claim(name: str, version: int, **rest: Any) -> Body:
    requests = [{"name": "r", "pool": {"name": "data"}, "count": 2}]
    return {"metadata": meta(name, version), "spec": {"requests": requests}, **rest}


def a_store() -> Store:
    store = Store()
    template = {"flavor": "f", "image": "i"}
    spec = {
        "replicas": 2,
        "cloudRef": {"secretName": "s", "cloud": "c"},
        "template": template,
    }
    store.apply(Kind.WARM_POOL, {"metadata": meta("data", 1), "spec": spec})
    for number, uid in enumerate((FIRST, SECOND)):
        store.apply(Kind.WARM_VM, vm(uid, 2 + number))
    store.apply(Kind.VM_CLAIM, claim("c", 5))
    return store


async def until(predicate: Any) -> None:
    async with asyncio.timeout(5):
        while not predicate():  # noqa: ASYNC110 - it watches what others change
            await asyncio.sleep(0.01)


async def no_ones(_vm: Vm, _claim: ClaimUid) -> bool:
    return False


async def test_a_vm_is_its_entrys_until_the_entry_is_dropped() -> None:
    store, cluster = a_store(), SlowCluster()
    ledger: Any = Ledger(
        cluster,  # type: ignore[arg-type]
        LoopClock(),
        namespace="ns",
        holder="me",
        new_installation=lambda: InstallationId("i"),
    )
    await ledger.take_over()
    traffic = Traffic(LoopClock())
    announcer = Announcer(cluster, LoopClock(), "me", traffic)  # type: ignore[arg-type]
    binder = Binder(
        store,
        ledger,
        cluster,  # type: ignore[arg-type]
        LoopClock(),
        traffic=traffic,
        announcer=announcer,
        want=lambda _: None,
        recorder=Recorder(store, LoopClock(), unheard),
        waits=lambda _: False,
        is_anothers=no_ones,
    )
    running = asyncio.ensure_future(binder.run(lambda: None))
    try:
        await until(lambda: store.vms_of_claim(ClaimUid("c")))
        assert [vm.uid for vm in store.vms_of_claim(ClaimUid("c"))] == [FIRST]
        assert store.is_committed(FIRST), "settled, but the entry waits for its second VM"
        cluster.ledger_open.clear()
        cluster.second_settles.set()
        await until(lambda: len(store.vms_of_claim(ClaimUid("c"))) == 2)
        await asyncio.sleep(0.1)
        assert store.is_committed(FIRST), "the entry is settled, but not dropped"
        cluster.ledger_open.set()
        await until(lambda: cluster.entries == [])
        await until(lambda: not store.is_committed(FIRST) and not store.is_committed(SECOND))
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_letting_go_of_one_claims_vm_leaves_anothers_alone() -> None:
    store = a_store()
    store.commit(FIRST, ClaimUid("old"))
    store.uncommit(FIRST, ClaimUid("old"))
    store.commit(FIRST, ClaimUid("new"))
    store.uncommit(FIRST, ClaimUid("old"))
    assert store.is_committed(FIRST)
    assert sum(store.counts(Ref("ns", "data")).values()) == 1
