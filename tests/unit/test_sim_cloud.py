"""The simulator as the cloud port, in process: what the faults of its API become there."""

import asyncio

import pytest

from warmpool.api.names import TAG_OWNER, Reason
from warmpool.domain.cloud import BuildSpec, NetworkChoice, ServerRequest, ServerState
from warmpool.domain.errors import (
    CapacityRefused,
    CloudError,
    CloudUnavailable,
    CredentialsRefused,
    OutcomeUnknown,
)
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.sim.clock import LoopClock
from warmpool.sim.cloud import SimCloud
from warmpool.sim.faults import ApiFault, OutageFault
from warmpool.sim.nova import Nova
from warmpool.sim.scenarios import demo
from warmpool.sim.spec import QuotaSpec, Timings

OWNER = VmUid("11111111-1111-4111-8111-111111111111")
HERE = InstallationId("here")

pytestmark = pytest.mark.looptime


def a_nova() -> Nova:
    """Builds take two seconds of the event loop's time."""
    return Nova(demo().model_copy(update={"timings": Timings(build=(2, 2))}), clock=LoopClock())


def a_request(nova: Nova) -> ServerRequest:
    flavors = {flavor.name: ident for ident, flavor in nova.world.flavors.items()}
    spec = BuildSpec(flavors["m1.micro"], next(iter(nova.world.images)), NetworkChoice.AUTO)
    return ServerRequest("vm", OWNER, spec)


async def test_a_server_becomes_active_as_the_loops_time_passes() -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE)
    server = await cloud.create(a_request(nova))
    seen = await cloud.get(server)
    assert seen is not None
    assert (seen.state, seen.status, seen.owner) == (
        ServerState.BUILDING,
        "BUILD/scheduling",
        OWNER,
    )
    await asyncio.sleep(3)
    seen = await cloud.get(server)
    assert seen is not None
    assert (seen.state, seen.busy, seen.host) == (ServerState.ACTIVE, False, "r1-h2")
    assert nova.answers(seen.addresses[0])


async def test_concurrent_posts_pass_the_quota_check_together() -> None:
    nova = a_nova()
    nova.project().quota = QuotaSpec(instances=2, cores=-1, ram_mb=-1)
    cloud = SimCloud(nova, installation=HERE)
    request = a_request(nova)
    await asyncio.gather(*(cloud.create(request) for _ in range(4)))
    await asyncio.sleep(5)
    states = [server.state for server in (await cloud.list(None)).servers]
    assert states.count(ServerState.ERROR) == 2
    with pytest.raises(CapacityRefused, match="already used 4 of 2 instances") as refused:
        await cloud.create(request)
    assert refused.value.reason is Reason.QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("fault", "creating", "listing"),
    [
        ({"effect": "status", "status": 500}, OutcomeUnknown, CloudUnavailable),
        ({"effect": "status", "status": 503}, OutcomeUnknown, CloudUnavailable),
        ({"effect": "status", "status": 429}, CapacityRefused, CloudUnavailable),
        ({"effect": "status", "status": 401}, CredentialsRefused, CredentialsRefused),
        ({"effect": "drop"}, OutcomeUnknown, CloudUnavailable),
        ({"effect": "lost"}, OutcomeUnknown, CloudUnavailable),
        ({"effect": "slow", "delay": 100}, OutcomeUnknown, CloudUnavailable),
    ],
    ids=["500", "503", "429", "401", "drop", "lost", "slow"],
)
async def test_faults_of_the_api_are_the_ports_errors(
    fault: dict[str, object], creating: type[CloudError], listing: type[CloudError]
) -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE)
    nova.arm(ApiFault.model_validate(fault))
    with pytest.raises(creating):
        await cloud.create(a_request(nova))
    with pytest.raises(listing):
        await cloud.list(None)


@pytest.mark.parametrize(("effect", "there"), [("drop", 0), ("lost", 1)])
async def test_after_a_lost_answer_the_server_is_found_by_its_owner(
    effect: str, there: int
) -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE)
    nova.arm(ApiFault.model_validate({"effect": effect, "method": "POST", "count": 1}))
    with pytest.raises(OutcomeUnknown):
        await cloud.create(a_request(nova))
    assert len(await cloud.find(OWNER)) == there


async def test_a_post_given_up_becomes_a_server_later() -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE, timeout=10)
    nova.arm(ApiFault(effect="slow", delay=(30, 30), method="POST", count=1))
    with pytest.raises(OutcomeUnknown):
        await cloud.create(a_request(nova))
    assert asyncio.get_running_loop().time() == pytest.approx(10)
    assert await cloud.find(OWNER) == ()
    await asyncio.sleep(25)
    assert len(await cloud.find(OWNER)) == 1


async def test_refused_credentials_are_told_by_every_call() -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE)
    nova.arm(OutageFault(effect="credentials", seconds=60))
    for call in (cloud.get(ServerId("x")), cloud.list(None), cloud.topology()):
        with pytest.raises(CredentialsRefused):
            await call
    await asyncio.sleep(61)
    assert (await cloud.topology()).racks["r1-h1"] == "r1"


async def test_members_see_neither_hosts_nor_racks() -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE, admin=False)
    server = await cloud.create(a_request(nova))
    await asyncio.sleep(3)
    seen = await cloud.get(server)
    assert seen is not None
    assert (seen.host, seen.hypervisor, len(seen.host_id)) == (None, None, 56)
    topology = await cloud.topology()
    assert (topology.visible, topology.racks) == (False, {})
    assert "os-aggregates" in topology.why_not


async def test_an_incremental_listing_names_the_deleted_and_their_owner() -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE)
    server = await cloud.create(a_request(nova))
    await asyncio.sleep(3)
    begin = (await cloud.list(None)).taken_at
    await cloud.delete(server)
    await asyncio.sleep(1)
    listing = await cloud.list(begin)
    assert [(s.id, s.state, s.owner) for s in listing.servers] == [
        (server, ServerState.DELETED, OWNER)
    ]
    assert not listing.complete


async def test_servers_of_others_are_in_no_listing() -> None:
    nova = a_nova()
    await SimCloud(nova, installation=InstallationId("there")).create(a_request(nova))
    cloud = SimCloud(nova, installation=HERE)
    assert (await cloud.list(None)).servers == ()
    assert (await cloud.list(nova.world.time.moment())).servers == ()


async def test_calls_are_counted_by_route() -> None:
    nova = a_nova()
    cloud = SimCloud(nova, installation=HERE)
    server = await cloud.create(a_request(nova))
    await cloud.get(server)
    await cloud.find(OWNER)
    assert nova.world.servers[server].tags[1] == f"{TAG_OWNER}{OWNER}"
    assert nova.traffic.calls == {
        "POST /compute/v2.1/servers": 1,
        "GET /compute/v2.1/servers/{id}": 1,
        "GET /compute/v2.1/servers/detail": 1,
    }
