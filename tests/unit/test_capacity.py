"""What is read of a cloud's capacity, when, and what is taken off for builds on their way."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from builders import a_vm
from warmpool.domain.cloud import (
    BuildSpec,
    FlavorSize,
    HostRoom,
    Inventory,
    NetworkChoice,
    Quota,
    Usage,
)
from warmpool.domain.errors import CloudUnavailable
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import Headroom
from warmpool.reconcile.capacity import (
    ANSWER_WITHIN,
    CALM_EVERY,
    COUNTED_WITHIN,
    FORGOTTEN_AFTER,
    MISSES,
    SHORT_EVERY,
    Capacity,
)
from warmpool.sim.clock import LoopClock

pytestmark = pytest.mark.looptime

POOL, OTHER = Ref("search", "data"), Ref("search", "master")
SPEC = BuildSpec("f-1", "i-1", NetworkChoice.NONE, size=FlavorSize(1, 512, 1))
LARGE = replace(SPEC, flavor_id="f-2")
HOSTS = (HostRoom("h1.lab", "h1", "az1", 3), HostRoom("h2.lab", "h2", "az2", None))
VM = a_vm(1, aim="h1.lab")


class Cloud:
    """Tells what the test has set, and counts how often."""

    region = "RegionOne"

    def __init__(self) -> None:
        self.inventories = self.quotas = 0
        self.takes = 0.0
        self.used = 4
        self.error: Exception | None = None
        self.shown = Inventory(HOSTS)

    async def inventory(self, spec: BuildSpec) -> Inventory:
        assert spec in (SPEC, LARGE)
        self.inventories += 1
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return self.shown

    async def quota(self) -> Quota:
        self.quotas += 1
        await asyncio.sleep(self.takes)
        if self.error is not None:
            raise self.error
        return Quota(Usage(self.used, 10), Usage(0, None), Usage(0, None))


class Bench:
    """A capacity that runs, and who it has woken."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.woken: list[Ref] = []
        self.capacity = Capacity(
            self.cloud,  # type: ignore[arg-type]
            LoopClock(),
            random.Random(1),  # noqa: S311 - jitter
            self.woken.append,
        )

    async def surveyed(self, pool: Ref = POOL, spec: BuildSpec = SPEC) -> None:
        self.capacity.want(pool, spec, short=True)
        await asyncio.sleep(0.1)
        assert self.capacity.surveyed(pool)

    def left(self) -> int | None:
        return self.capacity.headroom(SPEC.size, ours=4).left

    def rooms(self, spec: BuildSpec = SPEC) -> dict[str, int | None] | None:
        sites = self.capacity.sites(spec, {"h1": "r1", "h2": "r2"}.__getitem__)
        return None if sites is None else {s.place.hypervisor: s.room for s in sites}


Test = Callable[[Bench], Awaitable[None]]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def running(bench: Bench, test: Test) -> None:
    task = asyncio.ensure_future(bench.capacity.run(lambda: None))
    try:
        await test(bench)
    finally:
        task.cancel()


async def test_a_cloud_that_nobody_wants_to_know_of_is_not_asked(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await asyncio.sleep(300)
        assert (b.cloud.inventories, b.cloud.quotas) == (0, 0)
        assert not b.capacity.surveyed(POOL)
        assert (b.left(), b.rooms(), b.capacity.unaimed(SPEC)) == (None, None, "")

    await running(bench, test)


async def test_a_pool_that_is_short_is_told_at_once_and_then_often(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        assert b.woken == [POOL]
        assert b.left() == 6
        assert b.rooms() == {"h1.lab": 3, "h2.lab": None}
        await asyncio.sleep(5 * SHORT_EVERY)
        assert 5 <= b.cloud.quotas <= 6
        assert b.cloud.inventories == b.cloud.quotas

    await running(bench, test)


async def test_a_place_has_the_rack_of_its_host(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        sites = b.capacity.sites(SPEC, lambda host: f"rack-of-{host}") or ()
        assert [s.place.rack for s in sites] == ["rack-of-h1", "rack-of-h2"]
        assert {s.place.region for s in sites} == {"RegionOne"}

    await running(bench, test)


async def test_pools_share_what_is_read_and_a_full_one_asks_seldom(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        b.capacity.want(POOL, SPEC, short=False)
        b.capacity.want(OTHER, SPEC, short=False)
        await asyncio.sleep(CALM_EVERY - 1)
        assert b.capacity.surveyed(OTHER)
        assert (b.cloud.inventories, b.cloud.quotas) == (1, 1)

    await running(bench, test)


async def test_each_flavor_has_an_inventory_of_its_own(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        await b.surveyed(OTHER, LARGE)
        assert (b.cloud.inventories, b.cloud.quotas) == (2, 1)

    await running(bench, test)


async def test_who_does_not_ask_again_is_forgotten(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        await asyncio.sleep(FORGOTTEN_AFTER + SHORT_EVERY)
        read = b.cloud.quotas
        await asyncio.sleep(600)
        assert b.cloud.quotas == read
        assert not b.capacity.surveyed(POOL)
        await b.surveyed()
        assert b.cloud.quotas == read + 1

    await running(bench, test)


async def test_a_cloud_that_fails_bounds_nothing_and_says_why_nothing_is_aimed(
    bench: Bench,
) -> None:
    async def test(b: Bench) -> None:
        b.cloud.error = CloudUnavailable("oops")
        await b.surveyed()
        assert (b.left(), b.rooms(), b.capacity.unaimed(SPEC)) == (None, None, "oops")
        b.cloud.error = None
        await asyncio.sleep(SHORT_EVERY)
        assert b.left() == 6

    await running(bench, test)


async def test_a_cloud_that_hangs_is_given_up_and_asked_less(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        b.cloud.takes = 60
        b.capacity.want(POOL, SPEC, short=True)
        await asyncio.sleep(ANSWER_WITHIN + 0.1)
        assert b.capacity.surveyed(POOL)
        assert "no answer" in b.capacity.unaimed(SPEC)
        for _ in range(10):
            await asyncio.sleep(15)
            b.capacity.want(POOL, SPEC, short=True)
            assert b.capacity.surveyed(POOL)
        assert b.cloud.quotas == 1

    await running(bench, test)


async def test_nothing_is_read_with_credentials_that_are_refused(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        b.capacity.rest(resting=True)
        await asyncio.sleep(1.5 * SHORT_EVERY)
        b.capacity.want(POOL, SPEC, short=True)
        await asyncio.sleep(FORGOTTEN_AFTER / 2)
        assert (b.cloud.inventories, b.cloud.quotas) == (1, 1)
        b.capacity.rest(resting=False)
        await asyncio.sleep(0.1)
        assert (b.cloud.inventories, b.cloud.quotas) == (2, 2)

    await running(bench, test)


async def test_credentials_that_see_no_hypervisors_aim_at_none(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        b.cloud.shown = Inventory(visible=False, why_not="hidden")
        await b.surveyed()
        assert (b.rooms(), b.capacity.unaimed(SPEC)) == (None, "hidden")
        assert not b.capacity.takes(SPEC, "h1.lab")

    await running(bench, test)


async def test_credentials_that_may_not_aim_do_not_try_again(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        assert b.capacity.takes(SPEC, "h1.lab")
        b.capacity.may_not_aim("forbidden")
        assert (b.rooms(), b.capacity.unaimed(SPEC)) == (None, "forbidden")
        assert not b.capacity.takes(SPEC, "h1.lab")

    await running(bench, test)


async def test_a_build_on_its_way_is_taken_off_until_nova_counts_it(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        b.capacity.promise(VM.ref, SPEC, "h1.lab")
        assert (b.left(), b.rooms()) == (5, {"h1.lab": 2, "h2.lab": None})
        await asyncio.sleep(SHORT_EVERY + COUNTED_WITHIN)
        assert b.left() == 5  # not even asked for yet
        b.capacity.posted(VM.ref)
        await asyncio.sleep(SHORT_EVERY + COUNTED_WITHIN + 1)
        assert (b.left(), b.rooms()) == (6, {"h1.lab": 3, "h2.lab": None})

    await running(bench, test)


async def test_a_build_that_came_to_nothing_is_given_back(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        b.capacity.promise(VM.ref, SPEC, "")
        b.capacity.broken(VM.ref)
        b.capacity.posted(VM.ref)
        assert b.left() == 6

    await running(bench, test)


async def test_a_build_nobody_tells_the_end_of_is_forgotten_in_the_end(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        b.capacity.promise(VM.ref, SPEC, "")
        for _ in range(130):
            b.capacity.want(POOL, SPEC, short=True)
            await asyncio.sleep(30)
        assert b.left() == 6

    await running(bench, test)


async def test_where_a_build_has_failed_nothing_is_aimed_for_a_while(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        assert b.capacity.failed(SPEC, VM)
        await asyncio.sleep(0.1)
        assert b.rooms() == {"h1.lab": 0, "h2.lab": None}
        assert not b.capacity.takes(SPEC, "h1.lab")
        assert b.cloud.inventories == 2, "what was wrong once is read anew"
        await asyncio.sleep(4)
        assert b.rooms() == {"h1.lab": 3, "h2.lab": None}
        b.capacity.failed(SPEC, VM)
        await asyncio.sleep(4)
        assert not b.capacity.takes(SPEC, "h1.lab"), "longer each time"
        b.capacity.worked(SPEC, VM)
        assert b.capacity.takes(SPEC, "h1.lab")

    await running(bench, test)


async def test_after_several_failures_in_a_row_nova_chooses_for_a_while(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        for n in range(MISSES):
            assert not b.capacity.is_cautious(SPEC)
            b.capacity.failed(SPEC, a_vm(n, aim=f"h{n}"))
        await asyncio.sleep(0.1)
        assert b.rooms() is None
        assert "failed where they were aimed" in b.capacity.unaimed(SPEC)
        assert not b.capacity.takes(SPEC, "h2.lab")
        assert b.rooms(LARGE) is None, "not surveyed"
        await asyncio.sleep(4)
        assert b.rooms() == {"h1.lab": 3, "h2.lab": None}

    await running(bench, test)


def unaimed() -> Vm:
    return a_vm(2, aim="")


async def test_a_failure_where_nova_had_chosen_says_nothing_about_a_hypervisor(
    bench: Bench,
) -> None:
    async def test(b: Bench) -> None:
        await b.surveyed()
        assert not b.capacity.failed(SPEC, unaimed())
        b.capacity.promise(VM.ref, SPEC, "")  # it was posted without its aim
        assert not b.capacity.failed(SPEC, VM)
        b.capacity.worked(SPEC, unaimed())
        assert b.capacity.takes(SPEC, "h1.lab")

    await running(bench, test)


async def test_a_quota_without_bound_leaves_any_number(bench: Bench) -> None:
    async def test(b: Bench) -> None:
        b.cloud.used = 10
        await b.surveyed()
        assert b.capacity.headroom(FlavorSize(), ours=10) == Headroom(
            0, "the quota is reached: 10 of 10 instances are used"
        )

    await running(bench, test)
