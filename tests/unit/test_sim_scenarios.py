"""Worlds by name and from files, and the faults and commands that come as JSON."""

import argparse
from pathlib import Path

import pytest

from warmpool.cli.novasim import add_parser, world
from warmpool.sim.builds import BuildRequest
from warmpool.sim.clock import ManualClock
from warmpool.sim.control import execute, parse_command, state
from warmpool.sim.errors import Refused
from warmpool.sim.faults import ApiFault, Faults, parse_fault
from warmpool.sim.http_control import Preload, preload
from warmpool.sim.listing import Query
from warmpool.sim.nova import Nova
from warmpool.sim.scenarios import WorldInvalid, load, parse
from warmpool.sim.world import Server

WORLD = """
hosts:
- {zone: az1, rack: r1, count: 2, vcpus: 8}
flavors: [{name: small, vcpus: 2, ram_mb: 1024}]
images: [{name: debian}]
timings: {build: 1..3, delete: 2, action: [1, 2]}
"""


def test_a_world_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(WORLD)
    spec = load(str(file))
    assert spec.timings.build == (1, 3)
    assert (spec.timings.delete, spec.timings.action) == ((2, 2), (1, 2))
    assert list(Nova(spec, clock=ManualClock()).world.hosts) == ["r1-h1", "r1-h2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hosts: []", "hosts: Tuple should have at least 1 item"),
        (WORLD + "oops: 1", "oops: Extra inputs are not permitted"),
        (WORLD.replace("1..3", "3..1"), "the range ends before it begins"),
        (WORLD.replace("1..3", "soon"), "timings.build"),
        ("{", "world: while parsing"),
        ("7", "the file: Input should be a valid dictionary"),
    ],
    ids=["no-hosts", "unknown-key", "range", "no-number", "no-yaml", "no-mapping"],
)
def test_a_wrong_world_says_where(text: str, complaint: str) -> None:
    with pytest.raises(WorldInvalid, match=complaint):
        parse(text)


def test_an_unknown_scenario_is_told_with_those_that_there_are() -> None:
    with pytest.raises(WorldInvalid, match="choose tiny, demo, big, or a file"):
        load("nonesuch")
    with pytest.raises(WorldInvalid, match="No such file"):
        load("nonesuch.yaml")


def test_big_is_500_hypervisors_in_40_racks() -> None:
    hosts = Nova(load("big"), clock=ManualClock()).world
    assert (len(hosts.hosts), len(hosts.racks())) == (500, 40)


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "nonesuch"},
        {"kind": "api"},
        {"kind": "api", "effect": "status", "path": "("},
        {"kind": "api", "effect": "status", "status": 200},
        {"kind": "spawn", "effect": "fail", "oops": 1},
        {"kind": "outage", "effect": "scheduler", "count": 1},
    ],
)
def test_a_wrong_fault_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_fault(document)


def test_an_api_fault_lets_some_through_and_ends_by_count_or_time() -> None:
    now = 0.0
    faults = Faults(lambda: now)
    faults.add(ApiFault(effect="status", method="^POST$", path="/servers$", skip=1, count=2))
    faults.add(ApiFault(effect="drop", path="/limits", seconds=10))
    posts = [bool(faults.api("POST", "/compute/v2.1/servers")) for _ in range(4)]
    assert posts == [False, True, True, False]
    assert not faults.api("GET", "/compute/v2.1/servers")
    assert faults.api("GET", "/limits")
    now = 10.0
    assert not faults.api("GET", "/limits")


def test_delays_add_up_before_what_ends_the_call() -> None:
    faults = Faults(lambda: 0.0)
    for effect in ("slow", "slow", "status", "drop"):
        faults.add(ApiFault.model_validate({"effect": effect}))
    assert [fault.effect for fault in faults.api("GET", "/")] == ["slow", "slow", "status"]


@pytest.fixture
def nova() -> Nova:
    return Nova(load("demo"), clock=ManualClock())


def preloaded(nova: Nova, count: int = 1) -> list[Server]:
    world = nova.world
    flavor, image = next(iter(world.flavors)), next(iter(world.images))
    return nova.preload(count, BuildRequest("vm", flavor, image, networks=None, tags=("a",)))


def do(nova: Nova, **command: object) -> None:
    execute(nova, parse_command(command))


def test_preloaded_servers_are_active_and_spread(nova: Nova) -> None:
    servers = preloaded(nova, 16)
    assert {server.vm_state for server in servers} == {"active"}
    assert sorted({len(nova.select(Query(equals={"host": h}))[0]) for h in nova.world.hosts}) == [2]


def test_preloaded_servers_may_be_numbered_by_their_tags(nova: Nova) -> None:
    preload(nova, Preload(count=3, tags=("a", "vm={n}")))
    tags = [server.tags for server in nova.world.servers.values()]
    assert tags == [("a", "vm=0"), ("a", "vm=1"), ("a", "vm=2")]


def test_things_can_be_done_to_a_server_behind_everybodys_back(nova: Nova) -> None:
    (server,) = preloaded(nova)
    do(nova, do="server", server=server.id, change="rename", to="other")
    do(nova, do="server", server=server.id, change="move", to="r4-h2")
    do(nova, do="server", server=server.id, change="untag")
    do(nova, do="server", server=server.id, change="silence")
    (seen,) = state(nova)["servers"]
    assert (seen["name"], seen["host"], seen["rack"]) == ("other", "r4-h2", "r4")
    assert (seen["tags"], seen["answers"]) == ((), False)
    do(nova, do="server", server=server.id, change="unsilence")
    assert state(nova)["servers"][0]["answers"]
    do(nova, do="server", server=server.id, change="wipe")
    assert state(nova)["deleted"] == [server.id]
    with pytest.raises(Refused):
        do(nova, do="server", server=server.id, change="wipe")


def test_quota_hosts_and_images_can_be_changed_at_run_time(nova: Nova) -> None:
    do(nova, do="quota", instances=3)
    assert (nova.project().quota.instances, nova.project().quota.cores) == (3, 4000)
    do(nova, do="host", host="r1-h1", change="disable")
    do(nova, do="host", host="r1-h2", change="force-down")
    rows = {row["name"]: row for row in state(nova)["hosts"]}
    assert (rows["r1-h1"]["disabled"], rows["r1-h2"]["up"]) == (True, False)
    do(nova, do="forget", kind="image", name="debian-13")
    assert "debian-13" not in {image.name for image in nova.world.images.values()}
    do(nova, do="restore")
    assert "debian-13" in {image.name for image in nova.world.images.values()}
    with pytest.raises(Refused, match="there is no flavor 'nonesuch'"):
        do(nova, do="forget", kind="flavor", name="nonesuch")


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["novasim", *given])


def test_arguments_change_the_scenario() -> None:
    spec = world(arguments("--build-seconds", "4..5", "--guest-port", "2223"))
    assert (spec.timings.build, spec.guests.port, spec.guests.listen) == ((4, 5), 2223, True)
    assert not world(arguments("--no-guests")).guests.listen


def test_arguments_that_make_no_world_are_told() -> None:
    with pytest.raises(WorldInvalid, match="the range ends before it begins"):
        world(arguments("--build-seconds", "5..4"))
    with pytest.raises(WorldInvalid, match="port: Input should be less than"):
        world(arguments("--guest-port", "70000"))
