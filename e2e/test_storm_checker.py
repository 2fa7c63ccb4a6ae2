"""The storm's checker finds what it is there to find: forged histories, one thing wrong in each."""

import json
from typing import Any

import pytest
from harness.feasible import Spot, feasible
from harness.history import Event
from harness.replay import Replay

from warmpool.api.names import Kind

Body = dict[str, Any]
BORN = "2026-01-01T00:00:00Z"
AT = 1767225600.0
"""The same, in seconds since the epoch."""


def meta(uid: str) -> Body:
    return {"uid": uid, "name": uid, "namespace": "ns", "creationTimestamp": BORN}


def vm(uid: str, rack: str, owner: str = "", phase: str = "Ready") -> tuple[Kind, Body]:
    spec: Body = {"poolRef": {"name": "data"}}
    if owner:
        spec["claimRef"] = {"uid": owner, "name": owner}
    status = {"phase": phase, "serverID": f"s-{uid}", "rack": rack, "hypervisor": f"{rack}-h"}
    return Kind.WARM_VM, {"metadata": meta(uid), "spec": spec, "status": status}


def claim(uid: str, count: int, status: Body | None = None, **spec: Any) -> tuple[Kind, Body]:
    requests = [{"name": "r", "pool": {"name": "data"}, "count": count}]
    whole = {"requests": requests, **spec}
    return Kind.VM_CLAIM, {"metadata": meta(uid), "spec": whole, "status": status or {}}


def bound(**racks: str) -> Body:
    """A status with these VMs, by name, in these racks."""
    vms = [
        {
            "uid": uid,
            "name": uid,
            "request": "r",
            "serverID": f"s-{uid}",
            "rack": rack,
            "hypervisor": f"{rack}-h",
        }
        for uid, rack in racks.items()
    ]
    return {"phase": "Bound", "allocation": {"vms": vms}}


def refused(reason: str = "NotEnoughReady", message: str = "too few") -> Body:
    return {"phase": "Failed", "shortfall": {"reason": reason, "message": message}}


def ledger(epoch: int = 1, **entries: str) -> tuple[Kind, Body]:
    """A ledger with the VMs of each claim: `ledger(c="v1 v2")`."""
    listed = [
        json.dumps({"claim": {"uid": uid, "name": uid}, "vms": [{"uid": v} for v in vms.split()]})
        for uid, vms in entries.items()
    ]
    return Kind.BINDING_LEDGER, {
        "metadata": meta("bindings"),
        "spec": {"epoch": epoch, "entries": listed},
    }


Story = list[tuple[Kind, Body]]

BEGIN: Story = [ledger(), vm("v1", "r1"), vm("v2", "r2"), vm("v3", "r2")]
COMMITTED: Story = [*BEGIN, claim("c", 2), ledger(c="v1 v2")]
BOUND: Story = [*COMMITTED, claim("c", 2, bound(v1="r1", v2="r2"))]
SETTLED: Story = [*BOUND, vm("v1", "r1", "c"), vm("v2", "r2", "c"), ledger()]


def faults(story: Story, reserve: int = 0) -> list[str]:
    events = [Event(r, AT + r, kind, body) for r, (kind, body) in enumerate(story, 1)]
    return Replay(events, {"data": reserve}).run().faults


GOOD: dict[str, Story] = {
    "bound and settled": SETTLED,
    "refused for more than there is": [*BEGIN, claim("c", 4), claim("c", 4, refused())],
    "refused after another took them": [*SETTLED, claim("d", 2), claim("d", 2, refused())],
    "refused behind another of the same commit": [
        *BEGIN,
        claim("c", 2),
        claim("d", 2),
        ledger(c="v1 v2"),
        vm("v4", "r3"),
        claim("d", 2, refused()),
        *SETTLED[6:],
    ],
    "refused, and could be had a moment before or after": [
        *SETTLED,
        vm("v3", "r2", phase="Building"),
        claim("d", 1),
        claim("d", 1, refused()),
        vm("v3", "r2"),
    ],
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_history_as_it_must_be_has_no_faults(kind: str) -> None:
    assert faults(GOOD[kind]) == []


BAD: dict[str, tuple[Story, str]] = {
    "half a claim": ([*COMMITTED, claim("c", 2, bound(v1="r1"))], "asked for"),
    "one VM in two claims": (
        [*SETTLED, claim("d", 1), ledger(d="v1"), claim("d", 1, bound(v1="r1"))],
        "is in claims",
    ),
    "committed although taken": ([*SETTLED, claim("d", 1), ledger(d="v1")], "was not free"),
    "twice in the ledger": ([*COMMITTED, claim("d", 1), ledger(c="v1 v2", d="v2")], "in 2 entries"),
    "an allocation that changes": (
        [*BOUND, claim("c", 2, bound(v1="r1", v3="r2"))],
        "allocation has changed",
    ),
    "bound, then failed": ([*BOUND, claim("c", 2, refused())], "went from Bound to Failed"),
    "bound without a commit": (
        [*BEGIN, claim("c", 2), claim("c", 2, bound(v1="r1", v2="r2"))],
        "not bound to what was committed",
    ),
    "a limit that does not hold": (
        [
            *BEGIN,
            claim("c", 2, mode="RackAware"),
            ledger(c="v2 v3"),
            claim("c", 2, bound(v2="r2", v3="r2"), mode="RackAware"),
        ],
        "does not hold",
    ),
    "an allocation that lies": (
        [*COMMITTED, claim("c", 2, bound(v1="r9", v2="r2"))],
        "not as the allocation has it",
    ),
    "a claimRef that was never committed": ([*BEGIN, vm("v1", "r1", "c")], "never committed"),
    "a claimRef that changes hands": ([*SETTLED, vm("v1", "r1", "d")], "claimRef went from"),
    "forgotten before it is settled": ([*BOUND, ledger()], "does not name it"),
    "a takeover that loses a binding": ([*COMMITTED, ledger(2)], "does not carry"),
    "refused although there were enough": (
        [*BEGIN, claim("c", 3), claim("c", 3, refused())],
        "could be had all the time",
    ),
    "refused although placed it could be": (
        [*BEGIN, claim("c", 2, mode="RackAware"), claim("c", 2, refused(), mode="RackAware")],
        "could be had all the time",
    ),
    "held back by nobody": (
        [
            *BEGIN,
            claim("c", 1),
            claim("c", 1, refused(message="the rest is kept for claims that wait before it")),
        ],
        "could be had all the time",
    ),
    "never answered": ([*BEGIN, claim("c", 1)], "never answered"),
    "a VM that is nobody's": ([*BEGIN, claim("c", 1), vm("v1", "r1", "c")], "is nobody's"),
    "left in the ledger": (BOUND, "left in the ledger"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_found(kind: str) -> None:
    story, said = BAD[kind]
    assert any(said in fault for fault in faults(story)), faults(story)


def test_a_server_that_moves_breaks_no_limit_of_its_claim() -> None:
    apart: Body = {"constraints": [{"domain": "rack", "maxPerDomain": 1}]}
    begun = [*BEGIN, claim("c", 2, **apart), ledger(c="v1 v2")]
    fine = [*begun, claim("c", 2, bound(v1="r1", v2="r2"), **apart)]
    settled = [vm("v1", "r1", "c"), vm("v2", "r2", "c"), ledger()]
    moved = [vm("v2", "r1", "c"), claim("c", 2, bound(v1="r1", v2="r1"), **apart)]
    assert faults([*fine, *settled]) == []
    assert [f for f in faults([*fine, *settled, *moved]) if "does not hold" in f] == []
    together = claim("c", 2, bound(v1="r1", v2="r1"), **apart)
    assert [f for f in faults([*begun, together]) if "does not hold" in f] != []


def test_the_reserve_is_none_of_an_ordinary_claims() -> None:
    story = [*BEGIN, claim("c", 2), claim("c", 2, refused())]
    assert faults(story, reserve=2) == []
    urgent = [*BEGIN, claim("c", 2, priority=1000), claim("c", 2, refused(), priority=1000)]
    assert faults(urgent, reserve=2) != []


def test_a_claim_that_waits_holds_the_next_one_back() -> None:
    waits: Body = {"onUnsatisfied": "Wait", "timeout": "5s"}
    held = refused(message="2 are ready; the rest is kept for claims that wait before it")
    story = [*BEGIN, claim("c", 4, **waits), claim("d", 1), claim("d", 1, held)]
    given_up = claim("c", 4, refused("TimedOut"), **waits)
    assert faults([*story, given_up]) == []


def test_who_was_cut_off_refuses_by_what_it_has_seen_last() -> None:
    """v3 became ready while its leader's network swallowed everything."""
    story = [
        *SETTLED,
        vm("v3", "r2", phase="Building"),
        vm("v3", "r2"),
        *[vm("v1", "r1", "c")] * 3,
        claim("d", 1),
        claim("d", 1, refused()),
    ]
    events = [Event(r, AT + r, kind, body) for r, (kind, body) in enumerate(story, 1)]
    cut = events[len(SETTLED) + 1].at

    def verdict(since: float) -> list[str]:
        return Replay(events, {}, None, lambda *_: since).run().faults

    assert verdict(cut + 2) != []
    assert verdict(cut) == []


def test_who_was_cut_off_before_it_took_over_has_looked_then() -> None:
    story = [
        ledger(),
        vm("v1", "r1", phase="Building"),
        vm("v1", "r1"),
        ledger(2),
        *[vm("v1", "r1")] * 3,
        claim("c", 1),
        claim("c", 1, refused()),
    ]
    events = [Event(r, AT + r, kind, body) for r, (kind, body) in enumerate(story, 1)]
    assert Replay(events, {}, None, lambda *_: AT).run().faults != []


SPOTS = {("data", Spot("z", f"r{n}", f"h{n}")): 2 for n in range(3)}


@pytest.mark.parametrize(
    ("count", "limit", "possible"),
    [
        (6, {}, True),
        (7, {}, False),
        (3, {"maxPerDomain": 1}, True),
        (4, {"maxPerDomain": 1}, False),
        (4, {"minDomains": 3}, True),
        (2, {"minDomains": 3}, False),
        (5, {"maxSkew": 0}, False),
        (5, {"maxSkew": 1}, True),
        (4, {"maxSkew": 0, "minDomains": 2}, True),
        (4, {"maxSkew": 0, "minDomains": 3}, False),
    ],
)
def test_the_solver_reads_limits_by_their_words(count: int, limit: Body, possible: bool) -> None:
    constraints = [{"domain": "rack", **limit}] if limit else []
    _, body = claim("c", count, constraints=constraints)
    assert feasible(body["spec"], SPOTS, {}) == possible
