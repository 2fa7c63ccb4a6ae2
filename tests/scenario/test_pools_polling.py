"""One listing feeds all pools: seldom when nothing happens, and right whatever the clocks say."""

import asyncio

import pytest

from lab import Lab
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.reconcile.rhythm import FULL_EVERY, POLL_IDLE
from warmpool.sim.faults import ApiFault, ListFault

pytestmark = pytest.mark.looptime

LISTING = "GET /compute/v2.1/servers/detail"
ONE = "GET /compute/v2.1/servers/{id}"


async def filled(lab: Lab, replicas: int, **spec: object) -> Ref:
    pool = lab.pool(replicas=replicas, **spec)
    await lab.until(lambda: lab.is_even(pool, replicas))
    return pool


async def calls(lab: Lab, seconds: float) -> dict[str, int]:
    """The calls that the cloud gets in that time."""
    before = lab.nova.traffic.calls.copy()
    await lab.always(lambda: True, seconds)
    return dict(lab.nova.traffic.calls - before)


async def test_a_cloud_where_nothing_happens_is_hardly_asked() -> None:
    async with Lab() as lab:
        for n in range(5):
            lab.pool(f"pool-{n}", replicas=2)
        await lab.until(lambda: len(lab.free()) == 10)
        await calls(lab, 120)
        asked = await calls(lab, 60)
        assert asked.pop(LISTING) <= 7
        assert sum(asked.values()) <= 5, asked


async def test_no_server_is_ever_asked_about_alone_while_a_pool_fills() -> None:
    async with Lab() as lab:
        await filled(lab, 20)
        assert lab.nova.traffic.calls[ONE] == 0


@pytest.mark.parametrize("ahead", [90.0, -90.0])
async def test_an_operator_whose_clock_is_wrong_fills_and_keeps_its_pool(ahead: float) -> None:
    """A build that is asked for now was asked for 90 s ago or later than now, by the cloud."""
    async with Lab(ahead=ahead) as lab:
        pool = await filled(lab, 5, health={"launchTimeout": "30s"})
        assert lab.posts() == 5
        lab.nova.wipe(lab.servers()[0])
        await lab.until(lambda: len(lab.free()) < 5, within=20)
        await lab.until(lambda: lab.is_even(pool, 5))
        assert lab.posts() == 6


async def test_a_build_that_hangs_is_given_up_in_time_whatever_the_clocks_say() -> None:
    async with Lab(ahead=90.0, build=3600.0) as lab:
        lab.pool(replicas=1, health={"launchTimeout": "60s"})
        await lab.until(lambda: lab.notes("LaunchTimeout"), within=70)
        assert lab.clock.monotonic() >= 55


async def test_what_a_cloud_dates_too_early_is_heard_of_all_the_same() -> None:
    """Its conductors write changes down with a clock of their own, 90 s behind the API's."""
    async with Lab(behind=90.0) as lab:
        pool = lab.pool(replicas=5)
        assert await lab.until(lambda: lab.is_even(pool, 5), within=60) < 45
        assert lab.posts() == 5
        lab.nova.wipe(lab.servers()[0])
        await lab.until(lambda: lab.is_even(pool, 5) and lab.posts() == 6, within=90)


async def test_a_complete_listing_that_lacks_half_is_not_believed_and_nobody_is_asked_for() -> None:
    """It may be wrong for as long as it likes: each server is asked for before it is condemned."""
    async with Lab() as lab:
        pool = await filled(lab, 20)
        await lab.always(lambda: True, 880)  # the next complete one is due soon
        off = lab.arm(ListFault(effect="half"))
        asked = await calls(lab, 40)
        assert asked.get(ONE, 0) == 0
        await lab.always(lambda: len(lab.free()) == 20, 120)
        off()
        await lab.until(lambda: lab.is_even(pool, 20))
        assert lab.posts() == 20


async def test_a_server_that_lost_its_tags_is_still_its_vms() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3)
        victim = lab.servers()[0]
        names = {ref.name for ref, _ in lab.vms()}
        lab.nova.set_tags(victim, ())
        await lab.always(lambda: len(lab.free()) == 3, 1000)
        assert {ref.name for ref, _ in lab.vms()} == names
        lab.delete(Kind.WARM_POOL, pool)
        await lab.until(lambda: not lab.servers(), within=90)


async def test_a_build_that_listings_do_not_show_to_be_up_is_not_given_up_for_it() -> None:
    """Every second server is missing for longer than any listing of changes looks back."""
    async with Lab(build=150.0) as lab:
        pool = lab.pool(replicas=6, health={"launchTimeout": "400s"})
        await lab.until(lambda: len(lab.servers()) == 6)
        lab.arm(ListFault(effect="half", seconds=300))
        await lab.until(lambda: lab.is_even(pool, 6), within=450)
        assert lab.posts() == 6


async def test_a_leaked_server_that_somebody_took_our_mark_off_is_not_touched() -> None:
    async with Lab() as lab:
        await filled(lab, 2)
        leaked = await lab.stray("here")
        await asyncio.sleep(30)
        lab.nova.set_tags(leaked, ["mine now"])
        await lab.always(lambda: leaked in lab.servers(), 300)


async def test_racks_that_cannot_be_read_stop_nothing_once_they_are_known() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 2)
        lab.arm(ApiFault(effect="status", path="/os-aggregates"))
        await lab.always(lambda: lab.condition(pool, "DependenciesResolved")[0] == "True", 90)
        await lab.change(pool, replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        assert all(vm["status"]["rack"] for vm in lab.free())


async def test_a_server_that_left_nova_without_a_trace_is_missed_by_the_complete_listing() -> None:
    async with Lab() as lab:
        pool = await filled(lab, 3)
        victim = lab.servers()[0]
        del lab.nova.world.servers[victim.id]
        await lab.until(lambda: len(lab.free()) < 3, within=FULL_EVERY + 30)
        await lab.until(lambda: lab.is_even(pool, 3))
        assert lab.posts() == 4


async def test_a_slow_complete_listing_keeps_no_change_from_being_heard() -> None:
    """It takes more than three minutes here, and one of changes five seconds."""
    async with Lab(page=1) as lab:
        pool = await filled(lab, 40)
        await lab.always(lambda: True, FULL_EVERY - 60)
        lab.arm(ApiFault(effect="slow", path="servers/detail", delay=(5.0, 5.0)))
        asked = await calls(lab, 80)
        assert asked[LISTING] > 80 / (POLL_IDLE + 5.0) + 2, "it is under way"
        lab.nova.wipe(lab.servers()[0])
        await lab.until(lambda: len(lab.free()) < 40, within=30)
        await lab.until(lambda: lab.is_even(pool, 40), within=60)
        await lab.always(lambda: lab.is_even(pool, 40), 300)
        assert lab.posts() == 41
