"""What the simulated Nova owes to the real one: the states, texts and races that were observed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from warmpool.sim.builds import BuildRequest
from warmpool.sim.clock import ManualClock
from warmpool.sim.errors import Refused
from warmpool.sim.faults import ActionFault, DeleteFault, ListFault, OutageFault, SpawnFault
from warmpool.sim.listing import Query, status_of
from warmpool.sim.nova import Nova
from warmpool.sim.scenarios import demo
from warmpool.sim.spec import FlavorSpec, ImageSpec, QuotaSpec, Timings, WorldSpec
from warmpool.sim.world import Server

NO_VALID_HOST = "No valid host was found. There are not enough hosts available."


def a_world(**overrides: object) -> WorldSpec:
    """Eight hosts in four racks, everything taking a fixed time."""
    timings = Timings(build=(2, 2), migrate=(0.5, 0.5), service_down_time=15)
    return demo().model_copy(update={"timings": timings, **overrides})


class Lab:
    """A cloud whose time is moved by hand."""

    def __init__(self, spec: WorldSpec | None = None, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.nova = Nova(spec or a_world(), clock=self.clock, seed=seed)

    def request(self, **overrides: object) -> BuildRequest:
        world = self.nova.world
        ids = {flavor.name: ident for ident, flavor in world.flavors.items()}
        request = BuildRequest("vm", ids["m1.small"], next(iter(world.images)), networks=None)
        flavor = overrides.pop("flavor", None)
        if flavor is not None:
            request = replace(request, flavor_id=ids[str(flavor)])
        return replace(request, **overrides)

    def boot(self, **overrides: object) -> Server:
        return self.nova.create(self.request(**overrides))[0]

    def running(self, **overrides: object) -> Server:
        server = self.boot(**overrides)
        self.wait()
        assert status_of(server) == "ACTIVE", server.fault
        return server

    def racing(self, count: int, **overrides: object) -> list[Server]:
        """So many POSTs that are all checked before any of them is counted."""
        project = self.nova.project()
        admitted = [
            self.nova.admit(self.request(**overrides), project, admin=False) for _ in range(count)
        ]
        return [server for admission in admitted for server in self.nova.accept(admission)]

    def wait(self, seconds: float = 10) -> None:
        self.clock.advance(seconds)
        self.nova.settle()

    def group(self, policy: str = "anti-affinity", **rules: int) -> str:
        return self.nova.create_group("g", policy, rules or None, self.nova.project()).id

    def quota(self, **limits: int) -> None:
        self.nova.project().quota = QuotaSpec(**{"cores": -1, "ram_mb": -1, **limits})


@pytest.fixture
def lab() -> Lab:
    return Lab()


def outcomes(servers: list[Server]) -> tuple[int, int]:
    """How many are ACTIVE, and how many in ERROR."""
    statuses = [status_of(server) for server in servers]
    return statuses.count("ACTIVE"), statuses.count("ERROR")


# 12.1


def test_fact_1_a_build_is_listed_at_once_and_passes_through_the_states(lab: Lab) -> None:
    server = lab.boot()
    assert lab.nova.select(Query()) == ([server], False)
    seen = [(status_of(server), server.task)]
    for _ in range(400):
        lab.wait(0.01)
        if seen[-1] != (status_of(server), server.task):
            seen.append((status_of(server), server.task))
    assert seen == [
        ("BUILD", "scheduling"),
        ("BUILD", None),
        ("BUILD", "spawning"),
        ("ACTIVE", None),
    ]


def test_fact_1_an_accepted_post_may_still_fail(lab: Lab) -> None:
    lab.quota(instances=-1)
    server = lab.boot(flavor="m1.huge", zone="az1")
    lab.wait()
    assert (status_of(server), server.host) == ("ERROR", None)
    assert server.fault is not None
    assert (server.fault.message, server.fault.code) == (NO_VALID_HOST, 500)
    assert lab.nova.world.zone_of(server) == "az1"


# 12.2


def test_fact_2_a_failed_spawn_is_tried_on_three_hosts_before_error(lab: Lab) -> None:
    lab.nova.arm(SpawnFault(effect="fail", message="disk full"))
    server = lab.boot()
    lab.wait()
    assert server.fault is not None
    assert server.fault.message == (
        "Exceeded maximum number of retries. Exceeded max scheduling attempts 3 for instance"
        f" {server.id}. Last exception: disk full"
    )
    assert [armed.strikes for armed in lab.nova.faults.armed()] == [3]


def test_fact_2_a_spawn_that_fails_twice_ends_on_the_third_host(lab: Lab) -> None:
    lab.nova.arm(SpawnFault(effect="fail", count=2))
    server = lab.boot()
    lab.wait()
    assert status_of(server) == "ACTIVE"
    assert [host.name for host in lab.nova.world.hosts.values() if host.vcpus_used] == [server.host]


def test_fact_2_a_spawn_on_a_named_host_is_not_retried_elsewhere(lab: Lab) -> None:
    lab.nova.arm(SpawnFault(effect="fail", host="r1-h1"))
    server = lab.nova.create(lab.request(host="r1-h1"), admin=True)[0]
    lab.wait()
    assert server.fault is not None
    assert "Exhausted all hosts available for retrying build failures" in server.fault.message


def test_fact_2_an_error_server_counts_in_quota_and_group_until_it_is_deleted(lab: Lab) -> None:
    lab.quota(instances=1, server_group_members=1)
    lab.nova.arm(SpawnFault(effect="abort", message="no port"))
    group = lab.group()
    server = lab.boot(group=group)
    lab.wait()
    assert (status_of(server), server.host) == ("ERROR", None)
    with pytest.raises(Refused, match="already used 1 of 1 instances"):
        lab.boot()
    lab.quota(instances=2, server_group_members=1)
    with pytest.raises(Refused, match="too many servers in group"):
        lab.boot(group=group)
    lab.nova.delete(server)
    assert lab.boot(group=group).task == "scheduling"


def test_fact_2_a_fault_shows_while_error_lasts_and_a_stale_one_comes_back(lab: Lab) -> None:
    lab.nova.arm(ActionFault(effect="fail", action="rebuild"))
    server = lab.running()
    lab.nova.act(server, "rebuild", {"imageRef": server.image_id})
    lab.wait()
    stale = server.fault
    assert (status_of(server), stale is not None) == ("ERROR", True)
    lab.nova.act(server, "os-resetState", {"state": "active"}, admin=True)
    assert status_of(server) == "ACTIVE"
    lab.nova.act(server, "os-resetState", {"state": "error"}, admin=True)
    assert (status_of(server), server.fault) == ("ERROR", stale)


# 12.3


def test_fact_3_members_of_a_group_one_at_a_time_get_a_host_each(lab: Lab) -> None:
    group = lab.group()
    members = [lab.running(group=group) for _ in range(8)]
    assert len({server.host for server in members}) == 8
    ninth = lab.boot(group=group)
    lab.wait()
    assert ninth.fault is not None
    assert ninth.fault.message == NO_VALID_HOST


def test_fact_3_concurrent_posts_into_one_group_race_and_lose(lab: Lab) -> None:
    servers = lab.racing(6, group=lab.group())
    lab.wait()
    assert outcomes(servers) == (3, 3)
    texts = {server.fault.message[-43:] for server in servers if server.fault}
    assert texts == {"nti-affinity instance group policy was violated."[-43:]}


def test_fact_3_with_two_per_host_thirteen_posts_end_as_six_and_seven(lab: Lab) -> None:
    lab.quota(instances=-1, server_group_members=-1)
    servers = lab.racing(13, group=lab.group(max_server_per_host=2))
    lab.wait()
    assert outcomes(servers) == (6, 7)


@pytest.mark.parametrize(("count", "outcome"), [(8, (8, 0)), (9, (0, 9))])
def test_fact_3_one_post_of_n_is_decided_whole(
    lab: Lab, count: int, outcome: tuple[int, int]
) -> None:
    servers = lab.nova.create(lab.request(group=lab.group(), min_count=count, max_count=count))
    lab.wait()
    assert outcomes(servers) == outcome
    assert servers[0].name == "vm-1"


def test_fact_3_concurrent_posts_pass_the_quota_check_and_end_in_error(lab: Lab) -> None:
    lab.quota(instances=5)
    servers = lab.racing(10)
    lab.wait()
    assert outcomes(servers) == (5, 5)
    assert "Requested 1, but already used 5 of 5 instances" in {
        server.fault.message.removeprefix("Quota exceeded for instances: ")
        for server in servers
        if server.fault
    }
    with pytest.raises(Refused, match="already used 10 of 5 instances") as refused:
        lab.boot()
    assert refused.value.code == 403


# 12.4


def test_fact_4_the_quota_refusal_names_the_numbers(lab: Lab) -> None:
    lab.quota(instances=2)
    with pytest.raises(Refused) as refused:
        lab.nova.create(lab.request(min_count=3, max_count=3))
    assert refused.value.message == (
        "Quota exceeded for instances: Requested 3, but already used 0 of 2 instances"
    )
    assert refused.value.body() == {"forbidden": {"code": 403, "message": refused.value.message}}


def test_fact_4_a_post_is_cut_down_silently_to_what_the_quota_leaves(lab: Lab) -> None:
    lab.quota(instances=2)
    assert len(lab.nova.create(lab.request(min_count=1, max_count=3))) == 2


def test_fact_4_groups_have_quotas_and_rules_fit_one_policy_only(lab: Lab) -> None:
    for _ in range(10):
        lab.group()
    with pytest.raises(Refused, match="Quota exceeded, too many server groups"):
        lab.group()
    with pytest.raises(Refused, match="Only anti-affinity policy supports rules"):
        lab.group("soft-anti-affinity", max_server_per_host=2)
    with pytest.raises(Refused, match=r"Instance group .* could not be found") as refused:
        lab.boot(group="nonesuch")
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"security_groups": ("nope",)}, "Security group nope not found for project"),
        ({"networks": ("nope",)}, "Network nope could not be found"),
        ({"key_name": "nope"}, "Invalid key_name provided"),
    ],
)
def test_what_a_request_names_must_be_there(lab: Lab, wish: dict[str, object], text: str) -> None:
    with pytest.raises(Refused, match=text) as refused:
        lab.boot(**wish)
    assert refused.value.code == 400


def test_a_flavor_must_be_large_enough_for_its_image() -> None:
    lab = Lab(a_world(images=(ImageSpec(name="large", min_disk=20),)))
    with pytest.raises(Refused, match="Flavor's disk is too small for requested image"):
        lab.boot()
    lab = Lab(a_world(images=(ImageSpec(name="greedy", min_ram=2048),)))
    with pytest.raises(Refused, match="Flavor's memory is too small for requested image"):
        lab.boot()


# Scheduling


def test_servers_spread_by_free_ram(lab: Lab) -> None:
    servers = [lab.boot() for _ in range(8)]
    lab.wait()
    assert len({server.host for server in servers}) == 8


def test_a_flavor_may_name_the_rack() -> None:
    specs = {"aggregate_instance_extra_specs:rack": "r2"}
    lab = Lab(a_world(flavors=(FlavorSpec(name="m1.small", extra_specs=specs),)))
    servers = [lab.running() for _ in range(4)]
    assert {server.host for server in servers} == {"r2-h1", "r2-h2"}


def test_a_disabled_host_takes_nothing_and_keeps_what_it_has(lab: Lab) -> None:
    server = lab.running()
    host = lab.nova.host(server.host or "")
    lab.nova.disable(host, disabled=True)
    assert lab.nova.world.host_status(server) == "MAINTENANCE"
    forced = lab.nova.create(lab.request(zone="az1", forced_host=host.name), admin=True)[0]
    lab.wait()
    assert (status_of(server), status_of(forced)) == ("ACTIVE", "ERROR")


def test_a_zone_whose_hosts_are_all_disabled_is_not_available(lab: Lab) -> None:
    """Those that are dead are, for whoever asks for servers."""
    hosts = [host for host in lab.nova.world.hosts.values() if host.spec.zone == "az1"]
    for host in hosts:
        lab.nova.disable(host, disabled=True)
    with pytest.raises(Refused, match="The requested availability zone is not available"):
        lab.nova.create(lab.request(zone="az1"))
    lab.nova.disable(hosts[0], disabled=False)
    lab.nova.kill(hosts[0].name)
    assert lab.nova.create(lab.request(zone="az1"))


def test_a_host_of_another_zone_may_be_forced_but_not_requested(lab: Lab) -> None:
    forced = lab.nova.create(lab.request(zone="az2", forced_host="r1-h1"), admin=True)[0]
    asked = lab.nova.create(lab.request(zone="az2", host="r1-h1"), admin=True)[0]
    lab.wait()
    assert (forced.host, status_of(asked)) == ("r1-h1", "ERROR")


@pytest.mark.parametrize(
    ("wish", "rule"),
    [
        ({"forced_host": "r1-h1"}, "os_compute_api:servers:create:forced_host"),
        ({"host": "r1-h1"}, "compute:servers:create:requested_destination"),
    ],
)
def test_members_may_not_name_a_host(lab: Lab, wish: dict[str, str], rule: str) -> None:
    with pytest.raises(Refused) as refused:
        lab.boot(**wish)
    assert (refused.value.code, rule in refused.value.message) == (403, True)


def test_the_same_seed_gives_the_same_cloud() -> None:
    def history(seed: int) -> list[tuple[str, str | None, object]]:
        lab = Lab(a_world(timings=Timings(build=(1, 3))), seed)
        return [(s.id, s.host, s.launched) for s in (lab.running() for _ in range(5))]

    assert history(7) == history(7)
    assert history(7) != history(8)


# 12.8


def test_fact_8_a_stop_is_active_with_a_task_and_then_shutoff(lab: Lab) -> None:
    server = lab.running()
    lab.nova.act(server, "os-stop")
    assert (status_of(server), server.task, server.power) == ("ACTIVE", "powering-off", 1)
    lab.wait(0.4)
    assert (status_of(server), server.task, server.power) == ("SHUTOFF", None, 4)


def test_fact_8_an_action_in_the_wrong_state_is_a_409(lab: Lab) -> None:
    server = lab.running()
    with pytest.raises(Refused) as refused:
        lab.nova.act(server, "os-start")
    assert (refused.value.code, refused.value.message) == (
        409,
        f"Cannot 'start' instance {server.id} while it is in vm_state active",
    )
    lab.nova.act(server, "reboot")
    assert status_of(server) == "REBOOT"
    with pytest.raises(Refused, match="while it is in task_state rebooting"):
        lab.nova.act(server, "os-stop")


def test_fact_8_a_lock_keeps_its_owner_out_but_no_admin(lab: Lab) -> None:
    server = lab.running()
    lab.nova.act(server, "lock")
    with pytest.raises(Refused, match=f"Instance {server.id} is locked"):
        lab.nova.act(server, "os-stop")
    lab.nova.act(server, "os-stop", admin=True)
    assert server.task == "powering-off"


def test_fact_8_an_unknown_action_is_a_400(lab: Lab) -> None:
    with pytest.raises(Refused, match="There is no such action: foo") as refused:
        lab.nova.act(lab.running(), "foo")
    assert refused.value.code == 400


def test_fact_8_a_live_migration_moves_the_server_and_its_capacity(lab: Lab) -> None:
    server = lab.running()
    before = server.host
    lab.nova.act(server, "os-migrateLive", {"host": None}, admin=True)
    assert (status_of(server), server.host) == ("MIGRATING", before)
    lab.wait(1)
    assert status_of(server) == "ACTIVE"
    assert server.host != before
    assert lab.nova.host(before or "").vcpus_used == 0
    assert lab.nova.answers(next(iter(server.addresses.values())))


def test_fact_8_a_failed_migration_leaves_no_fault(lab: Lab) -> None:
    lab.nova.arm(ActionFault(effect="fail", action="os-migrateLive"))
    server = lab.running()
    before = server.host
    lab.nova.act(server, "os-migrateLive", {"host": None}, admin=True)
    lab.wait(1)
    assert (status_of(server), server.host, server.fault) == ("ACTIVE", before, None)
    assert [m.status for m in lab.nova.world.migrations] == ["error"]
    assert server.actions[-1].message == "Error"


def test_fact_8_the_zone_of_the_build_pins_later_migrations(lab: Lab) -> None:
    server = lab.running(zone="az1")
    before = server.host
    lab.nova.act(server, "os-migrateLive", {"host": "r3-h1"}, admin=True)
    lab.wait(1)
    assert (status_of(server), server.host) == ("ACTIVE", before)


def test_a_task_that_hangs_never_ends(lab: Lab) -> None:
    lab.nova.arm(ActionFault(effect="hang", action="os-stop"))
    server = lab.running()
    lab.nova.act(server, "os-stop")
    lab.wait(3600)
    assert (status_of(server), server.task) == ("ACTIVE", "powering-off")


def test_a_rebuild_keeps_the_server_and_takes_the_guest_down_meanwhile(lab: Lab) -> None:
    server = lab.running(tags=("a",))
    address, other = next(iter(server.addresses.values())), list(lab.nova.world.images)[1]
    lab.nova.act(server, "rebuild", {"imageRef": other})
    assert status_of(server) == "REBUILD"
    lab.wait(1)
    assert (status_of(server), server.image_id, server.tags) == ("ACTIVE", other, ("a",))
    assert lab.nova.answers(address)


# 12.9


def test_fact_9_a_delete_is_deleting_and_then_404(lab: Lab) -> None:
    server = lab.running()
    lab.nova.delete(server)
    lab.nova.delete(server)
    assert (lab.nova.get(server.id).task, status_of(server)) == ("deleting", "ACTIVE")
    lab.wait(0.3)
    with pytest.raises(Refused, match=f"Instance {server.id} could not be found") as refused:
        lab.nova.get(server.id)
    assert refused.value.code == 404


def test_fact_9_before_the_conductor_a_delete_is_at_once(lab: Lab) -> None:
    server = lab.boot()
    lab.nova.delete(server)
    assert lab.nova.world.servers == {}
    lab.wait()
    assert status_of(server) == "DELETED"


def test_fact_9_while_spawning_a_delete_waits_for_the_spawn(lab: Lab) -> None:
    server = lab.boot()
    lab.wait(0.5)
    lab.nova.delete(server)
    lab.wait(1)
    assert (status_of(server), server.task) == ("BUILD", "deleting")
    lab.wait(1)
    assert status_of(server) == "DELETED"
    assert all(host.vcpus_used == 0 for host in lab.nova.world.hosts.values())


def test_fact_9_a_locked_server_is_not_deleted(lab: Lab) -> None:
    server = lab.running()
    lab.nova.act(server, "lock")
    with pytest.raises(Refused, match="is locked"):
        lab.nova.delete(server)
    lab.nova.delete(server, admin=True)
    lab.wait(1)
    assert status_of(server) == "DELETED"


@pytest.mark.parametrize(("effect", "task"), [("hang", "deleting"), ("ignored", None)])
def test_a_delete_can_come_to_nothing(lab: Lab, effect: str, task: str | None) -> None:
    lab.nova.arm(DeleteFault.model_validate({"effect": effect}))
    server = lab.running()
    lab.nova.delete(server)
    lab.wait(3600)
    assert (status_of(lab.nova.get(server.id)), server.task) == ("ACTIVE", task)


# 12.10


def test_fact_10_a_dead_compute_reads_up_for_a_while_and_members_see_nothing(lab: Lab) -> None:
    server = lab.running()
    host, updated = server.host or "", server.updated
    lab.nova.kill(host)
    lab.wait(15)
    assert lab.nova.world.host_status(server) == "UP"
    lab.wait(0.1)
    assert lab.nova.world.host_status(server) == "UNKNOWN"
    assert (status_of(server), server.power, server.updated) == ("ACTIVE", 1, updated)


def test_fact_10_casts_to_a_dead_compute_are_carried_out_late(lab: Lab) -> None:
    server = lab.running()
    lab.nova.kill(server.host or "")
    lab.nova.act(server, "os-stop")
    lab.wait(3600)
    assert (status_of(server), server.task) == ("ACTIVE", "powering-off")
    lab.nova.revive(server.host or "")
    lab.wait(0.4)
    assert status_of(server) == "SHUTOFF"


def test_fact_10_a_boot_on_a_dead_compute_stays_in_scheduling_until_it_is_back(lab: Lab) -> None:
    lab.nova.kill("r1-h1")
    server = lab.nova.create(lab.request(host="r1-h1"), admin=True)[0]
    lab.wait(3600)
    assert (status_of(server), server.task) == ("BUILD", "scheduling")
    lab.nova.revive("r1-h1")
    lab.wait()
    assert status_of(server) == "ACTIVE"


def test_fact_10_a_delete_on_a_host_known_dead_leaves_the_guest(lab: Lab) -> None:
    server = lab.running()
    host, address = server.host or "", next(iter(server.addresses.values()))
    lab.nova.kill(host)
    lab.wait(20)
    lab.nova.delete(server)
    assert lab.nova.world.servers == {}
    lab.nova.revive(host)
    lab.wait()
    assert lab.nova.answers(address)
    assert address not in lab.running().addresses.values()


def test_fact_10_a_delete_on_a_host_not_yet_known_dead_waits_for_it(lab: Lab) -> None:
    server = lab.running()
    lab.nova.kill(server.host or "")
    lab.nova.delete(server)
    lab.wait(3600)
    assert lab.nova.get(server.id).task == "deleting"
    lab.nova.revive(server.host or "")
    lab.wait(1)
    assert status_of(server) == "DELETED"


def test_a_crash_takes_the_guests_along_and_nova_says_nothing(lab: Lab) -> None:
    server = lab.running()
    address = next(iter(server.addresses.values()))
    lab.nova.kill(server.host or "", power=True)
    assert (lab.nova.answers(address), status_of(server)) == (False, "ACTIVE")


def test_a_failed_evacuation_gives_its_capacity_back(lab: Lab) -> None:
    server = lab.running()
    lab.nova.arm(ActionFault(effect="fail", action="evacuate"))
    lab.nova.kill(server.host or "")
    lab.wait(20)
    lab.nova.act(server, "evacuate", admin=True)
    lab.wait(1)
    assert (status_of(server), server.placed_on) == ("ACTIVE", [server.host])
    assert [m.status for m in lab.nova.world.migrations] == ["error"]


def test_an_evacuated_server_counts_twice_until_the_old_host_is_back(lab: Lab) -> None:
    server = lab.running()
    old = lab.nova.host(server.host or "")
    with pytest.raises(Refused, match=f"Compute service of {old.name} is still in use"):
        lab.nova.act(server, "evacuate", admin=True)
    lab.nova.kill(old.name)
    lab.nova.force_down(old, down=True)
    lab.nova.act(server, "evacuate", admin=True, version=(2, 94))
    lab.wait(1)
    assert status_of(server) == "ACTIVE"
    assert server.host != old.name
    assert old.vcpus_used == 1
    with pytest.raises(Refused, match="evacuations") as refused:
        lab.nova.force_down(old, down=False)
    assert refused.value.code == 400
    lab.nova.revive(old.name)
    lab.nova.force_down(old, down=False)
    assert (old.vcpus_used, lab.nova.world.is_up(old)) == (0, True)


def test_fact_7_from_2_95_on_an_evacuated_server_arrives_stopped(lab: Lab) -> None:
    server = lab.running()
    lab.nova.kill(server.host or "")
    lab.wait(20)
    lab.nova.act(server, "evacuate", admin=True, version=(2, 95))
    lab.wait(1)
    assert status_of(server) == "SHUTOFF"


# 12.11


def test_fact_11_while_the_scheduler_is_away_builds_wait_and_then_succeed(lab: Lab) -> None:
    outage = lab.nova.arm(OutageFault(effect="scheduler"))
    server = lab.boot()
    lab.wait(3600)
    assert (status_of(server), server.task) == ("BUILD", "scheduling")
    lab.nova.faults.remove(outage)
    lab.wait()
    assert status_of(server) == "ACTIVE"


# 12.6 and 12.12


def test_fact_6_names_are_regular_expressions_and_not_unique(lab: Lab) -> None:
    lab.boot(name="es-data-1")
    lab.boot(name="es-data-1")
    lab.boot(name="master")
    assert len(lab.nova.select(Query(name="data"))[0]) == 2
    assert len(lab.nova.select(Query(name="^data"))[0]) == 0


def test_fact_6_pages_are_newest_first_and_end(lab: Lab) -> None:
    servers = [lab.boot() for _ in range(5)]
    first, more = lab.nova.select(Query(limit=3))
    second, end = lab.nova.select(Query(limit=3, marker=first[-1].id))
    assert first + second == servers[::-1]
    assert (more, end) == (True, False)


def test_fact_6_a_marker_survives_its_server_but_must_have_been_one(lab: Lab) -> None:
    servers = [lab.boot() for _ in range(3)]
    lab.nova.delete(servers[1])
    assert lab.nova.select(Query(marker=servers[1].id))[0] == [servers[0]]
    with pytest.raises(Refused, match=r"marker \[nope\] not found"):
        lab.nova.select(Query(marker="nope"))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (Query(tags=frozenset({"a", "b"})), ["ab"]),
        (Query(tags_any=frozenset({"a", "b"})), ["b", "ab"]),
        (Query(not_tags=frozenset({"a", "b"})), ["c", "b"]),
        (Query(not_tags_any=frozenset({"a"})), ["c", "b"]),
    ],
    ids=["tags", "tags-any", "not-tags", "not-tags-any"],
)
def test_fact_6_tags_filter(lab: Lab, query: Query, names: list[str]) -> None:
    for name in ("ab", "b", "c"):
        lab.boot(name=name, tags=tuple(name))
    assert [server.name for server in lab.nova.select(query)[0]] == names


def test_fact_6_changes_since_names_deleted_servers_without_their_tags(lab: Lab) -> None:
    """Seen on the real Nova: tags and metadata go with the server, so a tag filter misses it."""
    lab.running(name="old")
    server = lab.running(tags=("a",), metadata={"k": "v"})
    since = lab.nova.world.time.moment()
    lab.nova.delete(server)
    lab.wait()
    assert lab.nova.select(Query(since=since))[0] == [server]
    assert (status_of(server), server.tags, server.metadata) == ("DELETED", (), {})
    assert server.terminated is not None
    assert lab.nova.select(Query(since=since, tags=frozenset({"a"})))[0] == []


def test_fact_6_changes_since_has_the_resolution_of_a_second(lab: Lab) -> None:
    server = lab.running()
    assert lab.nova.select(Query(since=server.updated.replace(microsecond=0)))[0] == [server]
    later = server.updated.replace(microsecond=0) + timedelta(microseconds=1)
    assert lab.nova.select(Query(since=later))[0] == []


def pages(lab: Lab, limit: int) -> list[list[str]]:
    """Names of the servers of each page."""
    found, marker, more = [], None, True
    while more:
        page, more = lab.nova.select(Query(limit=limit, marker=marker))
        found.append([server.name for server in page])
        marker = page[-1].id if page else None
    return found


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        ("cut", [["d", "c"]]),
        ("half", [["c"], ["a"], []]),
        ("duplicates", [["d", "c"], ["c", "b", "a"], ["a"]]),
        ("empty", [[]]),
    ],
)
def test_fact_12_a_listing_can_lie(lab: Lab, effect: str, expected: list[list[str]]) -> None:
    for name in "abcd":
        lab.boot(name=name)
    lab.nova.arm(ListFault.model_validate({"effect": effect}))
    assert pages(lab, 2) == expected


def test_a_post_can_be_accepted_and_come_to_nothing(lab: Lab) -> None:
    lab.nova.arm(SpawnFault(effect="vanish", count=1))
    server = lab.boot()
    lab.wait()
    with pytest.raises(Refused, match="could not be found"):
        lab.nova.get(server.id)
    assert (lab.nova.builds.accepted, lab.nova.world.created) == (1, 0)


def test_a_build_can_hang_and_still_be_deleted(lab: Lab) -> None:
    lab.nova.arm(SpawnFault(effect="hang", name="^stuck"))
    server = lab.boot(name="stuck-1")
    lab.wait(3600)
    assert (status_of(server), server.task) == ("BUILD", "spawning")
    lab.nova.delete(server)
    lab.wait(1)
    assert status_of(server) == "DELETED"


# 12.13


def test_fact_13_throughput_is_bounded() -> None:
    lab = Lab(a_world(timings=Timings(build=(2, 2), builds_at_once=2)))
    servers = [lab.boot() for _ in range(6)]
    active = []
    for _ in range(3):
        lab.wait(2.1)
        active.append(outcomes(servers)[0])
    assert active == [2, 4, 6]


def test_fact_13_a_hypervisor_builds_so_many_at_a_time() -> None:
    lab = Lab(a_world(timings=Timings(build=(2, 2), builds_per_host=1)))
    servers = [lab.nova.create(lab.request(host="r1-h1"), admin=True)[0] for _ in range(2)]
    other = lab.boot()
    lab.wait(2.5)
    assert outcomes([*servers, other]) == (2, 0)
    lab.wait(2)
    assert outcomes(servers) == (2, 0)


def test_fact_13_late_looks_see_what_happened_at_its_own_time(lab: Lab) -> None:
    server = lab.boot()
    begun = server.created
    lab.wait(3600)
    assert server.launched is not None
    assert timedelta(seconds=2) < server.launched - begun < timedelta(seconds=3)


# Guests


def test_a_guest_answers_when_it_has_booted_and_until_it_is_stopped() -> None:
    lab = Lab(a_world(timings=Timings(build=(2, 2), boot=(5, 5), action=(0.4, 0.4))))
    server = lab.boot()
    lab.wait(4)
    address = next(iter(server.addresses.values()))
    assert (status_of(server), lab.nova.answers(address)) == ("ACTIVE", False)
    lab.wait(4)
    assert lab.nova.answers(address)
    lab.nova.act(server, "os-stop")
    lab.wait(1)
    assert not lab.nova.answers(address)


def test_a_guest_can_be_silent_though_nova_sees_nothing(lab: Lab) -> None:
    server = lab.running()
    address = next(iter(server.addresses.values()))
    version = server.version
    lab.nova.set_reachable(server, reachable=False)
    assert (lab.nova.answers(address), server.version) == (False, version)


def test_an_address_has_one_owner_at_a_time(lab: Lab) -> None:
    first, second = lab.running(), lab.running()
    assert first.addresses != second.addresses
    address = next(iter(first.addresses.values()))
    lab.nova.delete(first)
    lab.wait()
    assert not lab.nova.answers(address)
    assert list(lab.running().addresses.values()) == [address]
