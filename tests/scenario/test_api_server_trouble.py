"""The API server fails for a while: what is missed is found, and what must be written is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from builders import POOL, a_vm_body
from doubles.cluster import FakeCluster
from doubles.virtual_time import LoopClock
from warmpool.api.names import Kind
from warmpool.domain.errors import ClusterUnavailable, Forbidden, NotLeading, WentBack
from warmpool.domain.ids import InstallationId
from warmpool.ports.cluster import Body
from warmpool.reconcile.ledger import GAP, Ledger
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import COMPARE_AFTER, COMPARE_EVERY, LEISURE, Comparer
from warmpool.reconcile.table import AT_A_TIME

pytestmark = pytest.mark.looptime

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = COMPARE_AFTER + 1.0


def an_api_server() -> FakeCluster:
    return FakeCluster(lambda: NOW)


@contextlib.asynccontextmanager
async def comparing(store: Store, api: FakeCluster) -> AsyncIterator[Comparer]:
    comparer = Comparer(store, api)
    task = asyncio.ensure_future(comparer.run(lambda: None))
    await asyncio.sleep(0)
    yield comparer
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("relisted", "within"), [(True, SOON), (False, COMPARE_EVERY + 1.0)])
async def test_what_vanished_unseen_is_missed(*, relisted: bool, within: float) -> None:
    """Seconds after a watch began anew with a LIST, and after minutes in any case."""
    store, api = Store(), an_api_server()
    store.apply(Kind.WARM_VM, a_vm_body(version=5))
    async with comparing(store, api) as comparer:
        if relisted:
            comparer.relisted()
        await asyncio.sleep(within - 2.0)
        assert list(store.vms())
        await asyncio.sleep(2.0)
        assert not list(store.vms())


async def test_who_compares_now_and_then_has_time_and_who_takes_over_has_none() -> None:
    """A LIST of 10,000 VMs keeps an API server busy for a second, and claims wait for that."""
    api = an_api_server()
    await Comparer(Store(), api).compare()
    assert api.paces == {0.0}
    async with comparing(Store(), api) as comparer:
        comparer.relisted()
        await asyncio.sleep(SOON)
    assert api.paces == {0.0, LEISURE}


async def test_each_new_list_is_followed_by_a_comparison() -> None:
    store, api = Store(), an_api_server()
    async with comparing(store, api) as comparer:
        for version in (5, 150):
            store.apply(Kind.WARM_VM, a_vm_body(version=version))
            api._version = 200 + version
            comparer.relisted()
            await asyncio.sleep(SOON)
            assert not list(store.vms()), version
        store.apply(Kind.WARM_VM, a_vm_body(version=900))
        await asyncio.sleep(2 * SOON)
        assert list(store.vms()), "nobody said that there was a new one"


def many_vms(count: int) -> FakeCluster:
    api = FakeCluster(lambda: NOW, [POOL.namespace])
    for number in range(count):
        api.put(Kind.WARM_VM, a_vm_body(number))
    return api


def first_vm(store: Store) -> asyncio.Event:
    """Set when a store has its first VM."""
    begun = asyncio.Event()
    store.listen(lambda change: begun.set() if change.kind is Kind.WARM_VM else None)
    return begun


async def test_others_have_their_turn_while_thousands_of_objects_are_compared() -> None:
    store, known = Store(), list[int]()
    begun = first_vm(store)

    async def other() -> None:
        await begun.wait()
        known.append(len(list(store.vms())))

    task = asyncio.ensure_future(other())
    await Comparer(store, many_vms(3 * AT_A_TIME)).compare()
    await task
    assert 0 < known[0] <= AT_A_TIME + 1
    assert len(list(store.vms())) == 3 * AT_A_TIME


async def test_what_happens_while_a_list_is_compared_is_newer() -> None:
    """One of its last VMs is deleted, and another comes, while its first ones are taken in."""
    store, api = Store(), many_vms(2 * AT_A_TIME)
    begun = first_vm(store)
    comparing = asyncio.ensure_future(Comparer(store, api).compare())
    await begun.wait()
    (last, body), *_ = reversed(api.peek(Kind.WARM_VM).items())
    assert not store.has_vm(last)
    gone = {**body, "metadata": body["metadata"] | {"resourceVersion": str(api._version + 1)}}
    store.apply(Kind.WARM_VM, gone, deleted=True)
    store.apply(Kind.WARM_VM, a_vm_body(7000, version=api._version + 2))
    await comparing
    assert not store.has_vm(last)
    assert len(list(store.vms())) == 2 * AT_A_TIME


async def test_who_remembers_more_than_the_api_server_ends() -> None:
    """Its revisions begin anew below what was seen: it was restored from a backup."""
    store, api = Store(), an_api_server()
    store.apply(Kind.WARM_VM, a_vm_body(version=5000), deleted=True)
    with pytest.raises(WentBack):
        await Comparer(store, api).compare()


class Starting(FakeCluster):
    """Refuses so many writes with an error."""

    refusals: list[Exception]

    async def replace(self, kind: Kind, body: Body) -> Body:
        if self.refusals:
            raise self.refusals.pop()
        return await super().replace(kind, body)


@pytest.mark.parametrize("error", [Forbidden("403: no role yet"), ClusterUnavailable("503")])
async def test_a_ledger_that_cannot_be_written_for_a_moment_is_no_reason_to_give_up(
    error: Exception,
) -> None:
    """An API server that has just started forbids everybody everything."""
    api = Starting(lambda: NOW)
    api.refusals = []
    ledger = a_ledger(api)
    await ledger.take_over()
    api.refusals = [error] * 3
    async with asyncio.timeout(10):
        await ledger.commit([])
    assert not api.refusals
    assert version_of(api) == api._version, "it was written after all"


def version_of(api: FakeCluster) -> int:
    [body] = api.peek(Kind.BINDING_LEDGER).values()
    return int(body["metadata"]["resourceVersion"])


async def test_the_end_of_a_look_back_is_written_at_once_whatever_is_being_written() -> None:
    api = an_api_server()
    former, ledger = a_ledger(api), a_ledger(api)
    await former.take_over()
    await asyncio.sleep(2 * GAP.total_seconds())
    await ledger.take_over()
    assert ledger.look_back
    replace = api.replace

    async def slow(kind: Kind, body: Body) -> Body:
        await asyncio.sleep(1)
        return await replace(kind, body)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(api, "replace", slow)
        writing = asyncio.ensure_future(ledger.commit([]))
        await asyncio.sleep(0.5)
        ledger.looked_back()
        await writing
    assert ledger.due_in() == 0.0
    await ledger.commit([])
    assert ledger.due_in() > 0.0
    await a_ledger(api).take_over()
    [body] = api.peek(Kind.BINDING_LEDGER).values()
    assert not body["spec"].get("lookBack")


async def test_a_leader_of_the_same_epoch_is_another_all_the_same() -> None:
    """An API server that was restored from a backup counts epochs anew."""
    api = an_api_server()
    first, second = a_ledger(api), a_ledger(api, "two")
    await first.take_over()
    backup = api.backup()
    await first.take_over()
    await first.confirm()
    api.restore(backup, ahead=100)
    await second.take_over()
    assert first.epoch == second.epoch
    await second.confirm()
    with pytest.raises(NotLeading):
        await first.confirm()


def a_ledger(api: FakeCluster, holder: str = "one") -> Ledger:
    return Ledger(
        api,
        LoopClock(),
        namespace="ns",
        holder=holder,
        new_installation=lambda: InstallationId("here"),
    )
