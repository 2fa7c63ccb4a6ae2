"""The real openstacksdk against the simulator over HTTP: roles, versions, texts, faults, guests."""

import asyncio
import base64
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import openstack
import pytest
import requests
import yaml
from keystoneauth1 import exceptions as login
from openstack.config.loader import OpenStackConfig
from openstack.connection import Connection

from warmpool.sim.http import Running, running
from warmpool.sim.scenarios import demo
from warmpool.sim.spec import GuestSpec, Timings, WorldSpec

# The SDK warns of options that nobody here has set, and of what it does itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::openstack.warnings._RemovedInSDKWarning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.LegacyAPIWarning"),
]

T = TypeVar("T")


def a_world() -> WorldSpec:
    timings = Timings(
        post=(0.05, 0.05), build=(0.1, 0.2), action=(0.1, 0.1), migrate=(0.1, 0.1), rpc_timeout=0.2
    )
    return demo().model_copy(update={"timings": timings, "guests": GuestSpec(port=0)})


@pytest.fixture
async def sim() -> AsyncIterator[Running]:
    async with running(a_world()) as cloud:
        yield cloud


def connect(sim: Running, cloud: str) -> Connection:
    """An ordinary connection by the simulator's clouds.yaml."""
    config = OpenStackConfig(load_yaml_config=False, load_envvars=False)
    config.cloud_config = yaml.safe_load(sim.clouds_yaml())
    return Connection(config=config.get_one(cloud=cloud))


def warm(connection: Connection) -> None:
    """Find all services now: what asks for one later blocks no more than its own call."""
    for service in ("compute", "image", "network", "placement"):
        getattr(connection, service)


@asynccontextmanager
async def connected(sim: Running, cloud: str) -> AsyncIterator[Connection]:
    connection = connect(sim, cloud)
    await off(warm, connection)
    yield connection
    connection.close()


@pytest.fixture
async def admin(sim: Running) -> AsyncIterator[Connection]:
    async with connected(sim, "sim") as connection:
        yield connection


@pytest.fixture
async def member(sim: Running) -> AsyncIterator[Connection]:
    async with connected(sim, "sim-member") as connection:
        yield connection


async def off(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Do something that blocks in a thread: the simulator lives in this one."""
    return await asyncio.to_thread(work, *args, **kwargs)


def ids(connection: Connection) -> dict[str, Any]:
    flavor = connection.compute.find_flavor("m1.small", ignore_missing=False)
    image = connection.image.find_image("debian-13", ignore_missing=False)
    return {"flavorRef": flavor.id, "imageRef": image.id}


def post(connection: Connection, version: str = "2.96", **server: Any) -> Any:
    """A raw POST to /servers. Leave a key out by giving it None."""
    body = {"name": "vm", "networks": "none", **ids(connection), **server}
    body = {key: value for key, value in body.items() if value is not None}
    return connection.compute.post("/servers", json={"server": body}, microversion=version)


def get(connection: Connection, path: str, version: str = "2.96") -> Any:
    return connection.compute.get(path, microversion=version)


def message(answer: Any) -> str:
    """Text of an error answer."""
    (error,) = answer.json().values()
    return str(error["message"])


def boot(connection: Connection, **wishes: Any) -> Any:
    """A server that is ACTIVE."""
    known = ids(connection)
    wishes = {"name": "vm", "networks": "none", **wishes}
    server = connection.compute.create_server(
        flavor_id=known["flavorRef"], image_id=known["imageRef"], **wishes
    )
    return connection.compute.wait_for_server(server, interval=0.05, wait=10)


# The SDK's own ways


async def test_the_sdk_boots_lists_tags_and_deletes(member: Connection) -> None:
    server = await off(boot, member, networks="auto", tags=["a", "b"], metadata={"k": "v"})
    assert (server.status, server.metadata) == ("ACTIVE", {"k": "v"})
    found = await off(lambda: list(member.compute.servers(tags="a")))
    assert [(s.id, s.tags) for s in found] == [(server.id, ["a", "b"])]
    assert await off(lambda: list(member.compute.servers(tags="a,c"))) == []
    await off(member.compute.delete_server, server)
    await off(member.compute.wait_for_delete, server, interval=0.05, wait=10)
    assert await off(member.compute.find_server, server.id) is None


async def test_the_cloud_layer_boots_by_names(member: Connection) -> None:
    names = {"image": "debian-13", "flavor": "m1.small", "network": "private"}
    made = await off(member.create_server, "vm", **names, auto_ip=False)
    server = await off(member.compute.wait_for_server, made, interval=0.05, wait=10)
    assert server.addresses["private"][0]["addr"].startswith("127.64.")


async def test_the_sdk_sees_hosts_racks_zones_and_limits(admin: Connection) -> None:
    def look() -> tuple[Any, ...]:
        compute = admin.compute
        return (
            {h.name for h in compute.hypervisors()},
            {s.host for s in compute.services(binary="nova-compute")},
            {rack for a in compute.aggregates() if (rack := a.metadata["rack"])},
            {z.name for z in compute.availability_zones()},
            {p.name for p in admin.placement.resource_providers()},
            compute.get_limits().absolute.instances,
            [k.name for k in compute.keypairs()],
            [s.name for s in admin.network.security_groups()],
        )

    hosts, services, racks, zones, providers, limit, keys, groups = await off(look)
    assert hosts == services == providers
    assert len(hosts) == 8
    assert (racks, zones) == ({"r1", "r2", "r3", "r4"}, {"az1", "az2"})
    assert (limit, keys, groups) == (400, ["ops"], ["default"])


async def test_an_application_credential_is_as_good_as_a_password(sim: Running) -> None:
    async with connected(sim, "sim-app") as connection:
        assert await off(lambda: list(connection.compute.servers())) == []


async def test_the_sdk_pages_through_a_long_list(sim: Running, member: Connection) -> None:
    for n in range(25):
        await off(post, member, name=f"vm-{n}")
    found = await off(lambda: [s.name for s in member.compute.servers(limit=10)])
    assert found == [f"vm-{n}" for n in reversed(range(25))]
    assert sim.nova.traffic.calls["GET /compute/v2.1/servers/detail"] >= 3


# 12.1


async def test_fact_1_a_post_is_202_without_a_status_and_listed_at_once(
    member: Connection,
) -> None:
    answer = await off(post, member)
    server = answer.json()["server"]
    assert answer.status_code == 202
    assert sorted(server) == ["OS-DCF:diskConfig", "adminPass", "id", "links", "security_groups"]
    assert answer.headers["location"].endswith(f"/servers/{server['id']}")
    listed = (await off(get, member, "/servers/detail")).json()["servers"]
    assert [(s["id"], s["status"]) for s in listed] == [(server["id"], "BUILD")]


# 12.2


async def test_fact_2_the_details_of_a_fault_are_for_admins(
    sim: Running, admin: Connection, member: Connection
) -> None:
    await control(sim, "quota", cores=-1)
    flavor = await off(member.compute.find_flavor, "m1.huge")
    await control(sim, "quota", ram_mb=-1)
    server = (await off(post, member, flavorRef=flavor.id)).json()["server"]["id"]
    await until(lambda: sim.nova.get(server).fault is not None)
    seen = (await off(get, member, f"/servers/{server}")).json()["server"]
    assert sorted(seen["fault"]) == ["code", "created", "message"]
    assert (seen["fault"]["code"], seen["hostId"]) == (500, "")
    assert seen["OS-EXT-AZ:availability_zone"] == ""
    seen = (await off(get, admin, f"/servers/{server}")).json()["server"]
    assert "Traceback" in seen["fault"]["details"]
    assert seen["OS-EXT-SRV-ATTR:host"] is None


async def control(sim: Running, what: str, **command: Any) -> None:
    """A command over HTTP."""
    await off(request, sim, "POST", "/_sim/do", {"do": what, **command})


def request(sim: Running, method: str, path: str, body: object = None) -> Any:
    """A call of the control API."""
    return requests.request(method, f"{sim.url}{path}", json=body, timeout=10).json()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        for _ in iter(holds, True):
            await asyncio.sleep(0.02)


# 12.3


async def test_fact_3_concurrent_posts_race_over_http_too(sim: Running, member: Connection) -> None:
    await control(sim, "quota", instances=2)
    answers = await asyncio.gather(*(off(post, member, name=f"vm-{n}") for n in range(4)))
    assert [answer.status_code for answer in answers] == [202] * 4
    await until(lambda: all(s.task is None for s in sim.nova.world.servers.values()))
    await until(lambda: sum(s.vm_state == "active" for s in sim.nova.world.servers.values()) == 2)
    refused = await off(post, member)
    assert "already used 4 of 2 instances" in message(refused)


async def test_fact_3_groups_are_made_shown_and_deleted(member: Connection) -> None:
    def play() -> tuple[Any, ...]:
        compute = member.compute
        group = compute.create_server_group(
            name="g", policy="anti-affinity", rules={"max_server_per_host": 2}
        )
        hinted = boot(member, scheduler_hints={"group": group.id})
        again = compute.get_server_group(group.id)
        shown = get(member, f"/servers/{hinted.id}").json()["server"]["server_groups"]
        listed = get(member, "/servers/detail").json()["servers"][0]
        deleted = [compute.delete(f"/os-server-groups/{group.id}").status_code for _ in range(2)]
        return again.rules, again.member_ids == [hinted.id], shown == [group.id], listed, deleted

    rules, has_member, shown, listed, deleted = await off(play)
    assert (rules, has_member, shown) == ({"max_server_per_host": 2}, True, True)
    assert "server_groups" not in listed
    assert deleted == [204, 404]


# 12.4


async def test_fact_4_user_data_is_echoed_by_its_refusal(member: Connection) -> None:
    secret = base64.b64encode(b"password: hunter2").decode() * 3000
    answer = await off(post, member, user_data=secret)
    assert answer.status_code == 400
    assert message(answer).startswith(
        f"Invalid input for field/attribute user_data. Value: {secret}"
    )
    assert message(answer).endswith("is too long")
    assert "is not a 'base64'" in message(await off(post, member, user_data="A"))
    assert (await off(post, member, user_data="A" * 65532)).status_code == 202


@pytest.mark.parametrize(
    ("wishes", "code", "text"),
    [
        ({"metadata": {f"k{n}": "v" for n in range(129)}}, 403, "exceeds 128"),
        ({"metadata": {"k": "v" * 256}}, 400, "is too long"),
        ({"metadata": {"k": 1}}, 400, "is not of type 'string'"),
        ({"tags": [f"t{n}" for n in range(51)]}, 400, "is too long"),
        ({"tags": ["t" * 61]}, 400, "is too long"),
        ({"tags": ["a,b"]}, 400, "'a,b' does not match '^[^,/]*$'"),
        ({"tags": ["a/b"]}, 400, "'a/b' does not match '^[^,/]*$'"),
        ({"flavorRef": "nope"}, 400, "Flavor nope could not be found."),
        ({"imageRef": "nope"}, 400, "is not valid under any of the given schemas"),
        (
            {"imageRef": "11111111-1111-1111-1111-111111111111"},
            400,
            "Can not find requested image",
        ),
        ({"availability_zone": "nope"}, 400, "The requested availability zone is not available"),
        ({"key_name": "nope"}, 400, "Invalid key_name provided."),
        ({"name": ""}, 400, "'' should be non-empty"),
        ({"min_count": 3, "max_count": 1}, 400, "min_count must be <= max_count"),
        ({"bogus": 1}, 400, "Additional properties are not allowed ('bogus' was unexpected)"),
        ({"min_count": 500}, 403, "Requested 500, but already used 0 of 400 instances"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_fact_4_wrong_requests_are_refused_in_novas_words(
    member: Connection, wishes: dict[str, Any], code: int, text: str
) -> None:
    answer = await off(post, member, **wishes)
    assert (answer.status_code, text in message(answer)) == (code, True), message(answer)
    assert (await off(get, member, "/servers")).json() == {"servers": []}


# 12.5


async def test_fact_5_members_see_a_hash_and_admins_the_host(
    admin: Connection, member: Connection
) -> None:
    server = await off(boot, member)
    by_member = (await off(get, member, f"/servers/{server.id}")).json()["server"]
    by_admin = (await off(get, admin, f"/servers/{server.id}")).json()["server"]
    assert len(by_member["hostId"]) == 56
    assert by_member["hostId"] == by_admin["hostId"]
    assert set(by_admin) - set(by_member) == {
        "OS-EXT-SRV-ATTR:host",
        "OS-EXT-SRV-ATTR:hypervisor_hostname",
        "OS-EXT-SRV-ATTR:instance_name",
        "OS-EXT-SRV-ATTR:kernel_id",
        "OS-EXT-SRV-ATTR:launch_index",
        "OS-EXT-SRV-ATTR:ramdisk_id",
        "OS-EXT-SRV-ATTR:reservation_id",
        "OS-EXT-SRV-ATTR:root_device_name",
        "OS-EXT-SRV-ATTR:user_data",
        "host_status",
    }
    assert by_admin["host_status"] == "UP"


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/os-services", "os_compute_api:os-services:list"),
        ("/os-hypervisors", "os_compute_api:os-hypervisors:list"),
        ("/os-aggregates", "os_compute_api:os-aggregates:index"),
        ("/os-migrations", "os_compute_api:os-migrations:index"),
        ("/os-availability-zone/detail", "os_compute_api:os-availability-zone:detail"),
        ("/servers?all_tenants=1", "os_compute_api:servers:index:get_all_tenants"),
    ],
)
async def test_fact_5_members_are_refused_what_admins_see(
    admin: Connection, member: Connection, path: str, rule: str
) -> None:
    answer = await off(get, member, path)
    assert answer.json() == {
        "forbidden": {"code": 403, "message": f"Policy doesn't allow {rule} to be performed."}
    }
    assert (await off(get, admin, path)).status_code == 200


async def test_fact_5_members_may_neither_name_a_host_nor_see_placement(
    member: Connection,
) -> None:
    assert (await off(post, member, host="r1-h1")).status_code == 403
    assert (await off(post, member, availability_zone="az1:r1-h1")).status_code == 403
    answer = await off(member.placement.get, "/resource_providers")
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "filter_",
    ["metadata=%7B%22k%22:%22other%22%7D", "host=nonesuch", "deleted=True", "node=nonesuch"],
)
async def test_fact_5_filters_that_members_lack_return_everything(
    member: Connection, filter_: str
) -> None:
    await off(post, member)
    servers = (await off(get, member, f"/servers?{filter_}")).json()["servers"]
    assert len(servers) == 1


async def test_fact_5_admins_are_refused_the_metadata_filter_and_have_the_others(
    admin: Connection,
) -> None:
    await off(post, admin)
    answer = await off(get, admin, "/servers?metadata=%7B%7D")
    assert (answer.status_code, message(answer)) == (400, "Invalid filter field: metadata.")
    assert (await off(get, admin, "/servers?host=nonesuch")).json()["servers"] == []


# 12.6


async def test_fact_6_a_page_links_to_the_next(sim: Running, member: Connection) -> None:
    for _ in range(3):
        await off(post, member)
    first = (await off(get, member, "/servers?limit=2&name=v")).json()
    last = first["servers"][-1]["id"]
    assert first["servers_links"] == [
        {
            "rel": "next",
            "href": f"{sim.url}/compute/v2.1/servers?limit=2&name=v&marker={last}",
        }
    ]
    second = (await off(get, member, f"/servers?limit=2&name=v&marker={last}")).json()
    assert (len(second["servers"]), "servers_links" in second) == (1, False)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("marker=nope", "marker [nope] not found"),
        ("limit=x", "'x' does not match '^[0-9]*$'"),
        ("name=%5B", "'[' is not a 'regex'"),
        ("changes-since=foo", "'foo' is not a 'date-time'"),
        ("status=FOO", "Invalid status value"),
        ("bogus=1", "'bogus' does not match any of the regexes: '^_'"),
    ],
)
async def test_fact_6_wrong_queries_are_a_400(member: Connection, query: str, text: str) -> None:
    answer = await off(get, member, f"/servers?{query}")
    assert (answer.status_code, text in message(answer)) == (400, True)


async def test_fact_6_changes_since_shows_the_deleted(member: Connection) -> None:
    server = await off(boot, member, tags=["a"])
    await off(member.compute.delete_server, server)
    await off(member.compute.wait_for_delete, server, interval=0.05, wait=10)
    path = "/servers/detail?changes-since=2020-01-01T00:00:00Z"
    (seen,) = (await off(get, member, path)).json()["servers"]
    assert (seen["id"], seen["status"], seen["tags"]) == (server.id, "DELETED", [])
    assert seen["OS-SRV-USG:terminated_at"] is not None


# 12.7


async def test_fact_7_networks_are_required_from_2_37_on(sim: Running, member: Connection) -> None:
    answer = await off(post, member, networks=None)
    assert message(answer).endswith("'networks' is a required property")
    answer = await off(post, member, "2.36", networks="none")
    assert message(answer).endswith("'none' is not of type 'array'")
    answer = await off(post, member, "2.1", networks=None)
    assert answer.status_code == 202
    assert sim.nova.get(answer.json()["server"]["id"]).networks != ()


async def test_fact_7_fields_come_and_go_with_the_microversion(member: Connection) -> None:
    server = await off(boot, member)

    def at(version: str) -> Any:
        return get(member, f"/servers/{server.id}", version).json()["server"]

    old, new = await off(at, "2.46"), await off(at, "2.47")
    assert sorted(old["flavor"]) == ["id", "links"]
    assert "id" not in new["flavor"]
    oldest, latest = await off(at, "2.1"), await off(at, "2.96")
    assert "tags" not in oldest
    assert {"tags", "locked", "pinned_availability_zone"} <= set(latest)


async def test_fact_7_unknown_keys_and_tag_filters_depend_on_the_microversion(
    member: Connection,
) -> None:
    await off(post, member)
    for query in ("bogus=1", "tags=nonesuch"):
        servers = (await off(get, member, f"/servers?{query}", "2.1")).json()["servers"]
        assert len(servers) == 1
    assert (await off(get, member, "/servers?bogus=1")).status_code == 400
    assert (await off(get, member, "/servers?tags=nonesuch")).json()["servers"] == []


async def test_fact_7_a_version_that_there_is_not_is_a_406(member: Connection) -> None:
    answer = await off(get, member, "/servers", "2.999")
    assert (answer.status_code, message(answer)) == (
        406,
        "Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
    )


async def test_fact_7_hypervisors_at_2_88_ask_every_compute_and_fail_if_one_is_dead(
    sim: Running, admin: Connection
) -> None:
    rows = (await off(get, admin, "/os-hypervisors/detail", "2.87")).json()["hypervisors"]
    assert (rows[0]["vcpus"], rows[0]["memory_mb_used"]) == (32, 512)
    rows = (await off(get, admin, "/os-hypervisors/detail", "2.88")).json()["hypervisors"]
    assert "vcpus" not in rows[0]
    await control(sim, "host", host="r1-h1", change="kill")
    answer = await off(get, admin, "/os-hypervisors/detail", "2.88")
    assert answer.status_code == 500
    assert "MessagingTimeout" in message(answer)
    assert (await off(get, admin, "/os-hypervisors/detail", "2.87")).status_code == 200


# 12.8 and 12.9


async def test_fact_8_actions_over_the_sdk(sim: Running, member: Connection) -> None:
    server = await off(boot, member)
    await off(member.compute.stop_server, server)
    await off(member.compute.wait_for_server, server, "SHUTOFF", interval=0.05, wait=10)
    with pytest.raises(openstack.exceptions.ConflictException) as refused:
        await off(member.compute.stop_server, server)
    assert f"Cannot 'stop' instance {server.id} while it is in vm_state stopped" in str(
        refused.value
    )
    with pytest.raises(openstack.exceptions.ForbiddenException):
        await off(member.compute.live_migrate_server, server)
    await off(member.compute.start_server, server)
    await off(member.compute.wait_for_server, server, interval=0.05, wait=10)
    actions = (await off(get, member, f"/servers/{server.id}/os-instance-actions")).json()
    assert [a["action"] for a in actions["instanceActions"]] == ["start", "stop", "create"]
    assert sim.nova.get(server.id).power == 1


async def test_fact_8_a_failed_live_migration_is_told_by_os_migrations_alone(
    sim: Running, admin: Connection
) -> None:
    server = await off(boot, admin)
    await off(request, sim, "POST", "/_sim/faults", {"kind": "action", "effect": "fail"})
    await off(admin.compute.live_migrate_server, server, block_migration="auto")
    await until(lambda: sim.nova.get(server.id).task is None)
    seen = (await off(get, admin, f"/servers/{server.id}")).json()["server"]
    assert (seen["status"], "fault" in seen) == ("ACTIVE", False)
    (migration,) = (await off(get, admin, "/os-migrations")).json()["migrations"]
    assert (migration["status"], migration["dest_compute"]) == ("error", None)


async def test_fact_9_a_delete_is_204_twice_and_then_404(sim: Running, member: Connection) -> None:
    server = await off(boot, member)
    path = f"/servers/{server.id}"
    codes = [(await off(member.compute.delete, path)).status_code for _ in range(2)]
    await until(lambda: not sim.nova.world.servers)
    sim.nova.settle()
    codes.append((await off(member.compute.delete, path)).status_code)
    assert codes == [204, 204, 404]


# 12.10 to 12.12


async def test_fact_10_a_dead_host_is_seen_by_admins_only(
    sim: Running, admin: Connection, member: Connection
) -> None:
    server = await off(boot, admin, host="r1-h1")
    before = (await off(get, member, f"/servers/{server.id}")).json()
    await control(sim, "host", host="r1-h1", change="kill")
    await off(request, sim, "POST", "/_sim/advance", {"seconds": 61})
    services = await off(lambda: {s.host: s.state for s in admin.compute.services()})
    assert [host for host, state in services.items() if state == "down"] == ["r1-h1"]
    seen = (await off(get, admin, f"/servers/{server.id}")).json()["server"]
    assert seen["host_status"] == "UNKNOWN"
    assert (await off(get, member, f"/servers/{server.id}")).json() == before


async def arm(sim: Running, **fault: Any) -> int:
    answer = await off(request, sim, "POST", "/_sim/faults", {"kind": "api", **fault})
    return int(answer["id"])


async def test_fact_11_a_get_by_id_alone_can_be_a_500(sim: Running, member: Connection) -> None:
    server = await off(boot, member)
    await arm(sim, effect="status", method="GET", path="/servers/[0-9a-f-]{36}$")
    answer = await off(get, member, f"/servers/{server.id}")
    assert (answer.status_code, "Unexpected API Error" in message(answer)) == (500, True)
    assert (await off(get, member, "/servers/detail")).status_code == 200


async def test_fact_11_a_post_whose_answer_is_lost_may_yet_succeed(
    sim: Running, member: Connection
) -> None:
    await off(ids, member)
    await arm(sim, effect="lost", method="POST", path="/servers$", count=1)
    with pytest.raises(login.ConnectFailure):
        await off(post, member, tags=["mine"])
    found = (await off(get, member, "/servers?tags=mine")).json()["servers"]
    assert len(found) == 1


async def test_a_dropped_call_has_done_nothing(sim: Running, member: Connection) -> None:
    await off(ids, member)
    await arm(sim, effect="drop", method="POST", path="/servers$", count=1)
    with pytest.raises(login.ConnectFailure):
        await off(post, member)
    assert sim.nova.world.servers == {}


async def test_fact_12_rate_limits_tell_when_to_come_back(sim: Running, member: Connection) -> None:
    number = await arm(sim, effect="status", status=429, retry_after=7, path="/servers")
    answer = await off(get, member, "/servers")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert "overLimit" in answer.json()
    assert (await off(request, sim, "GET", "/_sim/faults"))[0]["strikes"] == 1
    await off(request, sim, "DELETE", f"/_sim/faults/{number}")
    assert (await off(get, member, "/servers")).status_code == 200


async def test_fact_12_credentials_can_be_refused_and_tokens_revoked(
    sim: Running, member: Connection
) -> None:
    await off(get, member, "/servers")
    await off(request, sim, "POST", "/_sim/tokens/revoke")
    assert (await off(get, member, "/servers")).status_code == 200
    fault = {"kind": "outage", "effect": "credentials"}
    await off(request, sim, "POST", "/_sim/faults", fault)
    with pytest.raises(login.Unauthorized):
        await off(get, member, "/servers")


async def test_a_wrong_password_is_a_401(sim: Running) -> None:
    config = OpenStackConfig(load_yaml_config=False, load_envvars=False)
    clouds = yaml.safe_load(sim.clouds_yaml())
    clouds["clouds"]["sim"]["auth"]["password"] = "wrong"  # noqa: S105 - that is the point
    config.cloud_config = clouds
    connection = Connection(config=config.get_one(cloud="sim"))
    with pytest.raises(openstack.exceptions.SDKException, match="requires authentication"):
        await off(connection.authorize)
    connection.close()


async def test_fact_12_a_token_ends(sim: Running, member: Connection) -> None:
    await off(get, member, "/servers")
    await off(request, sim, "POST", "/_sim/advance", {"seconds": 90_000})
    assert (await off(get, member, "/servers")).status_code == 200
    assert sim.nova.traffic.calls["POST /identity/v3/auth/tokens"] == 2


async def test_fact_12_a_listing_can_suddenly_lack_most_servers(
    sim: Running, member: Connection
) -> None:
    for _ in range(4):
        await off(post, member)
    await off(request, sim, "POST", "/_sim/faults", {"kind": "list", "effect": "half", "count": 1})
    assert len((await off(get, member, "/servers")).json()["servers"]) == 2
    assert len((await off(get, member, "/servers")).json()["servers"]) == 4


async def test_the_date_of_an_answer_is_the_simulated_time(
    sim: Running, member: Connection
) -> None:
    await off(request, sim, "POST", "/_sim/advance", {"seconds": 86_400 * 365})
    year = sim.nova.world.time.moment().strftime("%Y")
    assert year in (await off(get, member, "/servers")).headers["Date"]


# Guests and the control API


def greeting(address: str, port: int) -> bytes:
    with socket.create_connection((address, port), 2) as guest:
        return guest.recv(100)


async def test_a_guest_answers_on_an_address_of_its_own_until_it_is_gone(
    sim: Running, member: Connection
) -> None:
    first = await off(boot, member, networks="auto")
    second = await off(boot, member, networks="auto")
    one, two = (s.addresses["private"][0]["addr"] for s in (first, second))
    port = sim.site.guest_port
    assert port is not None
    await asyncio.sleep(0.2)
    assert one != two
    assert (await off(greeting, one, port)).startswith(b"SSH-2.0")
    await control(sim, "server", server=second.id, change="silence")
    await off(member.compute.delete_server, first)
    await off(member.compute.wait_for_delete, first, interval=0.05, wait=10)
    await asyncio.sleep(0.2)
    for address in (one, two):
        with pytest.raises(ConnectionRefusedError):
            await off(greeting, address, port)


async def test_the_state_tells_all_truth(sim: Running, member: Connection) -> None:
    server = await off(boot, member, tags=["a"])
    truth = await off(request, sim, "GET", "/_sim/state")
    (seen,) = truth["servers"]
    assert (seen["id"], seen["tags"], seen["status"]) == (server.id, ["a"], "ACTIVE")
    assert seen["host"] in {host["name"] for host in truth["hosts"]}
    assert (truth["posts_accepted"], truth["servers_created"], truth["servers_deleted"]) == (
        1,
        1,
        0,
    )
    assert truth["calls"]["POST /compute/v2.1/servers"] == 1
    assert truth["bytes_sent"] > 1000
    told = await off(request, sim, "GET", "/_sim/journal")
    befell = [(entry["what"], entry["server"]) for entry in told["entries"]]
    assert (told["dropped"], befell) == (0, [("posted", server.id), ("active", server.id)])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/_sim/do", {"do": "nonesuch"}),
        ("/_sim/faults", {"kind": "api", "effect": "status", "path": "("}),
        ("/_sim/advance", {"seconds": -1}),
        ("/_sim/preload", {"count": 1, "flavor": "nonesuch"}),
    ],
)
async def test_mistakes_in_control_are_told(sim: Running, path: str, body: object) -> None:
    assert "error" in await off(request, sim, "POST", path, body)


# The command


def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    clouds, ready = tmp_path / "clouds.yaml", tmp_path / "ready"
    command = [
        str(Path(sys.executable).with_name("warmpool")),
        "novasim",
        "--scenario",
        "tiny",
        "--no-guests",
    ]
    command += ["--clouds-out", str(clouds), "--ready-file", str(ready), "--preload", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        line = process.stdout.readline()
        url = ready.read_text().strip()
        assert line == f"novasim: ready at {url}\n"
        config = OpenStackConfig(config_files=[str(clouds)], load_envvars=False)
        connection = Connection(config=config.get_one(cloud="sim-member"))
        assert len(list(connection.compute.servers())) == 3
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
