"""Holds the recorded history of a storm against what must always hold, revision by revision.

A refusal is judged by when it may have been decided. That is not before the claim was there, nor
before the leader that wrote it had taken over, and not after its status was written; the watch of
the operator may be `LAG` behind, or as far as it was cut off by what was done to it, but never
behind its takeover, at which it has looked for itself. It is wrong if the claim could have been had
at every moment of that time, even without the VMs that claims before it got in the same commit.
"""

import json
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.feasible import Free, Spot, feasible, keeps, limits_of
from harness.history import Event, moment
from warmpool.api.names import Kind

Body = dict[str, Any]

LAG: Final = 0.5
"""Seconds that the operator's watch of VMs may be behind its watch of claims."""

HELD_BACK: Final = "is kept for claims that wait before it"
"""What the refusal of a claim says that may not pass others."""

RESERVE_PRIORITY: Final = 1000

Blindness = Callable[[str, float, float], float]
"""Since when a replica may have seen nothing, of those moments between two at which it was cut off;
the first of them, if it was not."""


def _sees(_: str, since: float, __: float) -> float:
    return since


@dataclass(slots=True)
class Commit:
    """One write of the ledger that added bindings."""

    revision: int
    vms: dict[str, list[str]]
    """VMs of each claim that it added, by uid."""


@dataclass(slots=True)
class Verdict:
    """What a replay found."""

    faults: list[str] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)
    answered: dict[str, float] = field(default_factory=dict)
    """When each claim's answer was seen, by uid."""


@dataclass(slots=True)
class State:
    """What the API server shows at one revision."""

    claims: dict[str, Body] = field(default_factory=dict)
    vms: dict[str, Body] = field(default_factory=dict)
    ledger: dict[str, list[str]] = field(default_factory=dict)
    """VMs of each committed binding, by the claim's uid."""
    in_ledger: frozenset[str] = frozenset()
    epoch: int = 0

    def is_free(self, uid: str) -> bool:
        vm = self.vms[uid]
        return (
            vm.get("status", {}).get("phase") == "Ready"
            and "claimRef" not in vm["spec"]
            and "deletionTimestamp" not in vm["metadata"]
            and uid not in self.in_ledger
        )


class Replay:
    """Replays one history."""

    def __init__(
        self,
        events: Sequence[Event],
        reserves: Mapping[str, int],
        writers: Mapping[int, str] | None = None,
        blind_since: Blindness = _sees,
    ) -> None:
        """Take a history.

        Args:
            events: in any order.
            reserves: of each pool.
            writers: the replica that wrote a revision, where it is known; None: who led last did.
            blind_since: what had befallen the watches of a replica.
        """
        self._events = sorted(events, key=lambda event: event.revision)
        self._reserves = reserves
        self._writers = writers
        self._blind_since = blind_since
        self._state = State()
        self._verdict = Verdict()
        self._revisions: list[int] = []
        self._times: list[float] = []
        self._free: list[frozenset[str]] = []
        """Free VMs after each revision at which they changed."""
        self._spots: dict[str, tuple[str, Spot]] = {}
        self._commits: list[Commit] = []
        self._takeovers: list[tuple[int, str]] = []
        """Revisions, and who has taken over."""
        self._holders: dict[str, str] = {}
        """The live claim that each VM was shown bound to."""
        self._created: dict[str, Event] = {}
        self._answered: dict[str, Event] = {}
        self._committed: dict[str, list[str]] = {}
        """Every binding that was ever committed."""

    def run(self) -> Verdict:
        """Look at everything."""
        for event in self._events:
            match event.kind:
                case Kind.VM_CLAIM:
                    self._claim(event)
                case Kind.WARM_VM:
                    self._vm(event)
                case Kind.BINDING_LEDGER:
                    self._ledger(event)
                case Kind.WARM_POOL | Kind.VM_FLAVOR:
                    continue
            self._owners(event)
            self._note_free(event)
        for uid, answer in self._answered.items():
            if answer.body["status"]["phase"] == "Failed":
                self._refusal(uid, answer)
        self._account()
        return self._verdict

    def _fault(self, event: Event, text: str) -> None:
        name = event.body["metadata"]["name"]
        self._verdict.faults.append(f"r{event.revision} {event.kind} {name}: {text}")

    # -- what each event may be ---------------------------------------------------------------

    def _claim(self, event: Event) -> None:
        before = self._state.claims.get(event.uid)
        if event.gone:
            self._state.claims.pop(event.uid, None)
            self._verdict.figures["deleted"] += 1
            self._holders = {vm: uid for vm, uid in self._holders.items() if uid != event.uid}
            return
        self._state.claims[event.uid] = event.body
        self._created.setdefault(event.uid, event)
        phase = _phase(event.body)
        if phase != "Pending" and event.uid not in self._answered:
            self._answered[event.uid] = event
            self._verdict.answered[event.uid] = event.at
            self._verdict.figures[phase.lower()] += 1
        if phase == "Bound":
            self._bound(event, new=before is None or _phase(before) != "Bound")
        elif "allocation" in event.body.get("status", {}):
            self._fault(event, f"{phase} with an allocation")
        self._unchanged(event, before)

    def _unchanged(self, event: Event, before: Body | None) -> None:
        old, new = (b.get("status", {}) if b else {} for b in (before, event.body))
        if "allocation" in old and old["allocation"] != new.get("allocation"):
            self._fault(event, "its allocation has changed")
        if old.get("phase", "Pending") not in {"Pending", new.get("phase")}:
            self._fault(event, f"it went from {old['phase']} to {new.get('phase')}")

    def _bound(self, event: Event, *, new: bool) -> None:
        """All its VMs, and when it gets them where it asked for them: servers move afterwards."""
        spec, allocation = event.body["spec"], event.body["status"]["allocation"]
        vms = allocation["vms"]
        asked = {request["name"]: request["count"] for request in spec["requests"]}
        if Counter(vm["request"] for vm in vms) != asked or len({v["uid"] for v in vms}) != len(
            vms
        ):
            self._fault(event, f"asked for {asked}, has {[v['request'] for v in vms]}")
        pools = {request["name"]: request["pool"]["name"] for request in spec["requests"]}
        for vm in vms:
            known = self._state.vms.get(vm["uid"])
            if known is None:
                self._fault(event, f"{vm['name']} is not there")
            elif (pools[vm["request"]], _described(known)) != (_pool(known), _described_in(vm)):
                self._fault(event, f"{vm['name']} is not as the allocation has it")
        placed = [(vm["request"], _spot_in(vm)) for vm in vms]
        for limit in limits_of(spec):
            if new and not keeps(limit, placed):
                self._fault(event, f"{limit} does not hold for {placed}")
        self._holders.update((vm["uid"], event.uid) for vm in vms)
        if {vm["uid"] for vm in vms} != set(self._committed.get(event.uid, ())):
            self._fault(event, "it is not bound to what was committed")

    def _vm(self, event: Event) -> None:
        if event.uid in self._holders and (event.gone or not _is_well(event.body)):
            self._fault(
                event, f"it goes, or is not ready, while claim {self._holders[event.uid]} is"
            )
        if event.gone:
            self._state.vms.pop(event.uid, None)
            return
        old = self._state.vms.get(event.uid, {}).get("spec", {}).get("claimRef")
        new = event.body["spec"].get("claimRef")
        self._state.vms[event.uid] = event.body
        self._spots[event.uid] = (_pool(event.body), _spot(event.body))
        if new is None or new == old:
            return
        if old is not None:
            self._fault(event, f"its claimRef went from {old['name']} to {new['name']}")
        if event.uid not in self._committed.get(new["uid"], ()):
            self._fault(event, f"it was never committed to {new['name']}")

    def _ledger(self, event: Event) -> None:
        spec, state = event.body["spec"], self._state
        entries = entries_of(event.body)
        if spec["epoch"] != state.epoch:
            if spec["epoch"] < state.epoch or entries != state.ledger:
                self._fault(event, f"epoch {spec['epoch']} does not carry {state.epoch} on")
            self._takeovers.append((event.revision, spec.get("holder", "")))
            self._verdict.figures["takeovers"] += 1
            state.epoch = spec["epoch"]
        added = {uid: vms for uid, vms in entries.items() if uid not in state.ledger}
        for uid in state.ledger.keys() - entries.keys():
            self._dropped(event, uid, state.ledger[uid])
        kept = [vm for uid, vms in entries.items() if uid not in added for vm in vms]
        state.in_ledger = frozenset(kept)
        self._added(event, added)
        counts = Counter(vm for vms in entries.values() for vm in vms)
        for vm, count in counts.items():
            if count > 1:
                self._fault(event, f"VM {vm} is in {count} entries")
        state.ledger, state.in_ledger = entries, frozenset(counts) | removals_of(event.body)

    def _added(self, event: Event, added: Mapping[str, list[str]]) -> None:
        for uid, vms in added.items():
            if uid in self._committed:
                self._fault(event, f"claim {uid} is committed twice")
            self._committed[uid] = list(vms)
            for vm in vms:
                if vm not in self._state.vms or not self._state.is_free(vm):
                    self._fault(event, f"VM {vm} was not free when it was committed to {uid}")
        if added:
            self._commits.append(Commit(event.revision, dict(added)))
            self._verdict.figures["commits"] += 1

    def _dropped(self, event: Event, uid: str, vms: Sequence[str]) -> None:
        """What a live claim has is only forgotten once it stands on the VMs."""
        if uid not in self._state.claims:
            return
        for vm in vms:
            body = self._state.vms.get(vm)
            if body is not None and body["spec"].get("claimRef", {}).get("uid") != uid:
                self._fault(event, f"dropped claim {uid}, but VM {vm} does not name it")

    # -- what must hold at every revision -----------------------------------------------------

    def _owners(self, event: Event) -> None:
        """No VM in two claims, by whatever a reader can see."""
        if event.kind is Kind.WARM_VM and event.gone:
            return
        owners: dict[str, str] = {}
        for uid, claim in self._state.claims.items():
            for vm in claim.get("status", {}).get("allocation", {}).get("vms", ()):
                other = owners.setdefault(vm["uid"], uid)
                if other != uid:
                    self._fault(event, f"VM {vm['name']} is in claims {uid} and {other}")
        for uid, vm in self._state.vms.items():
            ref = vm["spec"].get("claimRef")
            if ref is not None and owners.get(uid, ref["uid"]) != ref["uid"]:
                self._fault(event, f"VM {vm['metadata']['name']} names another claim than it is in")

    def _note_free(self, event: Event) -> None:
        if event.kind is Kind.VM_CLAIM:
            return
        free = frozenset(uid for uid in self._state.vms if self._state.is_free(uid))
        if not self._free or free != self._free[-1]:
            self._revisions.append(event.revision)
            self._times.append(event.at)
            self._free.append(free)

    # -- refusals -----------------------------------------------------------------------------

    def _refusal(self, uid: str, answer: Event) -> None:
        claim, figures = answer.body, self._verdict.figures
        reason = claim["status"]["shortfall"]["reason"]
        figures[f"refused {reason}"] += 1
        first, fair = self._window(uid, answer, reason)
        last = bisect_left(self._revisions, answer.revision) - 1
        held = HELD_BACK in claim["status"]["shortfall"]["message"]
        figures["refused: held back"] += held
        for at in range(last, first - 1, -1):
            if self._short_at(at, answer, held=held):
                figures["refused: only true within the lag"] += at < fair
                return
        self._fault(answer, f"refused ({reason}), and could be had all the time: {claim['spec']}")

    def _window(self, uid: str, answer: Event, reason: str) -> tuple[int, int]:
        """The first moment of the decision, with the lag and without."""
        created = self._created[uid]
        takeover, writer = self._takeover(answer.revision)
        fair = bisect_right(self._revisions, max(created.revision, takeover)) - 1
        seen = created.at
        if reason == "TimedOut":
            stamp = moment(answer.body["metadata"]["creationTimestamp"])
            seen = stamp + float(answer.body["spec"]["timeout"].removesuffix("s"))
            fair = max(fair, bisect_right(self._times, seen) - 1)
        blind = self._blind_since(writer, seen, answer.at)
        blind_at = bisect_right(self._times, blind - LAG) - 1
        looked_at = bisect_right(self._revisions, takeover) - 1
        lagging = min(bisect_right(self._times, seen - LAG) - 1, max(blind_at, looked_at))
        return max(0, min(fair, lagging)), fair

    def _takeover(self, revision: int) -> tuple[int, str]:
        """When the leader that wrote a revision had taken over, or 0: a late one's may be old."""
        before = [t for t in self._takeovers if t[0] <= revision]
        if self._writers is None:
            return before[-1]
        writer = self._writers.get(revision, "")
        return max((at for at, holder in before if holder == writer), default=0), writer

    def _short_at(self, at: int, answer: Event, *, held: bool) -> bool:
        """Whether the claim could not be had from what was free at a moment."""
        spec = answer.body["spec"]
        ordinary = spec.get("priority", 0) < RESERVE_PRIORITY
        reserves = dict(self._reserves) if ordinary else {}
        ahead = self._ahead(at, answer)
        for uids in (self._free[at], self._free[at] - ahead):
            spots = Counter(self._spots[uid] for uid in uids)
            free = self._without_kept(spots, at, answer, reserves) if held else spots
            if not feasible(spec, free, reserves):
                return True
        return False

    def _ahead(self, at: int, answer: Event) -> frozenset[str]:
        """VMs that claims before this one got in the next commit."""
        number = bisect_right([c.revision for c in self._commits], self._revisions[at])
        if number == len(self._commits):
            return frozenset()
        got = self._commits[number].vms.items()
        mine = _order(answer.body)
        before = [vms for uid, vms in got if _order(self._created[uid].body) < mine]
        return frozenset(vm for vms in before for vm in vms)

    def _without_kept(
        self, free: Counter[tuple[str, Spot]], at: int, answer: Event, reserves: dict[str, int]
    ) -> Free:
        """Without the most that claims could use which waited before this one."""
        for claim in self._waiting(at, answer):
            limits = limits_of(claim["spec"])
            for request in claim["spec"]["requests"]:
                pool, count = request["pool"]["name"], request["count"]
                named = [limit for limit in limits if request["name"] in limit["requests"]]
                if not named:
                    reserves[pool] = reserves.get(pool, 0) + count
                    continue
                most = max(limit.get("maxPerDomain", count) for limit in named)
                free = +Counter({k: n - most * (k[0] == pool) for k, n in free.items()})
        return free

    def _waiting(self, at: int, answer: Event) -> Iterator[Body]:
        revision = self._revisions[at]
        for uid, created in self._created.items():
            claim = created.body
            over = self._answered.get(uid)
            if (
                claim["spec"].get("onUnsatisfied", "Fail") != "Fail"
                and created.revision <= answer.revision
                and (over is None or over.revision > revision)
                and _order(claim) < _order(answer.body)
            ):
                yield claim

    # -- the end ------------------------------------------------------------------------------

    def _account(self) -> None:
        """Every VM is free, or on its way, or its claim's, or being deleted."""
        state, end = self._state, self._events[-1]
        if state.ledger:
            self._fault(end, f"{len(state.ledger)} bindings were left in the ledger")
        for uid, claim in state.claims.items():
            phase = claim.get("status", {}).get("phase", "Pending")
            self._verdict.figures[f"at the end: {phase} claims"] += 1
            if phase == "Pending":
                self._fault(end, f"claim {claim['metadata']['name']} was never answered")
            if uid in self._committed and phase != "Bound":
                self._fault(end, f"claim {claim['metadata']['name']} was committed, and is {phase}")
        for uid, vm in state.vms.items():
            lot = self._lot(uid, vm)
            self._verdict.figures[f"at the end: VMs {lot}"] += 1
            if lot == "unaccounted for":
                self._fault(end, f"VM {vm['metadata']['name']} is nobody's: {vm}")
        owned = {u for u, vm in state.vms.items() if "claimRef" in vm["spec"]}
        for claim in state.claims.values():
            for vm in claim.get("status", {}).get("allocation", {}).get("vms", ()):
                if vm["uid"] not in owned:
                    self._fault(end, f"VM {vm['name']} does not know its claim")

    def _lot(self, uid: str, vm: Body) -> str:
        ref = vm["spec"].get("claimRef")
        if "deletionTimestamp" in vm["metadata"]:
            return "being deleted"
        if ref is None:
            return "free" if self._state.is_free(uid) else "on their way"
        claim = self._state.claims.get(ref["uid"])
        vms = claim["status"].get("allocation", {}).get("vms", ()) if claim is not None else ()
        return "claimed" if any(v["uid"] == uid for v in vms) else "unaccounted for"


def entries_of(ledger: Body) -> dict[str, list[str]]:
    """The bindings in a ledger: the VMs of each claim, by uid."""
    written = [json.loads(text) for text in ledger["spec"].get("entries", ())]
    return {e["claim"]["uid"]: [vm["uid"] for vm in e["vms"]] for e in written}


def removals_of(ledger: Body) -> set[str]:
    """Uids of the VMs that a ledger gives up."""
    return {vm["uid"] for vm in ledger["spec"].get("removals", ())}


def _phase(claim: Body) -> str:
    return str(claim.get("status", {}).get("phase", "Pending"))


def _is_well(vm: Body) -> bool:
    ready = vm.get("status", {}).get("phase") == "Ready"
    return ready and "deletionTimestamp" not in vm["metadata"]


def _pool(vm: Body) -> str:
    return str(vm["spec"]["poolRef"]["name"])


def _spot(vm: Body) -> Spot:
    status = vm.get("status", {})
    return Spot(*(status.get(key, "") for key in ("zone", "rack", "hypervisor")))


def _described(vm: Body) -> tuple[str, str, Spot]:
    return vm["metadata"]["name"], vm["status"]["serverID"], _spot(vm)


def _spot_in(entry: Body) -> Spot:
    return Spot(*(entry.get(key, "") for key in ("zone", "rack", "hypervisor")))


def _described_in(entry: Body) -> tuple[str, str, Spot]:
    return entry["name"], entry["serverID"], _spot_in(entry)


def _order(claim: Body) -> tuple[int, float, str, str]:
    meta = claim["metadata"]
    born = moment(meta["creationTimestamp"])
    return -claim["spec"].get("priority", 0), born, meta["namespace"], meta["name"]
