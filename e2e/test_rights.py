"""What works with which rights in Nova, and what pools and claims make of it.

Each journey needs a plain member and an admin of one project: on the simulator both are there, on a
cloud of yours `--cloud` names the admin's entry and `--member` the other.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from harness.clouds import CloudUnderTest
from harness.rights import Rights
from harness.sandbox import Sandbox

from warmpool.api.names import Kind
from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.cloud import BuildSpec, Server, ServerRequest, ServerState
from warmpool.domain.errors import AimForbidden, CapacityRefused
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.effects.nova import NovaCloud, open_cloud
from warmpool.effects.nova_calls import Call

DOCS: Final = Path(__file__).parent.parent / "docs" / "credentials.md"
BUILT_WITHIN: Final = 60.0
OK: Final = 200


@pytest.fixture
def rights(cloud: CloudUnderTest, request: pytest.FixtureRequest) -> Rights:
    return Rights(cloud, request.config.getoption("--member"))


# -- the table ------------------------------------------------------------------------------------


class Trial:
    """What one set of credentials can do, with a server of its own that runs."""

    def __init__(self, cloud: NovaCloud, spec: BuildSpec, server: Server) -> None:
        self.cloud = cloud
        self.spec = spec
        self.server = server

    async def serve(self) -> bool:
        """It was built already, and is deleted at the end."""
        return self.server.id in {s.id for s in (await self.cloud.list(None)).servers}

    async def mark(self) -> bool:
        await self.cloud.set_metadata(self.server.id, {"tried": "yes"})
        return True

    async def quota(self) -> bool:
        return (await self.cloud.quota()).instances.used > 0

    async def groups(self) -> bool:
        group = await self.cloud.create_group(f"rights-{uuid.uuid4()}")
        await self.cloud.delete_group(group)
        return True

    async def tell_apart(self) -> bool:
        return bool(self.server.host_id)

    async def name_host(self) -> bool:
        return bool(self.server.host)

    async def hosts(self) -> bool:
        return (await self.cloud.hosts()).visible

    async def aggregates(self) -> bool:
        return (await self.cloud.topology()).visible

    async def traits(self) -> bool:
        return (await self.cloud.traits("CUSTOM_RACK_")).visible

    async def services(self) -> bool:
        return (await self.cloud.answer(Call("list services", "/os-services"))).status == OK

    async def room(self) -> bool:
        return (await self.cloud.inventory(self.spec)).visible

    async def aim(self) -> bool:
        """A host that there is not will do: who may not choose is refused for that."""
        try:
            await self.cloud.create(
                ServerRequest("aimed", VmUid("aimed"), self.spec, hypervisor="no-such-host")
            )
        except AimForbidden:
            return False
        except CapacityRefused:
            return True
        return False


ROWS: Final[dict[str, Callable[[Trial], Awaitable[bool]]]] = {
    "list, build and delete the project's servers": Trial.serve,
    "write a claim's mark on a server": Trial.mark,
    "read the quota": Trial.quota,
    "make and delete server groups": Trial.groups,
    "tell hypervisors apart (`hostId`)": Trial.tell_apart,
    "know a server's host by its name": Trial.name_host,
    "list the hosts": Trial.hosts,
    "read racks from aggregates": Trial.aggregates,
    "read racks from traits": Trial.traits,
    "hear that a host is dead": Trial.services,
    "see how much room each hypervisor has": Trial.room,
    "aim a build at a hypervisor": Trial.aim,
}


def told() -> dict[str, tuple[str, str]]:
    """The table as the docs have it: a row to what a member can do, and an admin."""
    text = DOCS.read_text(encoding="utf-8")
    table = text[text.index("| what | member | admin |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+) \| (yes|no) \| (yes|no) \|$", table, re.MULTILINE)
    return {what: (member, admin) for what, member, admin in rows}


@asynccontextmanager
async def trial(rights: Rights, name: str) -> AsyncIterator[Trial]:
    """A server with these credentials, and nothing left of it."""
    mark = InstallationId(f"rights-{uuid.uuid4().hex[:8]}")
    cloud = open_cloud(rights.clouds_yaml, name, installation=mark)
    template = Template.model_validate(rights.cloud.template())
    spec = await cloud.resolve(template, rights.cloud.zones)
    try:
        ident = await cloud.create(ServerRequest("rights", VmUid(str(uuid.uuid4())), spec))
        yield Trial(cloud, spec, await up(cloud, ident))
    finally:
        for left in (await cloud.list(None)).servers:
            await cloud.delete(left.id)
        async with asyncio.timeout(BUILT_WITHIN):
            while (await cloud.list(None)).servers:  # noqa: ASYNC110 - a cloud has no events
                await asyncio.sleep(0.2)
        await cloud.close()


async def up(cloud: NovaCloud, ident: ServerId) -> Server:
    """A server, once it runs."""
    async with asyncio.timeout(BUILT_WITHIN):
        while True:
            server = await cloud.get(ident)
            if server is not None and server.state is ServerState.ACTIVE and not server.busy:
                return server
            await asyncio.sleep(0.2)


async def tried(rights: Rights, name: str) -> dict[str, str]:
    async with trial(rights, name) as one:
        return {what: "yes" if await can(one) else "no" for what, can in ROWS.items()}


def test_the_table_of_rights_is_what_nova_does(rights: Rights) -> None:
    member = asyncio.run(tried(rights, rights.member))
    admin = asyncio.run(tried(rights, rights.admin))
    assert {what: (member[what], admin[what]) for what in ROWS} == told()


# -- pools and claims -----------------------------------------------------------------------------


def by_member(sandbox: Sandbox, rights: Rights, *, inventory: bool) -> str:
    """A full pool of four, built with a member's credentials.

    It asks for no zone: Nova moves a server that was asked for in a zone to no other, and racks may
    be zones.
    """
    sandbox.secret("member", rights.secret(inventory=inventory))
    ref = {"secretName": "member", "cloud": rights.member}
    spread = [{"domain": "rack", "minDomains": 2}] if inventory else []
    return sandbox.full_pool("data", 4, cloudRef=ref, availabilityZones=[], spread=spread)


def test_members_tell_hypervisors_apart_and_are_told_why_there_are_no_racks(
    sandbox: Sandbox, rights: Rights
) -> None:
    pool = by_member(sandbox, rights, inventory=False)
    assert sandbox.condition(pool, "RacksKnown")["reason"] == "RacksUnknown"
    assert [d["rack"] for d in sandbox.status(pool)["domains"]] == [""]
    refused = sandbox.refused("racked", {pool: 2}, mode="RackAware")
    assert refused["reason"] == "RacksUnknown"
    vms = sandbox.bound("apart", {pool: 2}, mode="HypervisorAware")
    assert len({vm["hypervisor"] for vm in vms}) == 2


def place(sandbox: Sandbox, claim: str, number: int = 0) -> tuple[str, str]:
    vm = sandbox.get(Kind.VM_CLAIM, claim)["status"]["allocation"]["vms"][number]
    return vm["rack"], vm["hypervisor"]


def claimed(sandbox: Sandbox, pool: str) -> dict[str, int]:
    domains = sandbox.status(pool)["domains"]
    return {d["rack"]: d["claimed"] for d in domains if d["claimed"]}


def moves(sandbox: Sandbox, pool: str, claim: str, to: tuple[str, str]) -> None:
    """Wait until VM, claim and pool say where the first VM of a claim of two is now."""
    sandbox.until(lambda: place(sandbox, claim) == to, "the claim's new place", 90)
    name = sandbox.get(Kind.VM_CLAIM, claim)["status"]["allocation"]["vms"][0]["name"]
    vm = sandbox.get(Kind.WARM_VM, name)
    assert (vm["status"]["rack"], vm["status"]["hypervisor"]) == to
    assert vm["metadata"]["labels"]["warmpool.dev/rack"] == to[0]
    racks = [place(sandbox, claim, n)[0] for n in (0, 1)]
    density = {rack: racks.count(rack) for rack in racks}
    sandbox.until(lambda: claimed(sandbox, pool) == density, "the pool's new density")


def test_a_live_migration_is_seen_by_vm_pool_and_claim(sandbox: Sandbox, rights: Rights) -> None:
    """Built by a member, and seen by an inventory of its own."""
    pool = by_member(sandbox, rights, inventory=True)
    sandbox.until(lambda: sandbox.condition(pool, "RacksKnown")["status"] == "True", "racks")
    vms = sandbox.bound("two", {pool: 2}, mode="RackAware", onUnsatisfied="Wait")
    sandbox.wait("vmclaim/two", "condition=Healthy")
    there = place(sandbox, "two", 1)
    rights.migrate(vms[0]["serverID"], there[1])
    moves(sandbox, pool, "two", there)
    sandbox.wait("vmclaim/two", "condition=Healthy=False")
    [told] = [
        c
        for c in sandbox.get(Kind.VM_CLAIM, "two")["status"]["conditions"]
        if c["type"] == "Healthy"
    ]
    assert told["reason"] == "ConstraintsUnsatisfied"
    assert f"rack {there[0]} has 2 of them" in told["message"]


@pytest.mark.openstack
def test_an_evacuation_is_seen_by_vm_pool_and_claim(
    sandbox: Sandbox, rights: Rights, cloud: CloudUnderTest
) -> None:
    pool = by_member(sandbox, rights, inventory=True)
    sandbox.until(lambda: sandbox.condition(pool, "RacksKnown")["status"] == "True", "racks")
    vms = sandbox.bound("two", {pool: 2}, mode="RackAware", onUnsatisfied="Wait")
    there = place(sandbox, "two", 1)
    cloud.kill_compute(vms[0]["hypervisor"])
    rights.evacuate(vms[0]["serverID"], there[1])
    moves(sandbox, pool, "two", there)
    sandbox.wait("vmclaim/two", "condition=Healthy=False")
    cloud.revive_computes()
