"""What is on its way to Nova when leadership ends arrives all the same, and does no harm."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.cloud import ServerRequest
from warmpool.domain.errors import CloudError, NotLeading, OutcomeUnknown
from warmpool.domain.ids import InstallationId, ServerId
from warmpool.ports.cloud import Cloud
from warmpool.reconcile.sweeper import CONDEMN_AFTER, SWEEP_EVERY

pytestmark = pytest.mark.looptime

SWEPT = CONDEMN_AFTER + 2 * SWEEP_EVERY
"""Seconds by which a leaked server is gone."""

GIVEN_UP = 5.0
"""Seconds after which a call without an answer is given up."""

Send = Callable[[], Coroutine[Any, Any, object]]


class Wire:
    """What lies between leaders and Nova. While it is `held`, calls get no further."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.under_way: list[tuple[str, Send]] = []
        self.patience = 3600.0
        """Seconds after which a call is given up, though it is under way."""
        self.asked = False
        """A leader has asked whether it leads, and nothing else has run since."""

    def note(self) -> None:
        self.asked = True
        asyncio.get_running_loop().call_soon(self._forget)

    def _forget(self) -> None:
        self.asked = False

    async def carry(self, name: str, send: Send) -> Any:
        assert self.asked, f"{name} without a look at whether we lead"
        if name not in self.held:
            return await send()
        self.under_way.append((name, send))
        await asyncio.sleep(self.patience)
        raise OutcomeUnknown(f"{name}: no answer within {self.patience} s")

    async def arrive(self) -> list[str]:
        """All that is under way reaches Nova; what it says to each: "ok", or why not."""
        waiting, self.under_way = self.under_way, []
        said: list[str] = []
        for _, send in waiting:
            try:
                await send()
            except CloudError as error:
                said.append(str(error))
            else:
                said.append("ok")
        return said


class Wired:
    """A cloud at the end of a wire."""

    def __init__(self, cloud: Any, wire: Wire) -> None:
        self._cloud = cloud
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cloud, name)

    async def create(self, request: ServerRequest) -> ServerId:
        found: ServerId = await self._wire.carry("create", lambda: self._cloud.create(request))
        return found

    async def delete(self, server: ServerId) -> None:
        await self._wire.carry("delete", lambda: self._cloud.delete(server))

    async def rebuild(self, server: ServerId, image_id: str) -> None:
        await self._wire.carry("rebuild", lambda: self._cloud.rebuild(server, image_id))

    async def set_metadata(self, server: ServerId, items: Mapping[str, str]) -> None:
        await self._wire.carry("metadata", lambda: self._cloud.set_metadata(server, items))


class WiredLab(Lab):
    """A lab in which calls may be held, and none changes anything without a look at the Lease."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.wire = Wire()

    def leads(self, replica: int) -> bool:
        self.wire.note()
        return super().leads(replica)

    def _open(self, text: str, cloud: str, installation: InstallationId) -> Cloud:
        wired: Any = Wired(super()._open(text, cloud, installation), self.wire)
        return wired  # type: ignore[no-any-return]

    def second_leader(self) -> "asyncio.Task[None]":
        """Another begins, while the former one goes on; the former one's term."""
        former = self._term
        assert former is not None
        self.start()
        return former

    def resign(self, replica: int) -> None:
        """Its clock tells it that its lease is over."""
        self._leads[replica] = False

    async def stall(self, call: str, number: int) -> None:
        """So many such calls are sent and get stuck, and with them their leader."""
        self.wire.held = {call}
        await self.until(lambda: len(self.wire.under_way) >= number)
        await self.stop()
        self.wire.held = set()


async def test_a_post_that_arrives_late_makes_no_second_server() -> None:
    async with WiredLab() as lab:
        pool = lab.pool(replicas=2)
        await lab.stall("create", 2)
        lab.start()
        await lab.until(lambda: lab.is_even(pool, 2))
        assert await lab.wire.arrive() == ["ok", "ok"]
        assert len(lab.servers()) == 4
        await lab.until(lambda: len(lab.servers()) == 2, within=SWEPT)
        assert lab.is_even(pool, 2)


async def test_a_post_that_arrives_when_its_vm_is_gone_leaves_no_server() -> None:
    async with WiredLab() as lab:
        pool = lab.pool(replicas=2)
        await lab.stall("create", 2)
        lab.start()
        await lab.change(pool, replicas=0)
        await lab.until(lambda: not dict(lab.vms()))
        await lab.wire.arrive()
        assert len(lab.servers()) == 2
        await lab.until(lambda: not lab.servers(), within=SWEPT)


def another(vm: Mapping[str, Any]) -> dict[str, Any]:
    """A WarmVM as it is created, beside one that there is."""
    meta = vm["metadata"]
    kept = {key: meta[key] for key in ("namespace", "labels", "finalizers")}
    known = ("poolRef", "revision", "reclaimPolicy")
    spec = {key: value for key, value in vm["spec"].items() if key in known}
    return {"metadata": kept | {"name": f"{meta['name']}-late"}, "spec": spec}


async def test_vms_whose_creation_arrives_late_get_no_server_beyond_the_pools_size() -> None:
    """The next leader had filled the pool by then, and built those besides."""
    async with WiredLab() as lab:
        pool = lab.pool(replicas=2, maxSize=4)
        await lab.until(lambda: lab.is_even(pool, 2))
        claims = [lab.claim(f"claim-{n}", onUnsatisfied="Wait", timeout="1h") for n in range(3)]
        await lab.until(lambda: all(map(lab.bound, claims)) and lab.is_even(pool, 1))
        for _, vm in list(lab.vms())[:2]:
            lab.cluster.put(Kind.WARM_VM, another(vm))
        await lab.until(lambda: lab.is_even(pool, 1))
        assert lab.most == 4
        lab.delete(Kind.VM_CLAIM, claims[0])
        await lab.until(lambda: lab.is_even(pool, 2))
        assert lab.most == 4


async def test_a_delete_that_arrives_late_finds_its_server_gone() -> None:
    async with WiredLab() as lab:
        pool = lab.pool(replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4))
        await lab.change(pool, replicas=2)
        await lab.stall("delete", 2)
        lab.start()
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.change(pool, replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4))
        await lab.wire.arrive()
        await lab.always(lambda: lab.is_even(pool, 4), 30)


async def recycling(lab: WiredLab) -> None:
    """One VM, and a claim on it that is over."""
    pool = lab.pool(replicas=1, maxSize=1, reclaimPolicy="Recycle")
    await lab.until(lambda: lab.is_even(pool, 1))
    used = lab.claim("used")
    await lab.until(lambda: lab.bound(used))
    lab.delete(Kind.VM_CLAIM, used)


async def rebuilt_under_a_claim(lab: WiredLab) -> bool:
    """Whether the rebuild that is on its way hits a VM that is a claim's by now."""
    claim = lab.claim("next", onUnsatisfied="Wait", timeout="10m")
    await lab.until(lambda: lab.bound(claim), within=300)
    [said] = await lab.wire.arrive()
    return said == "ok"


async def test_a_rebuild_that_arrives_late_takes_no_claims_disk() -> None:
    """Its VM was once rebuilt by the next leader, and wiped by the late call under a claim."""
    async with WiredLab() as lab:
        await recycling(lab)
        await lab.stall("rebuild", 1)
        lab.start()
        assert not await rebuilt_under_a_claim(lab)


async def test_a_rebuild_whose_outcome_is_not_known_takes_no_claims_disk() -> None:
    async with WiredLab() as lab:
        lab.wire.patience = 90
        await recycling(lab)
        lab.wire.held = {"rebuild"}
        await lab.until(lambda: lab.wire.under_way)
        lab.wire.held = set()
        assert not await rebuilt_under_a_claim(lab)


@pytest.mark.parametrize("seed", range(4))
async def test_two_that_both_believe_to_lead_leave_nothing_doubled(seed: int) -> None:
    """The former one builds and deletes on for seconds, while pools grow and claims come."""
    async with WiredLab(seed=seed) as lab:
        pool = lab.pool(replicas=3, reclaimPolicy="Recycle")
        await asyncio.sleep(0.5 * seed)
        former = lab.second_leader()
        claims = [lab.claim(f"claim-{n}", onUnsatisfied="Wait", timeout="10m") for n in range(4)]
        await lab.change(pool, replicas=5)
        await asyncio.sleep(5)
        lab.resign(0)
        with contextlib.suppress(NotLeading, ExceptionGroup):
            await former
        await lab.until(lambda: all(lab.bound(claim) for claim in claims), within=300)
        await lab.until(lambda: lab.is_even(pool, 5), within=300)
        await asyncio.sleep(SWEPT)
        assert lab.is_even(pool, 5)
        assert len(lab.servers()) == 9


async def test_a_post_that_arrives_after_it_was_given_up_is_not_sent_again() -> None:
    """One search that found nothing was believed, and the pool had two servers for one VM."""
    async with WiredLab() as lab:
        lab.wire.patience, lab.wire.held = GIVEN_UP, {"create"}
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.wire.under_way)
        await asyncio.sleep(2 * GIVEN_UP)
        lab.wire.held.clear()
        assert await lab.wire.arrive() == ["ok"]
        await lab.until(lambda: lab.is_even(pool, 1))
        assert lab.posts() == 1
