"""The chaos run's checkers find what they are there to find: one thing wrong in each story.

I1 to I3 are the storm's checker's: see test_storm_checker.py.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from harness import audit
from harness.audit import Write
from harness.history import Event
from harness.leading import Court, Finding, Terms, Trouble, blind_since
from harness.monkey import NAMES, Deed, schedule
from harness.servers import (
    Sizes,
    built_at,
    crowded,
    doubles,
    forgotten,
    left_behind,
    servers_of,
    untouched,
)
from mutations import MUTATIONS, copy, mutate

from warmpool.api.names import LEASE_NAME, TAG_INSTALLATION, TAG_OWNER, Kind

Body = dict[str, Any]
T = 1_800_000_000.0
"""When all stories begin, in seconds since the epoch."""

DEADLINE = 3.0


def stamp(after: float) -> str:
    return datetime.fromtimestamp(T + after, UTC).isoformat()


# -- I7: who wrote, and when --------------------------------------------------------------------

REPLICAS = {"jti-a": "a-1", "jti-b": "b-1"}


def wrote(
    who: str, at: float, what: str = "vmclaims/status", *, code: int = 200, **more: Any
) -> Write:
    return Write(T + at, T + at + 0.01, f"jti-{who}", "patch", what, "ns", "x", code, **more)


def renewed(who: str, at: float, *, asked: float | None = None) -> Write:
    since = T + (at if asked is None else asked)
    return wrote(who, at, "leases", holder=REPLICAS[f"jti-{who}"], renewed=since)


def released(who: str, at: float) -> Write:
    return wrote(who, at, "leases", holder="", renewed=T + at)


def ledger(revision: int, epoch: int, holder: str) -> Event:
    body = {"metadata": {"uid": "l"}, "spec": {"epoch": epoch, "holder": holder}}
    return Event(revision, T, Kind.BINDING_LEDGER, body)


def judged(writes: list[Write], *troubles: Trouble, versions: list[Event] | None = None) -> Finding:
    court = Court(Terms(writes, REPLICAS, DEADLINE), REPLICAS, troubles)
    return court.judge(writes, versions or [])


def trouble(begin: float, end: float, replica: str = "a-", **more: Any) -> Trouble:
    return Trouble(T + begin, T + end, "stop", replica, **more)


def test_a_leader_writes_as_long_as_it_renews() -> None:
    writes = [renewed("a", 0), wrote("a", 1), renewed("a", 2), wrote("a", 4.9)]
    assert judged(writes).faults == []


LATE = [renewed("a", 0), wrote("a", 6)]


def test_a_write_after_the_deadline_is_found() -> None:
    [fault] = judged(LATE).faults
    assert "a-1 asked" in fault
    assert "3.00 s before" in fault


def test_the_deadline_counts_from_when_the_renewal_was_asked_for() -> None:
    assert judged([renewed("a", 3, asked=0), wrote("a", 4.5)]).faults != []


def test_a_renewal_that_was_refused_counts_for_nothing() -> None:
    refused = replace(renewed("a", 2), code=409)
    assert judged([renewed("a", 0), refused, wrote("a", 4.5)]).faults != []


def test_whoever_has_released_the_lease_writes_no_more() -> None:
    assert judged([renewed("a", 0), released("a", 1), wrote("a", 2.5)]).faults != []


def test_a_standby_that_writes_is_found_whatever_befell_it() -> None:
    writes = [renewed("a", 0), wrote("b", 1)]
    assert judged(writes, trouble(0, 9, "b-")).faults != []


def test_a_write_of_nobody_we_know_is_found() -> None:
    assert judged([wrote("c", 1)]).faults != []


@pytest.mark.parametrize(
    ("excuse", "holds"),
    [
        (trouble(2, 5.9), True),
        (trouble(2, 5.9, ""), True),
        (trouble(2, 5.9, "b-"), False),
        (trouble(2, 5.9, delays=False), False),
        (trouble(0, 1.5), False),
        (trouble(6.5, 9), False),
    ],
    ids=["it was stopped", "all were", "another was", "it was killed", "before", "after"],
)
def test_what_was_held_up_is_late_and_no_fault(excuse: Trouble, *, holds: bool) -> None:
    finding = judged(LATE, excuse)
    assert (finding.faults == []) == holds
    assert finding.late == [LATE[1]]


def test_what_the_api_server_received_in_time_and_did_late_is_no_fault_and_late() -> None:
    """Once on a busy machine: 2.6 s for a PATCH."""
    slow = replace(wrote("a", 1.5), done=T + 4.5)
    finding = judged([renewed("a", 0), slow])
    assert (finding.faults, finding.late) == ([], [slow])


def test_a_late_write_that_was_refused_has_done_nothing() -> None:
    finding = judged([renewed("a", 0), wrote("a", 6, code=409)], trouble(2, 5.9))
    assert finding.late == []
    assert finding.figures["late: refused"] == 1


def test_each_epoch_has_one_writer_and_none_comes_back() -> None:
    writes = [renewed("a", 0), wrote("a", 1, "bindingledgers", revision=1)]
    good = [ledger(1, 1, "a-1"), ledger(2, 2, "b-1"), ledger(3, 2, "b-1")]
    assert judged(writes, versions=good).faults == []
    assert "had begun" in judged(writes, versions=[*good, ledger(4, 1, "a-1")]).faults[0]
    assert "both name" in judged(writes, versions=[*good, ledger(4, 2, "a-1")]).faults[0]
    assert "written by a-1" in judged(writes, versions=[ledger(1, 1, "b-1")]).faults[0]


def logged(**more: Any) -> str:
    """A line of an audit log."""
    event: Body = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "verb": "update",
        "user": {"username": "x", "extra": {audit.CREDENTIAL: ["jti-a"]}},
        "objectRef": {"resource": "leases", "namespace": "home", "name": LEASE_NAME},
        "responseStatus": {"code": 200},
        "requestObject": {"spec": {"holderIdentity": "a-1", "renewTime": stamp(0)}},
        "responseObject": {"metadata": {"uid": "u", "resourceVersion": "7"}},
        "requestReceivedTimestamp": stamp(1),
        "stageTimestamp": stamp(1.5),
    }
    return json.dumps(event | more, separators=(",", ":"))


def test_the_audit_log_tells_who_asked_when_and_what_came_of_it() -> None:
    [write] = audit.read(logged())
    assert (write.received, write.done, write.credential) == (T + 1, T + 1.5, "jti-a")
    assert (write.revision, write.holder, write.renewed) == (7, "a-1", T)


def test_other_objects_are_no_lease_and_what_is_gone_has_no_revision() -> None:
    about = {"resource": "warmvms", "namespace": "n", "name": "v", "subresource": "status"}
    gone = {"metadata": {}, "status": "Success"}
    [write] = audit.read(logged(objectRef=about, responseObject=gone))
    assert (write.what, write.holder, write.revision) == ("warmvms/status", None, None)


def test_a_line_that_was_cut_off_costs_no_other() -> None:
    text = f"{logged()}\n{logged()[:80]}{logged()}\n"
    assert len(audit.read(text)) == 2


@pytest.mark.parametrize(
    ("troubles", "since"),
    [
        ([], 10),
        ([trouble(6, 12)], 6),
        ([trouble(6, 12, "")], 6),
        ([trouble(6, 12, "b-")], 10),
        ([trouble(6, 9)], 6),
        ([trouble(3, 6), trouble(6.5, 9)], 3),
        ([trouble(3, 4), trouble(6.5, 9)], 6.5),
        ([trouble(12, 14)], 10),
        ([replace(trouble(6, 12, ""), kind="cloud")], 10),
        ([replace(trouble(6, 12), kind="kill")], 10),
    ],
    ids=[
        "nothing",
        "it was cut off",
        "all were",
        "another was",
        "just before",
        "again before it had caught up",
        "again afterwards",
        "later",
        "the cloud was",
        "its predecessor was killed",
    ],
)
def test_a_replica_that_was_cut_off_has_seen_nothing_since(
    troubles: list[Trouble], since: float
) -> None:
    assert blind_since(troubles, "a-1", T + 10, T + 11) == T + since


# -- I4, I5, I6: servers ------------------------------------------------------------------------


def entry(what: str, server: str, at: float, *, owner: str = "", mark: str = "we") -> Body:
    tags = [f"{TAG_INSTALLATION}{mark}"] if mark else []
    tags += [f"{TAG_OWNER}{owner or server}"] if mark else []
    name = f"data-{owner or server}"
    return {"at": stamp(at), "what": what, "server": server, "name": name, "tags": tags}


def vm(uid: str, revision: float, *, gone: bool = False, **spec: Any) -> Event:
    meta: Body = {"uid": uid, "name": f"data-{uid}"}
    status = {"phase": spec.pop("phase", "Ready"), "serverID": spec.pop("server", "")}
    if spec.pop("leaves", False):
        meta["deletionTimestamp"] = stamp(0)
    body = {"metadata": meta, "spec": {"poolRef": {"name": "data"}, **spec}, "status": status}
    return Event(int(revision), T + revision, Kind.WARM_VM, body, gone)


def pool(revision: int, **spec: Any) -> Event:
    return Event(
        revision, T + revision, Kind.WARM_POOL, {"metadata": {"name": "data"}, "spec": spec}
    )


def test_a_server_is_from_its_post_to_its_end_and_one_that_vanished_never_was() -> None:
    journal = [entry("posted", "s", 1), entry("posted", "v", 1), entry("posted", "t", 2)]
    [first, second] = servers_of([*journal, entry("gone", "s", 5)], {"t"})
    assert (first.owner, first.posted, first.gone) == ("s", T + 1, T + 5)
    assert (second.id, second.gone) == ("t", float("inf"))


def test_a_server_whose_warmvm_is_gone_or_never_was_is_left_behind() -> None:
    servers = servers_of([entry("posted", s, 1) for s in "abc"], set("abc"))
    events = [vm("a", 1), vm("b", 2), vm("b", 3, gone=True)]
    assert [s.id for s in left_behind(servers, events)] == ["b", "c"]


def test_two_servers_of_one_warmvm_at_a_time_are_counted() -> None:
    journal = [entry("posted", "s", 1), entry("posted", "t", 2, owner="s")]
    assert doubles(servers_of(journal, {"s", "t"})) == 2
    assert doubles(servers_of([*journal, entry("gone", "s", 1.5)], {"t"})) == 0


@pytest.mark.parametrize("later", ["", "t"])
def test_a_warmvm_that_forgets_its_server_is_found(later: str) -> None:
    story = [vm("a", 1), vm("a", 2, server="s")]
    assert list(forgotten(story)) == []
    assert len(list(forgotten([*story, vm("a", 3, server=later)]))) == 1


def test_whatever_is_done_to_a_server_without_our_mark_is_found() -> None:
    ours = [entry(what, "s", 1) for what in ("posted", "active", "delete", "gone")]
    assert list(untouched(ours, "we")) == []
    for what, mark in (("delete", ""), ("rebuild", "another"), ("posted", "")):
        assert len(list(untouched([*ours, entry(what, "x", 1, mark=mark)], "we"))) == 1
    assert list(untouched([entry(w, "x", 1, mark="") for w in ("active", "gone")], "we")) == []


def test_more_vms_with_servers_than_the_pool_may_have_are_found() -> None:
    journal = [entry("posted", s, n) for n, s in enumerate("abc")]
    [fault] = crowded(servers_of(journal, set("abc")), {"data": 2})
    assert "3 VMs of data" in fault
    assert "data-c was one too many" in fault
    soon = [*journal, entry("gone", "a", 1.5)]
    assert list(crowded(servers_of(soon, set("bc")), {"data": 2})) == []


def test_two_servers_of_one_warmvm_count_once_for_the_pools_size() -> None:
    journal = [entry("posted", "a", 1), entry("posted", "b", 2, owner="a"), entry("posted", "c", 3)]
    assert list(crowded(servers_of(journal, set("abc")), {"data": 2})) == []


def sized(
    *events: Event, late: frozenset[str] = frozenset(), journal: Sequence[Body] = ()
) -> list[str]:
    sizes = Sizes(events, late, built_at(journal))
    sizes.run()
    return sizes.faults


TWO = (pool(1, replicas=2), vm("a", 2), vm("b", 3))


def test_a_pool_that_is_filled_as_planned_is_right() -> None:
    assert sized(*TWO) == []


def test_one_unclaimed_vm_too_many_is_found() -> None:
    [fault] = sized(*TWO, vm("c", 4))
    assert "data-c makes 3 unclaimed VMs where 2 may be" in fault


@pytest.mark.parametrize(
    "change",
    [
        vm("a", 4, claimRef={"uid": "c"}),
        vm("a", 4, leaves=True),
        vm("a", 4, phase="Failed"),
        vm("a", 4, gone=True),
        pool(4, replicas=3),
    ],
    ids=["claimed", "going", "failed", "gone", "scaled"],
)
def test_room_that_there_is_may_be_filled(change: Event) -> None:
    assert sized(*TWO, change, vm("c", 5)) == []


def test_what_the_ledger_takes_makes_room() -> None:
    bound = json.dumps({"claim": {"uid": "c"}, "vms": [{"uid": "a"}]})
    for spec in ({"entries": [bound]}, {"removals": [{"uid": "a"}]}):
        body = {"metadata": {"uid": "l"}, "spec": spec}
        taken = Event(4, T + 4, Kind.BINDING_LEDGER, body)
        assert sized(*TWO, taken, vm("c", 5)) == []


def test_what_is_being_bound_makes_room_already() -> None:
    """A pool fills up while the commit of the binding is on its way."""
    bound = json.dumps({"claim": {"uid": "c"}, "vms": [{"uid": "a"}]})
    body = {"metadata": {"uid": "l"}, "spec": {"entries": [bound]}}
    soon, later = (Event(9, T + at, Kind.BINDING_LEDGER, body) for at in (5, 9))
    assert sized(*TWO, vm("c", 4), soon) == []
    assert len(sized(*TWO, vm("c", 4), later)) == 1


def test_an_old_size_counts_for_as_long_as_a_watch_may_stand_still() -> None:
    shrunk = pool(4, replicas=1)
    assert sized(*TWO, shrunk, vm("a", 5, gone=True), vm("c", 6)) == []
    assert len(sized(*TWO, shrunk, vm("a", 5, gone=True), vm("c", 40))) == 1


def test_what_was_added_late_counts_for_nobody() -> None:
    assert sized(*TWO, vm("c", 4), late=frozenset({"data-c"})) == []
    late = frozenset({"data-b"})
    assert sized(*TWO, vm("c", 4), late=late) == []
    assert len(sized(*TWO, vm("c", 4), vm("d", 5), late=late)) == 1


def test_too_many_in_all_and_too_many_builds_are_found() -> None:
    first = vm("a", 2, claimRef={"uid": "c"})
    small = pool(1, replicas=9, maxSize=1)
    assert "2 VMs in all" in sized(small, first, vm("b", 3))[0]
    slow = pool(1, replicas=9, maxConcurrent=1)
    assert "2 builds" in sized(slow, vm("a", 2, phase="Building"), vm("b", 3, phase="Pending"))[0]


def test_a_build_that_nova_has_ended_makes_room_however_late_that_is_written() -> None:
    """The API server was away for five seconds, and who led saw what Nova had built."""
    slow = pool(1, replicas=9, maxConcurrent=1)
    story = slow, vm("a", 2, phase="Building"), vm("b", 9, phase="Pending")
    assert sized(*story, journal=[entry("active", "a", 8.5)]) == []
    assert len(sized(*story, journal=[entry("active", "a", 9.5)])) == 1
    assert len(sized(*story, vm("a", 9.5, phase="Ready"))) == 1, "its word counts for nothing"


def test_the_first_server_that_is_built_is_the_end_of_a_build() -> None:
    journal = [entry("active", "s", 3, owner="a"), entry("active", "t", 8, owner="a")]
    assert built_at(journal) == {"a": T + 3}


# -- the monkey ---------------------------------------------------------------------------------


def deeds_of(seconds: float, names: Sequence[str] = NAMES) -> list[Deed]:
    return schedule(random.Random(5), seconds, names)  # noqa: S311 - a test's choices


def test_a_schedule_comes_from_its_seed_alone_and_has_a_bit_of_everything() -> None:
    one, two = deeds_of(600), deeds_of(600)
    assert one == two
    assert {deed.what for deed in one} == set(NAMES)
    assert all(deed.at < 600 for deed in one)


def test_a_schedule_of_some_deeds_has_no_others() -> None:
    assert {deed.what for deed in deeds_of(100, ["kill", "lag"])} == {"kill", "lag"}


# -- mutations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_still_applies(name: str, tmp_path: Path) -> None:
    copy(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    mutate([name], tmp_path)
    changed = [p for p, content in before.items() if p.read_bytes() != content]
    assert {str(p.relative_to(tmp_path)) for p in changed} == {
        change.file for change in MUTATIONS[name].changes
    }
    for path in changed:
        if path.suffix == ".py":
            compile(path.read_text(encoding="utf-8"), path.name, "exec")
