"""What every `ports.cloud.Cloud` owes its callers, held against each implementation.

"simulator" is the simulated Nova in process, "sdk-over-simulator" the real adapter over its HTTP
face, "real" the real adapter over a cloud of your own: WARMPOOL_TEST_CLOUD names its entry in the
clouds.yaml at OS_CLIENT_CONFIG_FILE, WARMPOOL_TEST_CLOUD_ADMIN one with the admin role in the same
project, WARMPOOL_TEST_FLAVOR and WARMPOOL_TEST_IMAGE what to build there, without a network. The
servers built there are deleted again; others are not touched.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.pool import Network, Template
from warmpool.domain.catalogue import Entry, ImageQuery
from warmpool.domain.cloud import (
    BuildSpec,
    FaultClass,
    NetworkChoice,
    Server,
    ServerRequest,
    ServerState,
)
from warmpool.domain.errors import (
    AimForbidden,
    CapacityRefused,
    DependencyMissing,
    RequestRejected,
    ZoneClosed,
)
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.effects.nova import open_cloud
from warmpool.planning.racks import host_id
from warmpool.ports.cloud import Cloud
from warmpool.sim.clock import PushedClock
from warmpool.sim.cloud import SimCloud
from warmpool.sim.http import running as running_over_http
from warmpool.sim.nova import Nova
from warmpool.sim.scenarios import tiny
from warmpool.sim.spec import GuestSpec

PATIENCE = 60.0
"""Seconds in which a server has to come to be, or to go: a small real cloud needs a few."""

USER_DATA = "IyEvYmluL3NoCmVjaG8gc2VjcmV0Cg=="
OVERLAP = timedelta(seconds=5)


class Ground(Protocol):
    """Where the suite runs: something that opens clouds of one project."""

    flavor: str
    too_big: str
    """A flavor that fits on no host."""
    image: str
    zone: str
    instances: int | None
    """Quota of the project. None: not known."""
    has_rack_traits: bool
    """Its hypervisors have traits that name their racks."""
    has_tagged_images: bool
    """Of its images, some have tags and properties."""

    def open(self, installation: InstallationId, *, admin: bool) -> Cloud:
        """A new connection."""
        ...


class InProcess:
    """The simulator as the port."""

    flavor, too_big, image, zone = "m1.micro", "m1.huge", "debian-13", "az1"
    instances: int | None = 10
    has_rack_traits = has_tagged_images = True

    def __init__(self) -> None:
        self.nova = Nova(tiny(), clock=PushedClock())

    def open(self, installation: InstallationId, *, admin: bool) -> Cloud:
        return SimCloud(self.nova, installation=installation, admin=admin)


class OverHttp:
    """The simulator over HTTP, and the real adapter before it."""

    flavor, too_big, image, zone = "m1.micro", "m1.huge", "debian-13", "az1"
    instances: int | None = 10
    has_rack_traits = has_tagged_images = True

    def __init__(self, clouds_yaml: str) -> None:
        self.text = clouds_yaml

    def open(self, installation: InstallationId, *, admin: bool) -> Cloud:
        return open_cloud(self.text, "sim" if admin else "sim-member", installation=installation)


class Real:
    """A cloud of the tester's own."""

    zone = "az1"
    too_big = "m1.huge"
    instances: int | None = None
    has_rack_traits = has_tagged_images = False

    def __init__(self, environment: "os._Environ[str]") -> None:
        self.member = environment["WARMPOOL_TEST_CLOUD"]
        self.admin = environment.get("WARMPOOL_TEST_CLOUD_ADMIN", self.member)
        self.flavor = environment.get("WARMPOOL_TEST_FLAVOR", "m1.micro")
        self.image = environment.get("WARMPOOL_TEST_IMAGE", "tiny")
        self.text = Path(environment["OS_CLIENT_CONFIG_FILE"]).read_text(encoding="utf-8")

    def open(self, installation: InstallationId, *, admin: bool) -> Cloud:
        return open_cloud(
            self.text, self.admin if admin else self.member, installation=installation
        )


@asynccontextmanager
async def in_process() -> AsyncIterator[Ground]:
    yield InProcess()


@asynccontextmanager
async def over_http() -> AsyncIterator[Ground]:
    quiet = tiny().model_copy(update={"guests": GuestSpec(listen=False)})
    async with running_over_http(quiet) as served:
        yield OverHttp(served.clouds_yaml())


@asynccontextmanager
async def real() -> AsyncIterator[Ground]:
    yield Real(os.environ)


GROUNDS = {"simulator": in_process, "sdk-over-simulator": over_http}
if "WARMPOOL_TEST_CLOUD" in os.environ:
    GROUNDS["real"] = real


@pytest.fixture(params=GROUNDS)
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    async with GROUNDS[request.param]() as made:
        yield made


Opened = Callable[..., Cloud]


@pytest.fixture
async def opened(ground: Ground) -> AsyncIterator[Opened]:
    """Opens clouds, of an installation of the test's own, and takes away what they built."""
    async with AsyncExitStack() as stack:

        def open_it(name: str = "", *, admin: bool = False) -> Cloud:
            cloud = ground.open(InstallationId(name or f"test-{mark}"), admin=admin)
            stack.push_async_callback(cloud.close)
            stack.push_async_callback(take_away_all, cloud)
            return cloud

        mark = uuid.uuid4().hex[:12]
        yield open_it


async def take_away_all(cloud: Cloud) -> None:
    for server in (await cloud.list(None)).servers:
        await cloud.delete(server.id)
    await until(cloud.list, None, holds=lambda listing: not listing.servers)


async def until(
    ask: Callable[..., Awaitable[Any]], *about: object, holds: Callable[[Any], bool]
) -> Any:
    """The first answer of which this holds."""
    last = None
    try:
        async with asyncio.timeout(PATIENCE):
            while not holds(last := await ask(*about)):  # noqa: ASYNC110 - a cloud has no events
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"still so after {PATIENCE:g} s: {last!r}")
    return last


def steady(server: Server | None) -> bool:
    return server is not None and server.state is ServerState.ACTIVE and not server.busy


def a_template(ground: Ground, **over: Any) -> Template:
    return Template(**{"flavor": ground.flavor, "image": ground.image, "networks": [], **over})


def an_owner() -> VmUid:
    return VmUid(str(uuid.uuid4()))


@pytest.fixture
def cloud(opened: Opened) -> Cloud:
    return opened()


@pytest.fixture
async def spec(cloud: Cloud, ground: Ground) -> BuildSpec:
    return await cloud.resolve(a_template(ground), (ground.zone,))


@pytest.fixture
async def running(cloud: Cloud, spec: BuildSpec) -> Server:
    """A server that is up."""
    ident = await cloud.create(ServerRequest("contract", an_owner(), spec))
    server = await until(cloud.get, ident, holds=steady)
    assert isinstance(server, Server)
    return server


NOWHERE = ServerId("00000000-dead-4bad-8bad-000000000000")


async def test_a_region_has_a_name(cloud: Cloud) -> None:
    assert cloud.region


async def test_names_resolve_to_ids_and_ids_to_themselves(cloud: Cloud, ground: Ground) -> None:
    by_name = await cloud.resolve(a_template(ground, metadata={"b": "2", "a": "1"}), ())
    template = a_template(ground, flavor=by_name.flavor_id, image=by_name.image_id)
    by_id = await cloud.resolve(template, ())

    assert by_name.flavor_id != ground.flavor
    assert by_name.metadata == (("a", "1"), ("b", "2"))
    assert (by_id.flavor_id, by_id.image_id) == (by_name.flavor_id, by_name.image_id)


async def test_an_empty_list_of_networks_is_none_and_no_list_is_novas_choice(
    cloud: Cloud, ground: Ground
) -> None:
    none = await cloud.resolve(a_template(ground, networks=[]), ())
    auto = await cloud.resolve(a_template(ground, networks=None), ())

    assert (none.networks, auto.networks) == (NetworkChoice.NONE, NetworkChoice.AUTO)


async def test_user_data_is_left_to_the_caller(cloud: Cloud, ground: Ground) -> None:
    assert (await cloud.resolve(a_template(ground, user_data=USER_DATA), ())).user_data is None


@pytest.mark.parametrize(
    ("over", "field", "reason"),
    [
        ({"flavor": "nonesuch"}, "spec.template.flavor", Reason.FLAVOR_NOT_FOUND),
        ({"image": "nonesuch"}, "spec.template.image", Reason.IMAGE_NOT_FOUND),
        ({"key_pair": "nonesuch"}, "spec.template.keyPair", Reason.KEY_PAIR_NOT_FOUND),
        (
            {"networks": [Network(network="nonesuch")]},
            "spec.template.networks[0].network",
            Reason.NETWORK_NOT_FOUND,
        ),
        ({}, "spec.availabilityZones[1]", Reason.ZONE_NOT_FOUND),
    ],
)
async def test_a_name_that_means_nothing_is_told_by_its_field(
    cloud: Cloud, ground: Ground, over: dict[str, Any], field: str, reason: Reason
) -> None:
    with pytest.raises(DependencyMissing, match="nonesuch") as caught:
        await cloud.resolve(a_template(ground, **over), (ground.zone, "nonesuch"))

    assert (caught.value.field, caught.value.reason) == (field, reason)


async def test_a_server_is_everywhere_at_once_and_its_owner_s(
    cloud: Cloud, spec: BuildSpec
) -> None:
    owner = an_owner()

    ident = await cloud.create(ServerRequest("contract", owner, spec))

    found = await cloud.find(owner)
    listed = (await cloud.list(None)).servers
    server = await cloud.get(ident)
    assert [s.id for s in found] == [s.id for s in listed] == [ident]
    assert server is not None
    assert server.owner == found[0].owner == listed[0].owner == owner
    assert server.state in {ServerState.BUILDING, ServerState.ACTIVE}


async def test_a_server_comes_up_placed_and_dated(cloud: Cloud, running: Server) -> None:
    assert running.name == "contract"
    assert running.zone
    assert running.host_id
    assert running.fault is None
    assert running.created is not None
    assert running.created.utcoffset() == timedelta(0)
    assert (await cloud.list(None)).servers == (running,)


async def test_a_server_stands_in_the_zone_that_was_asked_for(
    cloud: Cloud, spec: BuildSpec, ground: Ground
) -> None:
    ident = await cloud.create(ServerRequest("contract", an_owner(), spec, zone=ground.zone))

    assert (await until(cloud.get, ident, holds=steady)).zone == ground.zone


async def test_names_need_not_be_unique(cloud: Cloud, spec: BuildSpec) -> None:
    owners = [an_owner() for _ in range(4)]

    idents = await asyncio.gather(
        *(cloud.create(ServerRequest("twin", owner, spec)) for owner in owners)
    )

    assert {s.id: s.owner for s in (await cloud.list(None)).servers} == dict(
        zip(idents, owners, strict=True)
    )


async def test_an_installation_sees_no_servers_of_another(
    opened: Opened, cloud: Cloud, running: Server
) -> None:
    other = opened(f"other-{uuid.uuid4().hex[:12]}")
    assert running.owner is not None

    assert (await other.list(None)).servers == ()
    assert await other.find(running.owner) == ()
    seen = await other.get(running.id)
    assert seen is not None
    assert seen.owner is None
    assert await cloud.find(running.owner) == (running,)


async def test_nobody_s_server_is_found_for_an_owner_without_one(
    cloud: Cloud, running: Server
) -> None:
    assert running.owner is not None
    assert await cloud.find(an_owner()) == ()


async def test_a_deleted_server_is_gone_in_the_end(cloud: Cloud, running: Server) -> None:
    await cloud.delete(running.id)
    await cloud.delete(running.id)
    await until(cloud.get, running.id, holds=lambda server: server is None)
    await cloud.delete(running.id)

    listing = await cloud.list(None)
    assert listing.complete
    assert listing.servers == ()


async def test_a_server_may_be_deleted_while_it_is_built(cloud: Cloud, spec: BuildSpec) -> None:
    ident = await cloud.create(ServerRequest("contract", an_owner(), spec))

    await cloud.delete(ident)

    await until(cloud.get, ident, holds=lambda server: server is None)


async def test_what_never_was_is_none_and_its_deletion_quiet(cloud: Cloud) -> None:
    await cloud.delete(NOWHERE)
    await cloud.delete(ServerId("never-was"))

    assert await cloud.get(NOWHERE) is None


async def test_an_incremental_listing_names_the_new(cloud: Cloud, spec: BuildSpec) -> None:
    before = await cloud.list(None)
    ident = await cloud.create(ServerRequest("contract", an_owner(), spec))

    changes = await cloud.list(before.taken_at - OVERLAP)

    assert not changes.complete
    assert [s.id for s in changes.servers] == [ident]
    assert changes.taken_at.astimezone(UTC) >= before.taken_at


async def test_an_incremental_listing_names_the_deleted(cloud: Cloud, running: Server) -> None:
    before = await cloud.list(None)
    await cloud.delete(running.id)
    await until(cloud.get, running.id, holds=lambda server: server is None)

    changes = await cloud.list(before.taken_at - OVERLAP)

    assert [(s.id, s.state, s.owner) for s in changes.servers] == [
        (running.id, ServerState.DELETED, running.owner)
    ]


async def test_an_incremental_listing_names_the_deleted_that_a_complete_one_lacked(
    cloud: Cloud, running: Server
) -> None:
    """They go on side by side: the complete one may end first, and show them gone first."""
    before = await cloud.list(None)
    await cloud.delete(running.id)
    await until(cloud.get, running.id, holds=lambda server: server is None)
    assert (await cloud.list(None)).servers == ()

    changes = await cloud.list(before.taken_at - OVERLAP)

    assert [(s.id, s.owner) for s in changes.servers] == [(running.id, running.owner)]


async def test_an_incremental_listing_names_no_strangers(
    opened: Opened, cloud: Cloud, running: Server
) -> None:
    other = opened(f"other-{uuid.uuid4().hex[:12]}")
    before = await other.list(None)
    await cloud.delete(running.id)
    await until(cloud.get, running.id, holds=lambda server: server is None)

    assert (await other.list(before.taken_at - OVERLAP)).servers == ()


async def test_what_fits_nowhere_is_a_matter_of_capacity_at_once_or_later(
    cloud: Cloud, ground: Ground
) -> None:
    """Such a server stays, without a host, until somebody deletes it."""
    spec = await cloud.resolve(a_template(ground, flavor=ground.too_big), ())
    try:
        ident = await cloud.create(ServerRequest("contract", an_owner(), spec))
    except CapacityRefused:
        return

    server = await until(cloud.get, ident, holds=lambda s: s and s.state is ServerState.ERROR)

    assert server.fault is not None
    assert (server.fault.kind, server.fault.reason) == (FaultClass.CAPACITY, Reason.NO_VALID_HOST)
    assert server.host is None


async def test_a_full_quota_is_told_with_its_numbers(
    cloud: Cloud, spec: BuildSpec, ground: Ground
) -> None:
    if ground.instances is None:
        pytest.skip("the quota of a real cloud is not known")
    for _ in range(ground.instances):
        await cloud.create(ServerRequest("contract", an_owner(), spec))

    with pytest.raises(CapacityRefused, match="already used 10 of 10 instances") as caught:
        await cloud.create(ServerRequest("contract", an_owner(), spec))

    assert caught.value.reason is Reason.QUOTA_EXCEEDED
    assert len((await cloud.list(None)).servers) == ground.instances


@pytest.mark.parametrize(
    "wrong",
    [
        {"flavor_id": "nonesuch"},
        {"image_id": str(NOWHERE)},
        {"key_pair": "nonesuch"},
        {"user_data": USER_DATA * 3000},
        {"metadata": (("a", "x" * 256),)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
async def test_a_request_that_nova_calls_wrong_builds_nothing_and_tells_no_user_data(
    cloud: Cloud, spec: BuildSpec, wrong: dict[str, Any]
) -> None:
    wish = replace(spec, **{"user_data": USER_DATA, **wrong})

    with pytest.raises(RequestRejected) as caught:
        await cloud.create(ServerRequest("contract", an_owner(), wish))

    assert USER_DATA not in str(caught.value)
    assert len(str(caught.value)) <= 1024
    assert (await cloud.list(None)).servers == ()


async def test_a_rebuilt_server_is_the_same_one_again(
    cloud: Cloud, running: Server, spec: BuildSpec
) -> None:
    await cloud.rebuild(running.id, spec.image_id)

    again = await until(cloud.get, running.id, holds=steady)
    assert (again.id, again.owner, again.host_id) == (running.id, running.owner, running.host_id)


async def test_metadata_may_be_written_on_a_server_that_runs(cloud: Cloud, running: Server) -> None:
    await cloud.set_metadata(running.id, {"claim": "search/logs-7"})

    assert steady(await cloud.get(running.id))


async def test_too_long_metadata_is_the_requests_fault(cloud: Cloud, running: Server) -> None:
    with pytest.raises(RequestRejected):
        await cloud.set_metadata(running.id, {"a": "x" * 256})


async def test_what_never_was_can_be_neither_rebuilt_nor_written_on(
    cloud: Cloud, spec: BuildSpec
) -> None:
    with pytest.raises(RequestRejected):
        await cloud.rebuild(NOWHERE, spec.image_id)
    with pytest.raises(RequestRejected):
        await cloud.set_metadata(NOWHERE, {"a": "b"})


async def test_an_admin_sees_where_a_server_stands(opened: Opened, running: Server) -> None:
    admin = opened(admin=True)

    server = await admin.get(running.id)
    topology = await admin.topology()

    assert server is not None
    assert server.host is not None
    assert server.hypervisor is not None
    assert topology.visible
    assert topology.racks[server.host]


NEWEST = ImageQuery((("os_distro", "debian"),), ("stable",))


def an_entry(ground: Ground, **fields: Any) -> Entry:
    return replace(Entry("g2", ground.flavor, ground.image), **fields)


async def test_an_entry_of_the_catalogue_stands_for_flavor_and_image(
    ground: Ground, cloud: Cloud, spec: BuildSpec
) -> None:
    entry = an_entry(ground, metadata=(("a", "entry"), ("b", "entry")))
    template = Template(networks=[], metadata={"b": "template"})

    found = await cloud.resolve(template, (), entry)

    assert (found.flavor_id, found.image_id) == (spec.flavor_id, spec.image_id)
    assert found.metadata == (("a", "entry"), ("b", "template"))


async def test_an_entry_may_mean_the_newest_image_of_some(ground: Ground, cloud: Cloud) -> None:
    if not ground.has_tagged_images:
        pytest.skip("this cloud has no such images")
    template = Template(networks=[])
    newest = await cloud.resolve(template, (), an_entry(ground, image=NEWEST))
    lts = ImageQuery(tags=("lts", "stable"))
    older = await cloud.resolve(template, (), an_entry(ground, image=lts))
    named = await cloud.resolve(template, (), an_entry(ground, image="debian-12"))

    assert newest.image_id == (await cloud.resolve(template, (), an_entry(ground))).image_id
    assert older.image_id == named.image_id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"flavor": "none such"}, Reason.FLAVOR_NOT_FOUND),
        ({"image": "none such"}, Reason.IMAGE_NOT_FOUND),
        ({"image": ImageQuery((("os_distro", "plan9"),))}, Reason.IMAGE_NOT_FOUND),
        ({"image": ImageQuery(NEWEST.properties, ("none such",))}, Reason.IMAGE_NOT_FOUND),
    ],
)
async def test_what_an_entry_names_and_is_not_there_is_the_entry_s_fault(
    ground: Ground, cloud: Cloud, fields: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(DependencyMissing) as missing:
        await cloud.resolve(Template(networks=[]), (), an_entry(ground, **fields))
    assert missing.value.reason is reason
    assert missing.value.field == "spec.template.flavorRef.name"


async def test_an_admin_sees_all_hosts_by_both_their_names(opened: Opened, running: Server) -> None:
    admin = opened(admin=True)

    server = await admin.get(running.id)
    found = await admin.hosts()

    assert server is not None
    assert found.visible
    assert (server.host, server.hypervisor) in {(h.name, h.hypervisor) for h in found.hosts}


async def test_a_member_is_told_why_hosts_are_hidden(cloud: Cloud) -> None:
    found = await cloud.hosts()

    assert not found.visible
    assert found.hosts == ()
    assert "os-hypervisors" in found.why_not


async def test_a_host_s_name_is_known_by_the_hash_that_a_member_sees(
    opened: Opened, running: Server
) -> None:
    admin = opened(admin=True)

    project = (await admin.identity()).project_id
    hosts = {host_id(project, host.name): host.name for host in (await admin.hosts()).hosts}
    server = await admin.get(running.id)

    assert server is not None
    assert hosts[running.host_id] == server.host


async def test_a_token_says_whose_it_is(cloud: Cloud, opened: Opened) -> None:
    member, admin = await cloud.identity(), await opened(admin=True).identity()

    assert member.project_id == admin.project_id
    assert member.project
    assert "member" in member.roles
    assert "admin" not in member.roles
    assert "admin" in admin.roles


async def test_traits_of_hypervisors_may_name_racks(ground: Ground, opened: Opened) -> None:
    if not ground.has_rack_traits:
        pytest.skip("this cloud names no racks in traits")
    admin = opened(admin=True)

    racks = (await admin.traits("CUSTOM_RACK_")).racks
    hosts = (await admin.hosts()).hosts

    assert {host.hypervisor for host in hosts} == racks.keys()
    assert set(racks.values()) == {"R1", "R2"}
    assert (await admin.traits("CUSTOM_OTHER_")).racks == {}


async def test_a_member_is_told_why_traits_are_hidden(cloud: Cloud) -> None:
    seen = await cloud.traits("CUSTOM_RACK_")

    assert not seen.visible
    assert seen.why_not


async def test_aggregates_may_name_racks_by_another_key(opened: Opened, running: Server) -> None:
    assert running
    assert (await opened(admin=True).topology("cabinet")).racks == {}


async def test_a_member_is_told_why_racks_are_hidden(cloud: Cloud, running: Server) -> None:
    topology = await cloud.topology()

    assert running.host is None
    assert not topology.visible
    assert topology.racks == {}
    assert "os-aggregates" in topology.why_not


async def test_an_admin_s_build_stands_on_the_hypervisor_that_it_was_aimed_at(
    opened: Opened, spec: BuildSpec
) -> None:
    admin = opened(admin=True)
    inventory = await admin.inventory(spec)
    chosen = max(inventory.hosts, key=lambda host: host.hypervisor)
    request = ServerRequest("contract", an_owner(), spec, hypervisor=chosen.hypervisor)

    server = await until(admin.get, await admin.create(request), holds=steady)

    assert inventory.visible
    assert (server.hypervisor, server.host, server.zone) == (
        chosen.hypervisor,
        chosen.host,
        chosen.zone,
    )


async def test_the_room_of_a_hypervisor_shrinks_by_what_is_built_on_it(
    opened: Opened, spec: BuildSpec
) -> None:
    admin = opened(admin=True)
    before = {host.hypervisor: host.room for host in (await admin.inventory(spec)).hosts}
    chosen = max(before)
    request = ServerRequest("contract", an_owner(), spec, hypervisor=chosen)

    await until(admin.get, await admin.create(request), holds=steady)

    after = {host.hypervisor: host.room for host in (await admin.inventory(spec)).hosts}
    assert before[chosen] is not None
    assert after[chosen] == before[chosen] - 1


async def test_what_fits_nowhere_has_no_room_anywhere(opened: Opened, ground: Ground) -> None:
    admin = opened(admin=True)
    spec = await admin.resolve(a_template(ground, flavor=ground.too_big), ())

    hosts = (await admin.inventory(spec)).hosts

    assert hosts
    assert {host.room for host in hosts} == {0}


async def test_a_hypervisor_that_is_not_there_is_a_matter_of_capacity(
    opened: Opened, spec: BuildSpec
) -> None:
    request = ServerRequest("contract", an_owner(), spec, hypervisor="nonesuch")

    with pytest.raises(CapacityRefused, match="nonesuch") as caught:
        await opened(admin=True).create(request)

    assert caught.value.reason is Reason.NO_VALID_HOST


async def test_a_zone_where_nothing_is_to_be_had_is_closed(cloud: Cloud, spec: BuildSpec) -> None:
    """Nova says the same of a zone that it does not know, and of one whose hosts are disabled."""
    with pytest.raises(ZoneClosed, match="zone is not available") as caught:
        await cloud.create(ServerRequest("contract", an_owner(), spec, zone="nonesuch"))

    assert caught.value.reason is Reason.NO_VALID_HOST


async def test_a_member_may_neither_see_hypervisors_nor_aim_at_one(
    opened: Opened, cloud: Cloud, spec: BuildSpec
) -> None:
    inventory = await cloud.inventory(spec)
    there = (await opened(admin=True).inventory(spec)).hosts[0].hypervisor
    request = ServerRequest("contract", an_owner(), spec, hypervisor=there)

    with pytest.raises(AimForbidden):
        await cloud.create(request)

    assert (inventory.visible, inventory.hosts) == (False, ())
    assert "os-hypervisors" in inventory.why_not
    assert (await cloud.list(None)).servers == ()


async def test_a_quota_counts_what_is_there_whoever_built_it(
    opened: Opened, cloud: Cloud, spec: BuildSpec
) -> None:
    other = opened(f"other-{uuid.uuid4().hex[:12]}")
    before = await cloud.quota()

    ident = await other.create(ServerRequest("contract", an_owner(), spec))
    await until(other.get, ident, holds=steady)  # Nova counts it once it is scheduled

    after = await cloud.quota()
    assert after.instances == replace(before.instances, used=before.instances.used + 1)
    assert after.cores.used == before.cores.used + spec.size.vcpus
    assert after.ram_mb.used == before.ram_mb.used + spec.size.ram_mb


async def test_the_size_of_a_flavor_is_told(cloud: Cloud, ground: Ground) -> None:
    size = (await cloud.resolve(a_template(ground), ())).size

    assert size.vcpus > 0
    assert size.ram_mb > 0


async def test_no_host_is_dead_in_a_cloud_that_is_whole(opened: Opened) -> None:
    """A member may not ask, and hears of none."""
    assert await opened(admin=True).down_hosts() == frozenset()
    assert await opened().down_hosts() == frozenset()


async def test_a_server_that_runs_has_a_console(cloud: Cloud, running: Server) -> None:
    text = await cloud.console(running.id, 2)
    assert text.strip()
    assert len(text.strip().splitlines()) <= 2 or "FAKE CONSOLE" in text


async def test_what_never_was_has_an_empty_console(cloud: Cloud) -> None:
    assert await cloud.console(NOWHERE, 10) == ""
    assert await cloud.console(ServerId("never-was"), 10) == ""


@pytest.fixture
async def group(cloud: Cloud) -> AsyncIterator[str]:
    """A server group of the test's own."""
    ident = await cloud.create_group(f"contract-{uuid.uuid4().hex[:12]}")
    yield ident
    await cloud.delete_group(ident)


async def test_a_server_group_is_found_by_its_name_with_its_members(
    cloud: Cloud, spec: BuildSpec
) -> None:
    name = f"contract-{uuid.uuid4().hex[:12]}"
    group = await cloud.create_group(name)
    try:
        assert [(g.id, g.members) for g in await cloud.groups() if g.name == name] == [(group, 0)]
        ident = await cloud.create(ServerRequest("member", an_owner(), replace(spec, group=group)))
        assert [g.members for g in await cloud.groups() if g.name == name] == [1]
        await until(cloud.get, ident, holds=steady)
    finally:
        await cloud.delete_group(group)
    assert name not in [g.name for g in await cloud.groups()]
    server = await cloud.get(ident)
    assert server is not None, "a group takes none of its servers with it"


async def test_two_groups_may_have_one_name(cloud: Cloud, group: str) -> None:
    [name] = [g.name for g in await cloud.groups() if g.id == group]
    twin = await cloud.create_group(name)
    try:
        assert {g.id for g in await cloud.groups() if g.name == name} == {group, twin}
    finally:
        await cloud.delete_group(twin)


async def test_deleting_a_group_that_never_was_is_quiet(cloud: Cloud) -> None:
    await cloud.delete_group(NOWHERE)


async def test_a_server_in_a_group_that_is_not_there_is_refused(
    cloud: Cloud, spec: BuildSpec
) -> None:
    nowhere = ServerRequest("contract", an_owner(), replace(spec, group=NOWHERE))
    with pytest.raises(RequestRejected):
        await cloud.create(nowhere)


async def test_members_of_a_group_that_come_one_by_one_stand_on_hypervisors_of_their_own(
    cloud: Cloud, spec: BuildSpec, group: str
) -> None:
    hosts = []
    for _ in range(2):
        ident = await cloud.create(ServerRequest("one", an_owner(), replace(spec, group=group)))
        hosts.append((await until(cloud.get, ident, holds=steady)).host_id)
    assert len(set(hosts)) == 2


async def test_the_quota_tells_how_many_members_a_group_may_have(cloud: Cloud) -> None:
    most = (await cloud.quota()).group_members
    assert most is None or most > 0
