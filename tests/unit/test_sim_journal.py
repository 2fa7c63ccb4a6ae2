"""The journal of the simulated cloud: what was asked for servers, and what became of them."""

from datetime import timedelta

from warmpool.sim.builds import BuildRequest
from warmpool.sim.clock import EPOCH, ManualClock
from warmpool.sim.control import journal
from warmpool.sim.faults import SpawnFault
from warmpool.sim.journal import Entry, Journal
from warmpool.sim.nova import Nova
from warmpool.sim.scenarios import demo


def a_cloud() -> tuple[Nova, ManualClock, BuildRequest]:
    clock = ManualClock()
    nova = Nova(demo(), clock=clock)
    flavor, image = (next(iter(things)) for things in (nova.world.flavors, nova.world.images))
    return nova, clock, BuildRequest("vm", flavor, image, tags=("ours",))


def what(nova: Nova) -> list[str]:
    return [entry["what"] for entry in journal(nova)["entries"]]


def test_a_servers_life_is_written_down_in_order_with_its_tags() -> None:
    nova, clock, request = a_cloud()
    [server] = nova.create(request)
    clock.advance(60)
    nova.act(server, "rebuild", {"imageRef": server.image_id})
    nova.set_metadata(server, {"a": "b"})
    nova.set_tags(server, ("theirs",))
    nova.delete(server)
    clock.advance(60)
    assert what(nova) == ["posted", "active", "rebuild", "metadata", "tags", "delete", "gone"]
    entries = journal(nova)["entries"]
    assert [e["tags"] for e in entries] == [("ours",)] * 5 + [("theirs",)] * 2
    assert {e["server"] for e in entries} == {server.id}
    assert entries[2]["at"] == (EPOCH + timedelta(seconds=60)).isoformat()


def test_a_post_that_vanishes_is_written_down_all_the_same() -> None:
    nova, _, request = a_cloud()
    nova.arm(SpawnFault(effect="vanish"))
    nova.create(request)
    assert what(nova) == ["posted"]


def test_a_server_that_is_gone_by_itself_was_not_deleted() -> None:
    nova, clock, request = a_cloud()
    [server] = nova.create(request)
    clock.advance(60)
    nova.wipe(server)
    assert what(nova) == ["posted", "active", "gone"]


def test_a_server_that_was_never_built_was_never_active() -> None:
    nova, clock, request = a_cloud()
    nova.arm(SpawnFault(effect="abort"))
    nova.create(request)
    clock.advance(60)
    assert what(nova) == ["posted"]


def test_the_oldest_entries_go_and_are_counted() -> None:
    kept = Journal(kept=2)
    for n in range(5):
        kept.add(Entry(EPOCH, "delete", str(n), "vm", ()))
    assert [entry.server for entry in kept.entries()] == ["3", "4"]
    assert kept.dropped == 3
