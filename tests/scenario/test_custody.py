"""A VM that is in use by Nova's word is handed out at no moment, whatever fails meanwhile."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from builders import POOL, a_server, a_vm_body
from doubles.cluster import FakeCluster
from doubles.virtual_time import LoopClock
from warmpool.api.names import Kind
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.cloud import Place, Server
from warmpool.domain.errors import CloudUnavailable, ClusterOutcomeUnknown
from warmpool.domain.ids import Ref, ServerId, VmUid
from warmpool.domain.marks import UNMARKED, Marks
from warmpool.ports.cluster import Body, PatchOp
from warmpool.reconcile.custody import Custody
from warmpool.reconcile.events import Announcer
from warmpool.reconcile.reading import read_vm
from warmpool.reconcile.store import Store
from warmpool.reconcile.traffic import Traffic

pytestmark = pytest.mark.looptime

USED = Marks(claim=ClaimRef(namespace="search", name="since", uid="u-since", request="data"))


class Session:
    """A cloud with one server, which fails as often as it is told."""

    region = "lab"

    def __init__(self, server: Server | None, failures: int) -> None:
        self.cloud = self.racks = self
        self.server = server
        self.failures = failures
        self.told: list[object] = []

    async def get(self, server: ServerId) -> Server | None:
        del server
        if self.failures:
            self.failures -= 1
            raise CloudUnavailable("503")
        return self.server

    def place(self, server: Server, before: Place) -> Place:
        return Place("lab", server.zone, server.zone, before.hypervisor)

    def found(self, server: Server) -> None:
        self.told.append(server.marks)

    def gone(self, owner: VmUid) -> None:
        self.told.append(owner)


class Losing(FakeCluster):
    """Loses the answers to its first writes, which happen all the same."""

    losses = 0

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        body = await super().patch(kind, ref, ops, status=status, brief=brief)
        if self.losses:
            self.losses -= 1
            raise ClusterOutcomeUnknown("cut off")
        return body


async def kept(
    server: Server | None, *, failures: int = 0, losses: int = 0, phase: str = "Ready"
) -> tuple[Any, ...]:
    """What becomes of a free VM whose listing says that it is used; whether it was ever free."""
    clock, store = LoopClock(), Store()
    api = Losing(clock.now, [POOL.namespace])
    api.losses = losses
    wanted = a_vm_body(meta={"labels": {"pool": POOL.name}}, phase=phase)
    body = api.put(Kind.WARM_VM, wanted, status=wanted["status"])
    store.apply(Kind.WARM_VM, body)
    vm, session = read_vm(body), Session(server, failures)
    custody = Custody(store, api, clock, Announcer(api, clock, "one", Traffic(clock)))
    slots = asyncio.Semaphore(1)

    async def current() -> Any:
        return session

    keeping = asyncio.ensure_future(custody.keep(vm, a_server(marks=USED), current, slots))
    free = 0
    async with asyncio.timeout(60):
        while not keeping.done():
            await asyncio.sleep(0.01)
            free += 0 if keeping.done() else len(store.counts(POOL))
            async with slots:  # whoever waits for Nova keeps nobody else waiting
                pass
    await keeping
    return api.peek(Kind.WARM_VM)[vm.ref], free, len(store.counts(POOL)), session.told


@pytest.mark.parametrize(("failures", "losses"), [(0, 0), (2, 0), (0, 1), (0, 2), (1, 2)])
async def test_it_is_kept_however_often_that_fails(failures: int, losses: int) -> None:
    vm, free, left, _ = await kept(a_server(marks=USED), failures=failures, losses=losses)
    assert vm["spec"]["retained"]
    assert vm["spec"]["claimRef"]["uid"] == "u-since"
    assert [c["reason"] for c in vm["status"]["conditions"] if c["type"] == "Held"]
    assert (free, left) == (0, 0)


async def test_one_that_does_not_work_is_kept_and_does_not_for_that() -> None:
    vm, *_ = await kept(a_server(marks=USED), phase="Failed")
    assert vm["status"]["phase"] == "Failed"
    assert [c["reason"] for c in vm["status"]["conditions"] if c["type"] == "Held"]


async def test_credentials_that_were_changed_meanwhile_are_used() -> None:
    """It went on for ever with the session that it had begun with, which was closed."""
    store, clock = Store(), LoopClock()
    api = FakeCluster(clock.now, [POOL.namespace])
    wanted = a_vm_body(meta={"labels": {"pool": POOL.name}})
    body = api.put(Kind.WARM_VM, wanted, status=wanted["status"])
    store.apply(Kind.WARM_VM, body)
    sessions = [Session(None, failures=99), Session(a_server(marks=USED), failures=0)]

    async def current() -> Any:
        return sessions.pop(0)

    custody = Custody(store, api, clock, Announcer(api, clock, "one", Traffic(clock)))
    vm, slots = read_vm(body), asyncio.Semaphore(1)
    await asyncio.wait_for(custody.keep(vm, a_server(marks=USED), current, slots), 60)
    assert api.peek(Kind.WARM_VM)[vm.ref]["spec"]["retained"]


async def test_a_listing_that_was_late_keeps_nothing() -> None:
    vm, free, left, told = await kept(a_server(marks=UNMARKED), failures=1)
    assert not vm["spec"].get("retained")
    assert (free, left) == (0, 1)
    assert told == [UNMARKED]


async def test_a_server_that_is_gone_is_nobodys() -> None:
    vm, _, _, told = await kept(None)
    assert not vm["spec"].get("retained")
    assert told == [vm["metadata"]["uid"]]
