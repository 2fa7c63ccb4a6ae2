"""I4 to I6: what became of the servers, by the cloud's own journal and the history of WarmVMs.

- I4: a WarmVM never forgets its server. A server that is left behind without a WarmVM is found and
  deleted: here that is looked at in the end, once the sweeper had its time.
- I5: whoever adds a WarmVM to a pool does not exceed what the pool may have, counted at the very
  revision at which it was added. A build is under way until Nova has built its server, whenever
  somebody comes to write that down. What a replica that leads no more has added late counts for
  nobody there: no plan can have known of it. A server that it is given counts all the same: there
  are never more VMs with servers than the pool may have.
- I6: nothing was asked for a server without our mark.
"""

from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any, Final

from harness.history import Event, moment
from harness.replay import entries_of, removals_of
from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER, Kind

Body = dict[str, Any]

STALE: Final = 15.0
"""Seconds that a replica may work by an old `replicas`: its watch may stand still for so long."""

LEAVING: Final = 2.0
"""Seconds from the decision that a VM goes, or is a claim's, to the revision that shows it."""

YOUNG: Final = 1.0
"""Seconds within which nobody decides that a VM goes but to undo that there are too many."""

ON_ITS_WAY: Final = ("Pending", "Building")

BY_ITSELF: Final = ("active", "gone")
"""Entries of the journal that nobody had asked for."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server that Nova accepted and had. Times are seconds since the epoch."""

    id: str
    name: str
    owner: str
    """Uid of its WarmVM, by its tag."""
    posted: float
    gone: float
    """Infinity: it is still there."""


def servers_of(journal: Iterable[Body], there: AbstractSet[str]) -> list[Server]:
    """All that ever were. `there`: ids of those that Nova has now."""
    posted: dict[str, Body] = {}
    gone: dict[str, float] = {}
    for entry in journal:
        if entry["what"] == "posted":
            posted[entry["server"]] = entry
        elif entry["what"] == "gone":
            gone[entry["server"]] = moment(entry["at"])
    return [
        Server(uid, e["name"], _owner(e), moment(e["at"]), gone.get(uid, float("inf")))
        for uid, e in posted.items()
        if uid in gone or uid in there  # else it vanished before it was one
    ]


def built_at(journal: Iterable[Body]) -> dict[str, float]:
    """When each WarmVM had its first server that was built, by its uid."""
    built: dict[str, float] = {}
    for entry in journal:
        if entry["what"] == "active":
            built.setdefault(_owner(entry), moment(entry["at"]))
    return built


def _owner(entry: Body) -> str:
    tags = [tag for tag in entry["tags"] if tag.startswith(TAG_OWNER)]
    return tags[0].removeprefix(TAG_OWNER) if tags else ""


def untouched(journal: Iterable[Body], installation: str) -> Iterator[str]:
    """I6: what was done to servers without our mark, or posted without it."""
    mark = TAG_INSTALLATION + installation
    for entry in journal:
        if entry["what"] not in BY_ITSELF and mark not in entry["tags"]:
            yield f"I6: {entry['what']} of server {entry['name']}, which has {entry['tags']}"


def left_behind(servers: Iterable[Server], events: Iterable[Event]) -> list[Server]:
    """I4: servers that are there and have no WarmVM."""
    owners = {event.uid for event in events if event.kind is Kind.WARM_VM and not event.gone}
    ended = {event.uid for event in events if event.kind is Kind.WARM_VM and event.gone}
    return [s for s in servers if s.gone == float("inf") and s.owner not in owners - ended]


def forgotten(events: Iterable[Event]) -> Iterator[str]:
    """I4: WarmVMs that named a server, and then none or another."""
    known: dict[str, tuple[str, str]] = {}
    for event in events:
        if event.kind is not Kind.WARM_VM or event.gone:
            continue
        named = (
            event.body["spec"].get("providerID") or "",
            event.body.get("status", {}).get("serverID") or "",
        )
        before = known.setdefault(event.uid, named)
        for old, new in zip(before, named, strict=True):
            if old and old != new:
                name = event.body["metadata"]["name"]
                yield f"I4: r{event.revision}: WarmVM {name} named {old}, now {new or 'none'}"
        known[event.uid] = named


def doubles(servers: Iterable[Server]) -> int:
    """How many servers had another of the same WarmVM beside them: harmless, and to be rare."""
    by_owner: dict[str, list[Server]] = defaultdict(list)
    for server in servers:
        by_owner[server.owner].append(server)
    return sum(
        any(a.posted < b.gone and b.posted < a.gone for a in group if a is not b)
        for group in by_owner.values()
        for b in group
    )


def crowded(servers: Sequence[Server], largest: Mapping[str, int]) -> Iterator[str]:
    """I5: moments at which more of a pool's VMs had servers than it may have. `largest`: by pool.

    A WarmVM that is gone counts as long as its server is there.
    """
    ends: dict[str, list[float]] = defaultdict(list)
    seen: dict[str, tuple[float, float]] = {}
    for server in servers:
        begin, end = seen.get(server.owner, (server.posted, server.gone))
        seen[server.owner] = (min(begin, server.posted), max(end, server.gone))
    named = {server.owner: server.name for server in servers}
    for owner, (begin, end) in sorted(seen.items(), key=lambda item: item[1]):
        pool = named[owner].rpartition("-")[0]
        if pool not in largest:
            continue
        living = ends[pool]
        insort(living, end)
        there = len(living) - bisect_right(living, begin)
        if there > largest[pool]:
            when = datetime.fromtimestamp(begin, UTC)
            yield (
                f"I5: {there} VMs of {pool} had servers, and it may have {largest[pool]}:"
                f" {named[owner]} was one too many at {when:%H:%M:%S.%f}"
            )


@dataclass(slots=True)
class Sizes:
    """I5 in the history: what there was whenever a WarmVM was added. Run it once."""

    events: Sequence[Event]
    late: AbstractSet[str]
    """Names of WarmVMs that were added by a replica that led no more."""
    built: Mapping[str, float] = field(default_factory=dict)
    """When Nova had built the server of each, by the WarmVM's uid."""
    faults: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    _vms: dict[str, Body] = field(default_factory=dict)
    _pools: dict[str, Body] = field(default_factory=dict)
    _taken: frozenset[str] = frozenset()
    """Bound or to be removed, by the ledger's word."""
    _replicas: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    _born: dict[str, float] = field(default_factory=dict)
    _leaves: dict[str, float] = field(default_factory=dict)
    _bound_at: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Look at everything."""
        self._look_ahead()
        for event in self.events:
            match event.kind:
                case Kind.WARM_POOL if not event.gone:
                    self._pool(event)
                case Kind.BINDING_LEDGER if not event.gone:
                    entries = entries_of(event.body).values()
                    bound = {vm for vms in entries for vm in vms}
                    self._taken = frozenset(bound | removals_of(event.body))
                case Kind.WARM_VM:
                    self._vm(event)
                case _:
                    pass

    def _look_ahead(self) -> None:
        """What will be known only later of decisions that were taken before."""
        for event in self.events:
            if event.kind is Kind.WARM_VM:
                if _is_going(event):
                    self._leaves.setdefault(event.uid, event.at)
            elif event.kind is Kind.BINDING_LEDGER and not event.gone:
                for vms in entries_of(event.body).values():
                    for vm in vms:
                        self._bound_at.setdefault(vm, event.at)

    def _pool(self, event: Event) -> None:
        name = event.body["metadata"]["name"]
        self._pools[name] = event.body
        self._replicas[name].append((event.at, event.body["spec"]["replicas"]))

    def _vm(self, event: Event) -> None:
        if event.gone:
            self._vms.pop(event.uid, None)
            return
        new = event.uid not in self._vms
        self._vms[event.uid] = event.body
        if not new:
            return
        self._born[event.uid] = event.at
        self.figures["VMs added"] += 1
        if event.body["metadata"]["name"] in self.late:
            self.figures["VMs added late"] += 1
        else:
            self._judge(event)

    def _judge(self, event: Event) -> None:
        pool = self._pools[event.body["spec"]["poolRef"]["name"]]
        name, spec = pool["metadata"]["name"], pool["spec"]
        there = {
            uid: vm
            for uid, vm in self._vms.items()
            if vm["spec"]["poolRef"]["name"] == name and vm["metadata"]["name"] not in self.late
        }
        self._bound(event, "VMs in all", len(there), spec.get("maxSize"))
        if spec.get("reclaimPolicy") == "Recycle":
            return  # VMs come back to it by themselves, and are built anew beyond its pace
        free = [vm for uid, vm in there.items() if self._counts(uid, vm, event.at)]
        building = sum(
            _phase(vm) in ON_ITS_WAY and self.built.get(uid, inf) > event.at
            for uid, vm in there.items()
            if self._counts(uid, vm, event.at)
        )
        self._bound(event, "unclaimed VMs", len(free), self._target(name, event.at))
        self._bound(event, "builds under way", building, spec.get("maxConcurrent"))

    def _bound(self, event: Event, what: str, number: int, most: int | None) -> None:
        if most is not None and number > most:
            name = event.body["metadata"]["name"]
            self.faults.append(
                f"I5: r{event.revision}: WarmVM {name} makes {number} {what} where {most} may be"
            )

    def _target(self, pool: str, at: float) -> int:
        """The most that `replicas` was, as far back as somebody may still go by it."""
        known = self._replicas[pool]
        old = [n for when, n in known if when < at - STALE][-1:]
        return max([*old, *(n for when, n in known if at - STALE <= when <= at)])

    def _counts(self, uid: str, vm: Body, at: float) -> bool:
        """Unclaimed, and ready or on its way to be, and not about to go."""
        leaves = self._leaves.get(uid, inf)
        bound = self._bound_at.get(uid, inf)
        is_old = self._born.get(uid, 0.0) < at - YOUNG
        return (
            "claimRef" not in vm["spec"]
            and "deletionTimestamp" not in vm["metadata"]
            and uid not in self._taken
            and _phase(vm) in (*ON_ITS_WAY, "Ready")
            and bound > at + LEAVING
            and not (is_old and leaves < at + LEAVING)
        )


def _is_going(event: Event) -> bool:
    return event.gone or "deletionTimestamp" in event.body["metadata"]


def _phase(vm: Body) -> str:
    return str(vm.get("status", {}).get("phase") or "Pending")
