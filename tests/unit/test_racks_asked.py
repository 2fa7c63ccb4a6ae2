"""Sources are asked in the background, and what they said stands until they say something else."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from builders import a_place, a_server
from warmpool.domain.cloud import Identity, Place
from warmpool.domain.errors import CloudUnavailable, RackConfigInvalid, RackSourceFailed
from warmpool.domain.racks import Host, Hosts, Told
from warmpool.planning.racks import host_id
from warmpool.ports.racks import Chain, Surroundings
from warmpool.reconcile.racks import Racks
from warmpool.sim.clock import LoopClock

pytestmark = pytest.mark.looptime

H1, H2 = Host("h1", "h1.dc"), Host("h2", "h2.dc")


class Keeper:
    """A source whose answers a test chooses."""

    def __init__(self, name: str = "cms", **racks: str) -> None:
        self.name = name
        self.refresh = 600.0
        self.racks = racks
        self.fails = ""
        self.mute: set[str] = set()
        """Hosts that it does not answer for."""
        self.at_most = 1000
        """Hosts that it answers for at a time."""
        self.takes = 0.0
        self.asked: list[tuple[str, ...]] = []
        self.at: list[float] = []
        self.closed = False

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        self.at.append(asyncio.get_running_loop().time())
        self.asked.append(tuple(sorted(host.name for host in hosts)))
        await asyncio.sleep(self.takes)
        if self.fails == "bug":
            raise ZeroDivisionError
        if self.fails:
            raise RackSourceFailed(self.fails)
        some = hosts[: self.at_most]
        heard = [host.name for host in some if host.name not in self.mute]
        return Told({name: self.racks.get(name, "") for name in heard}, "torn")

    async def close(self) -> None:
        self.closed = True


class Nova:
    """As much of a cloud as racks need."""

    region = "RegionOne"

    def __init__(self, *hosts: Host) -> None:
        self.answer = Hosts(hosts)
        self.down = False
        self.closed = False

    async def hosts(self) -> Hosts:
        await asyncio.sleep(0.1)
        if self.down:
            raise CloudUnavailable("503")
        return self.answer

    async def identity(self) -> Identity:
        return Identity("project", "lab")

    async def close(self) -> None:
        self.closed = True


class Watched(LoopClock):
    """Ends who looks at the clock again and again without ever letting the others go on."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.looks = 0.0, 0

    def monotonic(self) -> float:
        now = super().monotonic()
        self.looks = self.looks + 1 if now == self.at else 0
        self.at = now
        assert self.looks < 1000, "it goes round and round"
        return now


class Site:
    """Racks of one cloud, and all that they rest on."""

    def __init__(
        self, *keepers: Keeper, nova: Nova | None = None, apart: Nova | None = None
    ) -> None:
        self.keepers = list(keepers)
        self.nova = nova or Nova(H1, H2)
        self.apart = apart
        self.invalid = ""
        self.bug = False
        self.changes = 0
        clock, rng = Watched(), random.Random(1)  # noqa: S311 - jitter
        self.racks = Racks(self.nova, self.open, clock, rng, self._changed)  # type: ignore[arg-type]
        self.edition = 0

    def _changed(self) -> None:
        self.changes += 1

    def open(self, _: Surroundings) -> Chain:
        if self.invalid:
            raise RackConfigInvalid(self.invalid)
        if self.bug:
            raise ZeroDivisionError("s3cret")
        return Chain(self.apart or self.nova, tuple(self.keepers))  # type: ignore[arg-type]

    def configure(self) -> None:
        """A new edition of racks.yaml."""
        self.edition += 1
        secret = {"racks.yaml": str(self.edition).encode()}
        nothing: Any = None
        self.racks.configure(Surroundings("lab", secret, nothing, nothing, nothing))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Racks]:
        self.configure()
        task = asyncio.ensure_future(self.racks.run(lambda: None))
        try:
            await self.racks.first_look()
            yield self.racks
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_first_look_waits_for_all_sources_and_no_longer() -> None:
    slow = Keeper("slow", h1="r1", h2="r2")
    slow.takes = 3.0
    async with Site(Keeper("fast"), slow).running() as racks:
        assert asyncio.get_running_loop().time() == pytest.approx(3.1, abs=0.2)
        assert (racks.of_host("h1"), racks.of_host("h2")) == ("r1", "r2")


async def test_nobody_waits_for_a_source_that_does_not_answer() -> None:
    stuck = Keeper("stuck")
    stuck.takes = 100_000.0
    async with Site(stuck, Keeper("other", h1="r1")).running() as racks:
        assert asyncio.get_running_loop().time() == pytest.approx(10.0, abs=0.2)
        assert racks.of_host("h1") == "r1"
        await asyncio.sleep(200)
        assert "stuck: no answer within 120 s" in racks.report.silent


async def test_what_a_source_said_stands_while_it_fails() -> None:
    cms = Keeper(h1="r1", h2="r2")
    cms.refresh = 30.0
    async with Site(cms).running() as racks:
        cms.fails = "500"
        await asyncio.sleep(3600)
        assert racks.of_host("h1") == "r1"
        assert racks.report.silent == ("cms: 500",)
        cms.fails, cms.racks = "", {"h1": "r9", "h2": "r2"}
        await asyncio.sleep(100)
        assert racks.of_host("h1") == "r9"
        assert racks.report.silent == ()


async def test_a_source_that_fails_is_asked_less_and_less_often() -> None:
    cms = Keeper()
    cms.fails = "500"
    async with Site(cms).running():
        await asyncio.sleep(3600)
        assert 50 <= len(cms.asked) <= 140


async def test_a_fault_in_a_source_is_no_fault_of_ours() -> None:
    broken = Keeper("broken")
    broken.fails = "bug"
    async with Site(broken, Keeper("other", h1="r1")).running() as racks:
        assert racks.of_host("h1") == "r1"
        assert racks.report.silent == ("broken: ZeroDivisionError",)


async def test_a_source_that_forgets_everything_is_believed_after_ten_minutes() -> None:
    cms = Keeper(h1="r1", h2="r2")
    cms.refresh = 30.0
    async with Site(cms).running() as racks:
        cms.racks = {}
        await asyncio.sleep(31)
        assert racks.of_host("h1") == "r1"
        assert racks.report.silent == ("cms: it has forgotten most hosts that it knew",)
        await asyncio.sleep(500)
        assert racks.of_host("h1") == "r1"
        await asyncio.sleep(200)
        assert racks.of_host("h1") == ""
        assert racks.report.silent == ()


async def test_a_source_that_is_empty_when_a_leader_begins_is_believed_after_ten_minutes() -> None:
    """It was believed at once: nobody remembered what it had told the former leader."""
    before = Place("RegionOne", "az1", "r1", "h1.dc")
    cms = Keeper()
    async with Site(cms).running() as racks:
        assert racks.place(at(H1, zone="az1"), before) == before
        await asyncio.sleep(550)
        assert racks.place(at(H1, zone="az1"), before) == before
        assert racks.of_host("h1") == "r1"
        await asyncio.sleep(120)
        assert racks.place(at(H1, zone="az1"), before).rack == ""


async def test_a_source_that_is_empty_after_a_change_of_the_secret_is_doubted() -> None:
    site = Site(Keeper(h1="r1", h2="r2"))
    async with site.running() as racks:
        latter = Keeper(h2="r7")
        site.keepers = [latter]
        site.configure()
        await asyncio.sleep(550)
        assert (racks.of_host("h1"), racks.of_host("h2")) == ("r1", "r7")
        await asyncio.sleep(120)
        assert racks.of_host("h1") == ""
        assert racks.report.unknown == ("h1",)
        latter.takes = 50.0
        site.configure()
        await asyncio.sleep(10)
        assert racks.of_host("h1") == "", "it is known by now to be in none"


async def test_an_answer_is_good_for_as_long_as_the_source_says() -> None:
    cms = Keeper(h1="r1", h2="r2")
    async with Site(cms).running():
        await asyncio.sleep(1250)
        assert len(cms.asked) in (3, 4)
        assert cms.asked[0] == ("h1", "h2")


async def test_a_new_host_is_asked_about_at_once_and_alone() -> None:
    cms = Keeper(h1="r1", h2="r2", h3="r3")
    async with Site(cms).running() as racks:
        await asyncio.sleep(20)
        racks.heed([a_server(3, host="h3", hypervisor="h3.dc")])
        await asyncio.sleep(0.1)
        assert cms.asked == [("h1", "h2"), ("h3",)]
        assert racks.of_host("h3") == "r3"


async def test_a_host_in_no_rack_is_asked_about_again_soon() -> None:
    cms = Keeper(h1="r1")
    async with Site(cms).running() as racks:
        assert racks.report.unknown == ("h2",)
        cms.racks = {"h1": "r1", "h2": "r2"}
        await asyncio.sleep(70)
        assert racks.of_host("h2") == "r2"
        assert racks.report.unknown == ()


async def test_somebody_is_told_only_of_what_changes() -> None:
    site = Site(Keeper(h1="r1", h2="r2"))
    async with site.running():
        await asyncio.sleep(10)
        before = site.changes
        await asyncio.sleep(3600)
        assert site.changes == before


async def test_a_new_chain_does_not_forget_what_the_former_one_knew() -> None:
    former = Keeper("former", h1="r1", h2="r2")
    site = Site(former)
    async with site.running() as racks:
        latter = Keeper("latter", h1="r1", h2="r9")
        latter.takes = 50.0
        site.keepers = [latter]
        site.configure()
        await asyncio.sleep(30)
        assert former.closed
        assert (racks.of_host("h1"), racks.of_host("h2")) == ("r1", "r2")
        await asyncio.sleep(30)
        assert (racks.of_host("h1"), racks.of_host("h2")) == ("r1", "r9")


async def test_a_racks_yaml_that_is_wrong_leaves_the_former_chain() -> None:
    cms = Keeper(h1="r1", h2="r2")
    cms.refresh = 30.0
    site = Site(cms)
    async with site.running() as racks:
        site.invalid = "racks.yaml: what?"
        site.configure()
        cms.racks = {"h1": "r9", "h2": "r2"}
        await asyncio.sleep(60)
        assert racks.report.wrong == "racks.yaml: what?"
        assert racks.of_host("h1") == "r9"
        site.invalid = ""
        site.configure()
        await asyncio.sleep(1)
        assert racks.report.wrong == ""


# -- where a server stands --------------------------------------------------------------------


def at(host: Host, **fields: Any) -> Any:
    return a_server(host=host.name, hypervisor=host.hypervisor, **fields)


async def test_a_leader_that_begins_without_a_cms_leaves_vms_where_they_are() -> None:
    """Otherwise every VM would be written to no rack, and back again."""
    cms = Keeper(h1="r1")
    cms.fails = "500"
    async with Site(cms, Keeper("pattern", h1="x")).running() as racks:
        before = Place("RegionOne", "az1", "r1", "h1.dc")
        assert racks.place(at(H1, zone="az1"), before) == before
        assert racks.of_host("h1") == "r1"
        cms.fails, cms.racks = "", {"h1": "r7"}
        await asyncio.sleep(60)
        assert racks.place(at(H1, zone="az1"), before).rack == "r7"


async def test_a_vm_that_moved_meanwhile_is_in_no_rack_that_was() -> None:
    cms = Keeper()
    cms.fails = "500"
    async with Site(cms).running() as racks:
        before = Place("RegionOne", "az1", "r1", "h1.dc")
        assert racks.place(at(H2, zone="az1"), before).rack == ""


async def test_a_racks_yaml_that_was_always_wrong_takes_no_rack_away() -> None:
    site = Site(Keeper(h1="r1"))
    site.invalid = "racks.yaml: what?"
    async with site.running() as racks:
        before = Place("RegionOne", "az1", "r1", "h1.dc")
        assert racks.place(at(H1, zone="az1"), before) == before


def hidden(host: Host, **fields: Any) -> Any:
    """A server as a member sees it."""
    return a_server(host=None, hypervisor=None, host_id=host_id("project", host.name), **fields)


async def test_an_inventory_of_its_own_names_the_hosts_that_a_member_does_not_see() -> None:
    member, reader = Nova(), Nova(H1, H2)
    site = Site(Keeper(h1="r1"), nova=member, apart=reader)
    async with site.running() as racks:
        place = racks.place(hidden(H1, zone="az1"), Place())
        assert place == Place("RegionOne", "az1", "r1", "h1.dc")
    assert reader.closed
    assert not member.closed


async def test_until_the_inventory_answers_vms_are_where_they_were() -> None:
    reader = Nova(H1, H2)
    reader.down = True
    async with Site(Keeper(h2="r2"), nova=Nova(), apart=reader).running() as racks:
        before = a_place(1)
        assert racks.place(hidden(H2, zone="az1"), before) == before
        reader.down = False
        await asyncio.sleep(60)
        assert racks.place(hidden(H2, zone="az1"), before).rack == "r2"


async def test_a_change_of_the_secret_does_not_forget_whose_ids_hosts_have() -> None:
    """VMs that were built meanwhile stood on no known hypervisor, and in no rack."""
    reader = Nova(H1, H2)
    site = Site(Keeper(h1="r1"), nova=Nova(), apart=reader)
    async with site.running() as racks:
        reader.down = True
        site.configure()
        await asyncio.sleep(30)
        place = racks.place(hidden(H1, zone="az1"), Place())
        assert place == Place("RegionOne", "az1", "r1", "h1.dc")


async def test_a_host_that_the_inventory_never_names_is_told_apart_all_the_same() -> None:
    async with Site(Keeper(), nova=Nova(), apart=Nova(H1)).running() as racks:
        server = hidden(H2, zone="az1")
        racks.heed([server])
        await asyncio.sleep(10)
        assert racks.place(server, a_place(1)).hypervisor == server.host_id[:16]


async def test_members_alone_are_told_why_there_are_no_racks() -> None:
    nova = Nova()
    nova.answer = Hosts(visible=False, why_not="Policy doesn't allow it")
    async with Site(Keeper(h1="r1"), nova=nova).running() as racks:
        assert asyncio.get_running_loop().time() < 1.0
        assert racks.report.hidden == "Policy doesn't allow it"
        server = hidden(H1, zone="az1")
        assert racks.place(server, Place()) == Place("RegionOne", "az1", "", server.host_id[:16])


async def test_an_inventory_that_fails_is_told_of_and_what_it_said_stands() -> None:
    """It was only in the log."""
    apart = Nova(H1, H2)
    async with Site(Keeper(h1="r1", h2="r2"), apart=apart).running() as racks:
        apart.down = True
        await asyncio.sleep(100)
        assert (racks.report.unlisted, racks.of_host("h1")) == ("503", "r1")
        apart.down = False
        await asyncio.sleep(100)
        assert racks.report.unlisted == ""


async def test_one_failure_to_list_the_hosts_is_nobody_s_concern() -> None:
    apart = Nova(H1, H2)
    site = Site(Keeper(h1="r1", h2="r2"), apart=apart)
    async with site.running() as racks:
        apart.down = True
        await asyncio.sleep(60)
        apart.down = False
        assert racks.report.unlisted == ""
        await asyncio.sleep(60)
        assert racks.report.unlisted == ""


async def test_an_inventory_that_may_not_see_hosts_any_more_is_told_of() -> None:
    apart = Nova(H1, H2)
    async with Site(Keeper(h1="r1", h2="r2"), apart=apart).running() as racks:
        apart.answer = Hosts(visible=False, why_not="403")
        await asyncio.sleep(100)
        assert (racks.report.unlisted, racks.report.hosts) == ("403", 2)
        assert racks.of_host("h1") == "r1"


async def test_a_host_that_nova_has_no_more_is_forgotten() -> None:
    nova = Nova(H1, H2)
    async with Site(Keeper(h1="r1"), nova=nova).running() as racks:
        nova.answer = Hosts((H1,))
        await asyncio.sleep(200)
        assert (racks.report.hosts, racks.report.unknown) == (1, ())


async def test_the_last_host_that_a_source_does_not_answer_for_may_go_away() -> None:
    """Its failure was kept with nobody left to ask about, and the whole process stood still."""
    nova, cms = Nova(H1, H2), Keeper(h1="r1")
    cms.mute = {"h2"}
    async with Site(cms, nova=nova).running() as racks:
        assert racks.report.silent == ("cms: torn",)
        nova.answer = Hosts((H1,))
        await asyncio.sleep(400)
        assert racks.report.silent == ()
        asked = len(cms.asked)
        racks.heed([a_server(3, host="h3", hypervisor="h3.dc")])
        await asyncio.sleep(1)
        assert cms.asked[asked:] == [("h3",)]


async def test_a_source_that_never_gets_to_all_hosts_gets_to_each_in_turn() -> None:
    """Those that it knew no rack of were asked about again and again, and the others never."""
    hosts = [Host(f"h{n}") for n in range(40)]
    cms = Keeper(h39="r1")
    cms.at_most, cms.takes = 2, 10.0
    async with Site(cms, nova=Nova(*hosts)).running() as racks:
        await asyncio.sleep(2400)
        assert racks.of_host("h39") == "r1"


async def test_a_racks_yaml_that_breaks_its_reader_changes_nothing() -> None:
    """It is a tenant's: each leader ended by it."""
    site = Site(Keeper(h1="r1", h2="r2"))
    async with site.running() as racks:
        site.bug = True
        site.configure()
        assert racks.of_host("h1") == "r1"
        assert racks.report.wrong == "racks.yaml cannot be read (ZeroDivisionError)"
