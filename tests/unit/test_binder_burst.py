"""A burst of claims is answered first; what can wait until then, does."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest

from doubles.virtual_time import LoopClock
from warmpool.api.names import Kind, Phase
from warmpool.domain.claims import Undecided
from warmpool.domain.errors import ClusterOutcomeUnknown, NotFound
from warmpool.domain.facts import Vm
from warmpool.domain.ids import ClaimUid, InstallationId, Ref
from warmpool.ports.cluster import Body, PatchOp
from warmpool.reconcile.binder import MOST, PUBLISH_AT_ONCE, Binder
from warmpool.reconcile.decide import Decider, Decisions
from warmpool.reconcile.events import Announcer
from warmpool.reconcile.ledger import Ledger
from warmpool.reconcile.recorder import Recorder, unheard
from warmpool.reconcile.retries import UNANSWERED
from warmpool.reconcile.settling import BETWEEN, SETTLE_AT_ONCE
from warmpool.reconcile.store import Store
from warmpool.reconcile.traffic import CALM, FEW, Traffic

pytestmark = pytest.mark.looptime

STATUS = 0.03
"""Seconds that the API server takes for the status of a claim; other writes take no time."""


class Written:
    """An API server that takes down in which order it was written to, and beside how much."""

    def __init__(self, *, status: float = STATUS, ledger: float = 0.0, vm: float = 0.0) -> None:
        """What a write takes, in seconds."""
        self.order: list[Kind] = []
        self.answered_at_commit: list[int] = []
        self.settled: list[tuple[float, int]] = []
        """When a VM was settled, and beside how many statuses."""
        self.answered: list[float] = []
        self._status = status
        self._ledger = ledger
        self._vm = vm
        self._open = 0
        self.version = 1000

    def _meta(self, name: str) -> dict[str, Any]:
        self.version += 1
        return meta(name, self.version)

    async def get(self, _kind: Kind, ref: Ref) -> Body:
        raise NotFound(f"{ref} is not there")

    async def create(self, _kind: Kind, body: Body) -> Body:
        return {**body, "metadata": self._meta("bindings")}

    async def replace(self, _kind: Kind, body: Body) -> Body:
        self.answered_at_commit.append(Counter(self.order)[Kind.VM_CLAIM])
        await asyncio.sleep(self._ledger)
        return {**body, "metadata": self._meta("bindings")}

    async def event(self, namespace: str, body: Body) -> None: ...

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
        if not status:
            await asyncio.sleep(self._vm)
            self.order.append(kind)
            self.settled.append((asyncio.get_running_loop().time(), self._open))
            of = next(op["value"] for op in ops if op["path"] == "/spec/claimRef")
            return vm(self._meta(ref.name), claimRef=of)
        self._open += 1
        await asyncio.sleep(self._status)
        self._open -= 1
        self.order.append(kind)
        self.answered.append(asyncio.get_running_loop().time())
        return claim(self._meta(ref.name), 1, status=ops[-1]["value"])


def meta(name: str, version: int) -> dict[str, Any]:
    return {
        "namespace": "ns",
        "name": name,
        "uid": name,
        "resourceVersion": str(version),
        "generation": 1,
    }


def vm(metadata: Body, **spec: Any) -> Body:
    return {
        "metadata": metadata,
        "spec": {"poolRef": {"name": "data", "uid": "p"}, **spec},
        "status": {"phase": Phase.READY.value, "serverID": f"s-{metadata['name']}"},
    }


def claim(metadata: Body, vms: int, **rest: Any) -> Body:
    requests = [{"name": "r", "pool": {"name": "data"}, "count": vms}]
    return {"metadata": metadata, "spec": {"requests": requests}, **rest}


def a_store(vms: int) -> Store:
    store = Store()
    template = {"flavor": "f", "image": "i"}
    cloud = {"secretName": "s", "cloud": "c"}
    spec = {"replicas": vms, "cloudRef": cloud, "template": template}
    store.apply(Kind.WARM_POOL, {"metadata": meta("data", 1), "spec": spec})
    for number in range(vms):
        store.apply(Kind.WARM_VM, vm(meta(f"vm-{number}", 2 + number)))
    return store


def ask(store: Store, count: int, *, vms: int, first: int = 0) -> None:
    """So many claims of so many VMs each."""
    for number in range(first, first + count):
        store.apply(Kind.VM_CLAIM, claim(meta(f"claim-{number}", 500 + number), vms))


async def no_ones(_vm: Vm, _claim: ClaimUid) -> bool:
    return False


@contextlib.asynccontextmanager
async def serving(
    store: Store, cluster: Any, clock: LoopClock | None = None
) -> AsyncIterator[None]:
    clock = clock or LoopClock()
    ledger = Ledger(
        cluster, clock, namespace="ns", holder="me", new_installation=lambda: InstallationId("i")
    )
    await ledger.take_over()
    traffic = Traffic(clock)
    binder = Binder(
        store,
        ledger,
        cluster,
        clock,
        traffic=traffic,
        announcer=Announcer(cluster, clock, "me", traffic),
        want=lambda _: None,
        recorder=Recorder(store, clock, unheard),
        waits=lambda _: False,
        is_anothers=no_ones,
    )
    store.listen(lambda _: binder.wake())
    running = asyncio.ensure_future(binder.run(lambda: None))
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_vms_of_a_few_large_claims_are_settled_when_all_have_their_answer() -> None:
    """What counts is what there is to settle: 20 claims of 15 VMs are 300 writes."""
    store, cluster = a_store(100), Written()
    ask(store, 20, vms=5)
    async with serving(store, cluster):
        await asyncio.sleep(2)
    assert cluster.order == [Kind.VM_CLAIM] * 20 + [Kind.WARM_VM] * 100


async def test_vms_are_settled_many_at_a_time_when_a_burst_is_over() -> None:
    """And stay so, although the ledger is written meanwhile to drop what is."""
    store, cluster = a_store(200), Written(ledger=0.01, vm=0.01)
    ask(store, 200, vms=1)
    async with serving(store, cluster):
        await asyncio.sleep(5)
    assert len(cluster.settled) == 200
    last, _ = cluster.settled[-1]
    assert last - cluster.answered[-1] < CALM + 1.5 * 200 * 0.01 / SETTLE_AT_ONCE


async def test_vms_of_a_claim_that_comes_alone_are_settled_at_once() -> None:
    store, cluster = a_store(5), Written()
    ask(store, 1, vms=5)
    async with serving(store, cluster):
        await asyncio.sleep(STATUS + 0.01)
        assert cluster.order == [Kind.VM_CLAIM] + [Kind.WARM_VM] * 5


async def test_claims_gather_while_many_are_being_answered_and_no_longer() -> None:
    """The next write of the ledger is there when the last of them have their answers."""
    store, cluster = a_store(101), Written()
    many = 2 * PUBLISH_AT_ONCE + FEW
    ask(store, many, vms=1)
    async with serving(store, cluster):
        await asyncio.sleep(0.001)
        ask(store, 5, vms=1, first=many)
        await asyncio.sleep(1)
    first, second = cluster.answered_at_commit[:2]
    assert first == 0
    assert many - FEW <= second < many


async def flow(store: Store, count: int, every: float) -> None:
    """So many claims of one VM, one after the other."""
    for number in range(count):
        ask(store, 1, vms=1, first=number)
        await asyncio.sleep(every)


async def test_claims_that_come_while_the_ledger_is_written_share_the_next_write() -> None:
    """Each claim had one of its own, which costs the API server as much as two statuses."""
    store, cluster = a_store(100), Written(status=0.003, ledger=0.02)
    async with serving(store, cluster):
        await flow(store, 100, every=0.005)
        await asyncio.sleep(1)
    assert cluster.order.count(Kind.VM_CLAIM) == 100
    assert len(cluster.answered_at_commit) <= 30, "four claims a write"


async def test_a_claim_waits_for_no_more_than_what_is_being_written() -> None:
    """A pause after each write of the ledger would let a flow pile up."""
    store, cluster = a_store(2), Written(ledger=0.01)
    async with serving(store, cluster):
        ask(store, 1, vms=1)
        await asyncio.sleep(0.012)
        assert not cluster.answered, "the first is being answered"
        ask(store, 1, vms=1, first=1)
        await asyncio.sleep(0.001)
        assert len(cluster.answered_at_commit) == 2


class Busy(LoopClock):
    """The time of a loop that is kept from going on now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.kept


async def test_passes_that_take_long_leave_others_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever comes and goes has the claims looked at again, and they may be a thousand."""
    store, cluster, clock, passes = a_store(1), Written(), Busy(), count()
    decide = Decider.decide

    def slow(self: Decider, room: int) -> Decisions:
        clock.kept += 0.02
        next(passes)
        return decide(self, room)

    monkeypatch.setattr(Decider, "decide", slow)
    async with serving(store, cluster, clock):
        for number in range(1000):
            store.apply(Kind.WARM_VM, vm(meta("vm-0", 2000 + number)))
            await asyncio.sleep(0.001)
    assert next(passes) <= 1 / 0.02 + 2


@pytest.mark.parametrize(("took", "since"), [(0.05, 5.0), (30.0, 0.0)])
async def test_a_pass_that_took_long_keeps_nobody_waiting_for_long(
    took: float, since: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others had their turn long before, or the process was stopped meanwhile."""
    store, cluster, clock = a_store(1), Written(), Busy()
    decide = Decider.decide

    def slow(self: Decider, room: int) -> Decisions:
        clock.kept += took
        return decide(self, room)

    monkeypatch.setattr(Decider, "decide", slow)
    async with serving(store, cluster, clock):
        await asyncio.sleep(0.001)
        await asyncio.sleep(since)
        before = len(cluster.answered_at_commit)
        ask(store, 1, vms=1)
        await asyncio.sleep(MOST + 0.001 if not since else 0.001)
        assert len(cluster.answered_at_commit) > before


class OutOfRoom(Written):
    """It answers at once, and with an error that says nothing: as etcd without space."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.attempts = 0

    async def get(self, kind: Kind, ref: Ref) -> Body:
        if not self.attempts:
            return await super().get(kind, ref)
        return {"metadata": meta("bindings", self.version), "spec": {}}

    async def replace(self, kind: Kind, body: Body) -> Body:
        self.attempts += 1
        if self.refuses:
            await asyncio.sleep(0.001)
            raise ClusterOutcomeUnknown("500")
        return await super().replace(kind, body)


async def test_a_ledger_that_cannot_be_written_is_not_tried_without_a_pause() -> None:
    store, cluster = a_store(1), OutOfRoom()
    async with serving(store, cluster):
        cluster.refuses = True
        ask(store, 1, vms=1)
        await asyncio.sleep(3)
        assert 1 < cluster.attempts <= 3 / UNANSWERED + 1
        cluster.refuses = False
        await asyncio.sleep(1)
    assert cluster.answered


async def test_a_steady_flow_has_no_writes_of_the_ledger_but_its_own() -> None:
    """What is settled goes with the next binding, not in a write between every two of them."""
    store, cluster = a_store(100), Written(status=0.003)
    async with serving(store, cluster):
        await flow(store, 100, every=0.01)
        assert len(cluster.answered_at_commit) == 100
        await asyncio.sleep(2 * CALM)
        assert len(cluster.answered_at_commit) == 101, "nothing is left in it for long"


async def test_vms_are_settled_between_the_answers_of_a_steady_flow() -> None:
    store, cluster = a_store(40), Written()
    async with serving(store, cluster):
        for number in range(20):
            await flow_of_two(store, number)
    assert len(cluster.settled) == 40
    assert not [beside for _, beside in cluster.settled if beside]


async def flow_of_two(store: Store, number: int) -> None:
    """The second claim is being answered when the first has its answer; then there is a pause."""
    ask(store, 1, vms=1, first=2 * number)
    await asyncio.sleep(STATUS / 2)
    ask(store, 1, vms=1, first=2 * number + 1)
    await asyncio.sleep(STATUS * 2)


async def test_vms_that_wait_for_such_a_moment_wait_for_a_burst_that_begins_meanwhile() -> None:
    store, cluster = a_store(70), Written()
    async with serving(store, cluster):
        ask(store, 5, vms=1)
        await asyncio.sleep(STATUS * 2 / 3)
        ask(store, 1, vms=1, first=5)
        await asyncio.sleep(STATUS * 2 / 3)
        ask(store, 60, vms=1, first=6)
        await asyncio.sleep(STATUS * 60 / PUBLISH_AT_ONCE + 1)
    assert len(cluster.settled) == 66
    assert not [beside for _, beside in cluster.settled if beside]


async def test_a_moment_between_two_answers_is_not_waited_for_for_long() -> None:
    store, cluster = a_store(100), Written()
    async with serving(store, cluster):
        await flow(store, 100, every=STATUS / 2)
    waited = [at - told for (at, _), told in zip(cluster.settled, cluster.answered, strict=False)]
    assert len(waited) > 90
    assert max(waited) <= BETWEEN + 0.01


async def test_a_claim_that_comes_alone_is_not_kept_waiting() -> None:
    """Not even right behind another one's: a client that takes one after the other would be."""
    store, cluster = a_store(2), Written()
    async with serving(store, cluster):
        ask(store, 1, vms=1)
        await asyncio.sleep(STATUS + 0.001)
        committed = len(cluster.answered_at_commit)
        ask(store, 1, vms=1, first=1)
        await asyncio.sleep(0.001)
        assert len(cluster.answered_at_commit) > committed


async def test_a_hard_placement_is_found_although_others_keep_all_shared_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Name servers that do not answer hold those for as long as they please."""

    def hard(*_: object, **__: float) -> Undecided:
        return Undecided("")

    monkeypatch.setattr("warmpool.reconcile.decide.allocate", hard)
    store, cluster = a_store(2), Written()
    ask(store, 1, vms=2)
    let_go = threading.Event()
    loop = asyncio.get_running_loop()
    held = [loop.run_in_executor(None, let_go.wait) for _ in range(64)]
    try:
        async with serving(store, cluster):
            end = time.monotonic() + 20
            while Kind.VM_CLAIM not in cluster.order and time.monotonic() < end:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the loop's own clock runs ahead of a thread
    finally:
        let_go.set()
        await asyncio.gather(*held)
    assert cluster.order[:1] == [Kind.VM_CLAIM]
