"""Racks from many places: they are followed, and none of them stands in anybody's way."""

import asyncio

import pytest

from lab import SPACE, Lab
from warmpool.domain.errors import RackSourceFailed
from warmpool.domain.ids import Ref
from warmpool.domain.racks import Host, Told
from warmpool.effects.racks.opening import open_racks
from warmpool.ports.racks import Chain, Surroundings

pytestmark = pytest.mark.looptime

RACKS_KNOWN = "RacksKnown"
MAP = Ref(SPACE, "racks")

BY_MAP = "clouds: {lab: {sources: [{configMap: {name: racks}}]}}"
BY_NAME = r"clouds: {lab: {sources: [{hostName: {pattern: '(?P<rack>r\d+)-.*'}}]}}"
BOTH = "clouds: {lab: {sources: [{configMap: {name: racks}}, {aggregate: {}}]}}"
APART = "clouds: {lab: {inventory: lab-admin}}"


class Cms:
    """A CMS in front of what the aggregates say, as good or bad as a test has it."""

    name = "cms"
    refresh = 60.0

    def __init__(self) -> None:
        self.trouble = ""
        self.moved: dict[str, str] = {}

    def __call__(self, around: Surroundings) -> Chain:
        [self.inner] = open_racks(around).sources
        return Chain(around.project, (self,))

    async def ask(self, hosts: tuple[Host, ...]) -> Told:
        match self.trouble:
            case "slow":
                await asyncio.sleep(3600)
            case "500":
                raise RackSourceFailed("https://cms: answered 500")
            case "bug":
                raise KeyError
            case "empty":
                return Told({host.name: "" for host in hosts})
        return Told({**(await self.inner.ask(hosts)).racks, **self.moved})

    async def close(self) -> None:
        await self.inner.close()


def racks(lab: Lab) -> set[str]:
    return {vm["status"]["rack"] for vm in lab.free()}


async def test_racks_are_those_that_the_first_source_names() -> None:
    async with Lab() as lab:
        lab.racks(BY_NAME)
        pool = lab.pool(replicas=8, spread=[{"domain": "rack", "maxSkew": 1}])
        await lab.until(lambda: lab.is_even(pool, 8))
        assert racks(lab) == {"r1", "r2", "r3", "r4"}
        assert lab.condition(pool, RACKS_KNOWN) == ("True", "RacksKnown")


async def test_a_config_map_is_read_again_when_it_changes() -> None:
    async with Lab(racks=1) as lab:
        lab.racks(BY_MAP)
        lab.cluster.config_maps[MAP] = {"r1-h1": "left", "r1-h2": "right"}
        pool = lab.pool(replicas=4)
        await lab.until(lambda: lab.is_even(pool, 4))
        assert racks(lab) == {"left", "right"}
        lab.cluster.config_maps[MAP] = {"racks.yaml": "{r1-h1: left, r1-h2: middle}"}
        await lab.until(lambda: racks(lab) == {"left", "middle"}, within=25)
        assert lab.posts() == 4


async def test_racks_yaml_is_read_again_when_it_changes() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=8)
        await lab.until(lambda: lab.is_even(pool, 8))
        hosts = {h.name: "here" for h in lab.nova.world.hosts.values()}
        lab.cluster.config_maps[MAP] = hosts
        lab.racks(BY_MAP)
        await lab.until(lambda: racks(lab) == {"here"})


async def test_sources_that_contradict_each_other_are_told_by_the_pool() -> None:
    async with Lab() as lab:
        lab.racks(BOTH)
        lab.cluster.config_maps[MAP] = {"r1-h1": "r9"}
        pool = lab.pool(replicas=8)
        await lab.until(lambda: lab.is_even(pool, 8))
        assert "r9" in racks(lab)
        assert lab.condition(pool, RACKS_KNOWN) == ("False", "RacksContradict")
        said = next(c for c in lab.status(pool)["conditions"] if c["type"] == RACKS_KNOWN)
        assert said["message"] == "r1-h1: configMap says 'r9', aggregate 'r1'"


async def test_an_inventory_of_its_own_gives_members_racks() -> None:
    async with Lab(admin=False) as lab:
        lab.racks(APART)
        pool = lab.pool(replicas=6)
        await lab.until(lambda: lab.is_even(pool, 6))
        assert racks(lab) <= {"r1", "r2", "r3", "r4"}
        assert all(vm["status"]["hypervisor"].startswith("r") for vm in lab.free())
        assert lab.condition(pool, RACKS_KNOWN)[0] == "True"
        claim = lab.claim(count=2, mode="RackAware")
        await lab.until(lambda: lab.bound(claim))


async def test_members_alone_are_told_why_there_are_no_racks() -> None:
    async with Lab(admin=False) as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        assert lab.condition(pool, RACKS_KNOWN) == ("Unknown", "RacksUnknown")
        assert lab.status(pool)["domains"] == [
            {"rack": "", "ready": 2, "claimed": 0, "building": 0}
        ]
        refused = lab.claim("racked", count=2, mode="RackAware")
        await lab.until(lambda: lab.claim_status(refused).get("phase") == "Failed")
        assert lab.claim_status(refused)["shortfall"]["reason"] == "RacksUnknown"
        claim = lab.claim(count=2, mode="HypervisorAware", onUnsatisfied="Wait")
        await lab.until(lambda: lab.bound(claim))


@pytest.mark.parametrize("trouble", ["slow", "500", "bug", "empty"])
async def test_a_cms_in_trouble_keeps_nobody_from_filling_or_binding(trouble: str) -> None:
    async with Lab() as lab:
        cms = Cms()
        lab.open_racks = cms
        await lab.restart()
        pool = lab.pool(replicas=8)
        await lab.until(lambda: lab.is_even(pool, 8))
        before = racks(lab)
        assert before == {"r1", "r2", "r3", "r4"}
        cms.trouble = trouble
        await asyncio.sleep(90)
        claim = lab.claim(count=4, mode="RackAware")
        assert await lab.until(lambda: lab.bound(claim)) < 2
        assert await lab.until(lambda: lab.is_even(pool, 8)) < 10
        assert racks(lab) == before


@pytest.mark.parametrize("trouble", ["slow", "500", "bug"])
async def test_a_leader_that_finds_the_cms_in_trouble_fills_and_binds(trouble: str) -> None:
    """Ready VMs keep the racks that the former leader wrote."""
    async with Lab() as lab:
        cms = Cms()
        lab.open_racks = cms
        await lab.restart()
        pool = lab.pool(replicas=8)
        await lab.until(lambda: lab.is_even(pool, 8))
        cms.trouble = trouble
        await lab.restart()
        claim = lab.claim(count=4, mode="RackAware")
        assert await lab.until(lambda: lab.bound(claim)) < 2
        assert await lab.until(lambda: lab.is_even(pool, 8)) < 25
        assert racks(lab) == {"r1", "r2", "r3", "r4"}
        await lab.until(lambda: lab.condition(pool, RACKS_KNOWN)[0] != "True", within=200)
        cms.trouble = ""
        await lab.until(
            lambda: lab.condition(pool, RACKS_KNOWN) == ("True", "RacksKnown"), within=200
        )


async def test_a_pool_is_filled_before_the_cms_has_ever_answered() -> None:
    async with Lab() as lab:
        cms = Cms()
        cms.trouble = "slow"
        lab.open_racks = cms
        await lab.restart()
        pool = lab.pool(replicas=4)
        assert await lab.until(lambda: lab.is_even(pool, 4)) < 20
        assert racks(lab) == {""}
        claim = lab.claim(count=2, mode="HypervisorAware")
        await lab.until(lambda: lab.bound(claim))
        cms.trouble = ""
        await lab.until(lambda: "" not in racks(lab), within=200)


async def test_a_rack_that_changes_is_written_on_vms_and_their_pool() -> None:
    async with Lab(racks=1) as lab:
        cms = Cms()
        lab.open_racks = cms
        await lab.restart()
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        claim = lab.claim(count=1)
        await lab.until(lambda: lab.bound(claim) and lab.is_even(pool, 2))
        cms.moved = {"r1-h1": "r9", "r1-h2": "r9"}
        await lab.until(lambda: racks(lab) == {"r9"}, within=100)
        await lab.until(
            lambda: (
                lab.status(pool)["domains"]
                == [{"rack": "r9", "ready": 2, "claimed": 1, "building": 0}]
            )
        )


async def test_a_racks_yaml_that_cannot_be_read_is_told_and_stops_nobody() -> None:
    async with Lab() as lab:
        lab.racks("clouds: {lab: {sources: [{aggregates: {}}]}}")
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        assert lab.condition(pool, RACKS_KNOWN) == ("False", "RackConfigInvalid")
        assert racks(lab) == {""}
        lab.racks("clouds: {lab: {sources: [{aggregate: {}}]}}")
        await lab.until(lambda: "" not in racks(lab), within=100)
