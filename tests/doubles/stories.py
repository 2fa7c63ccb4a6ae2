"""What happens in a world, told so that it can be told again with one thing going wrong."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from doubles.checker import State, check, held, story_of
from doubles.cluster import FakeCluster
from doubles.hands import Hand, Mishap
from doubles.replicas import HOME, Replica, a_world, add_claim, add_vm, quiet
from doubles.virtual_time import LoopClock
from warmpool.api.names import LABEL_CLAIM_UID, ClaimPhase, Kind, Phase
from warmpool.domain.ids import Ref

NEAR = 0.004
"""Seconds that the leader's watch is behind."""

FAR = 1.5
"""Seconds that the standby's is: its LIST at takeover must not rely on it."""

GAP = 0.5
"""Seconds between the end of one leader and the beginning of the next."""

Act = Callable[["World"], None]


@dataclass
class World:
    """The API server, and what users did."""

    api: FakeCluster
    taken_away: set[str] = field(default_factory=set)
    """Uids of VMs that users have deleted."""
    given_up: int = 0
    """VMs that pools may have given up."""

    def delete_vm(self, name: str) -> None:
        body = self.api.peek(Kind.WARM_VM).get(Ref(HOME, name))
        if body is not None:
            self.taken_away.add(body["metadata"]["uid"])
            self.api.remove(Kind.WARM_VM, Ref(HOME, name))

    def delete_claim(self, name: str) -> None:
        if Ref(HOME, name) in self.api.peek(Kind.VM_CLAIM):
            self.api.remove(Kind.VM_CLAIM, Ref(HOME, name))

    def scale(self, pool: str, replicas: int) -> None:
        """As a user does who wants fewer VMs."""
        self.given_up += self.edit(Kind.WARM_POOL, pool, replicas=replicas)["replicas"] - replicas

    def edit(self, kind: Kind, name: str, **spec: Any) -> Mapping[str, Any]:
        """Change fields of a spec; the former one."""
        old = self.api.peek(kind)[Ref(HOME, name)]
        new = {**old, "metadata": dict(old["metadata"]), "spec": {**old["spec"], **spec}}
        self.api._write(kind, Ref(HOME, name), old, new)
        return old["spec"]

    def release(self, claim: str) -> None:
        """Its lifetime is over, as a leader says it."""
        ref = Ref(HOME, claim)
        old = self.api.peek(Kind.VM_CLAIM).get(ref)
        if old is not None and old["status"]["phase"] == ClaimPhase.BOUND:
            status = {**old["status"], "phase": ClaimPhase.RELEASED.value}
            new = {**old, "metadata": dict(old["metadata"]), "status": status}
            self.api._write(Kind.VM_CLAIM, ref, old, new)

    def finish_recycling(self) -> None:
        """As Nova and the pool do in the end: what a claim has used is ready again."""
        for ref, old in self.api.peek(Kind.WARM_VM).items():
            going = "deletionTimestamp" in old["metadata"]
            if old["spec"].get("dirty") and "claimRef" not in old["spec"] and not going:
                spec = {**old["spec"], "dirty": False}
                labels = {**old["metadata"]["labels"]}
                labels.pop(LABEL_CLAIM_UID, None)
                new = {**old, "metadata": {**old["metadata"], "labels": labels}, "spec": spec}
                clean = self.api._write(Kind.WARM_VM, ref, old, new)
                status = {**clean["status"], "phase": Phase.READY.value, "conditions": []}
                new = {**clean, "metadata": dict(clean["metadata"]), "status": status}
                self.api._write(Kind.WARM_VM, ref, clean, new)

    def replace_used(self) -> None:
        """As the pool does where a leader has given up what a former one was recycling."""
        for ref, vm in self.api.peek(Kind.WARM_VM).items():
            if "deletionTimestamp" in vm["metadata"] and vm["spec"].get("dirty"):
                add_vm(self.api, "data", f"{ref.name}-new", "r9/h9")


@dataclass
class Story:
    """A world, what users do in it, and how every claim must end, whatever goes wrong."""

    name: str
    pools: Mapping[str, str]
    begin: Act
    acts: Mapping[float, Act] = field(default_factory=dict)
    """What users do so many seconds later."""
    ends: Mapping[str, set[ClaimPhase]] = field(default_factory=dict)
    takeover: Act = lambda _world: None
    """What users do when a second leader begins."""

    def __str__(self) -> str:
        return self.name


@dataclass
class Told:
    """How it came out."""

    world: World
    state: State
    writes: list[str]
    """Of the first leader."""
    later_writes: list[str]

    def phase(self, claim: str) -> str | None:
        body = self.world.api.peek(Kind.VM_CLAIM).get(Ref(HOME, claim))
        return None if body is None else str(body["status"]["phase"])

    def vms_of(self, claim: str) -> set[str]:
        body = self.world.api.peek(Kind.VM_CLAIM)[Ref(HOME, claim)]
        return {vm["name"] for vm in held(body)}

    def was_ever(self, claim: str, phase: ClaimPhase) -> bool:
        return any(
            change.ref.name == claim and change.body["status"]["phase"] == phase
            for change in self.world.api.history
            if change.kind is Kind.VM_CLAIM
        )

    def free(self) -> set[str]:
        return {
            ref.name
            for ref, vm in self.world.api.peek(Kind.WARM_VM).items()
            if "claimRef" not in vm["spec"]
            and vm["status"]["phase"] == Phase.READY
            and "deletionTimestamp" not in vm["metadata"]
        }


async def tell(
    story: Story,
    mishap: Mishap | None = None,
    at: int = -1,
    *,
    meanwhile: Act | None = None,
    meanwhile_at: int = -1,
) -> Told:
    """Tell a story to its end, with a mishap at one of the first leader's writes.

    `meanwhile` is what a user does just when write number `meanwhile_at` is on its way.
    """
    world, first, second = await _set_up(story, mishap, at)

    def strike(number: int, _what: str) -> None:
        if meanwhile is not None and number == meanwhile_at:
            meanwhile(world)

    first.hand.before_write = strike
    first.start()
    resting = asyncio.ensure_future(_rest(story, world))
    died = asyncio.ensure_future(first.hand.died.wait())
    await asyncio.wait([resting, died], return_when=asyncio.FIRST_COMPLETED)
    if died.done():
        await first.stop()
        await asyncio.sleep(GAP)
        second.start()
    await resting
    await quiet(world.api)
    died.cancel()
    await (second if second.task is not None else first).stop()
    return _judged(story, world, first, second)


async def tell_with_two(story: Story, pause: int, resume: int, *, deaf: bool) -> Told:
    """The first leader stands still at one of its writes, and another takes over and works.

    When that comes to a certain write itself, the first goes on from where it stood.

    Args:
        story: what happens.
        pause: number of the first leader's write that is on its way when it stands still.
        resume: number of the second one's write at which the first goes on; beyond the last
            one it goes on when all is quiet.
        deaf: the first never notices that its lease has run out: its clock stood still, too.
    """
    world, first, second = await _set_up(story, Mishap.STALLS, pause)

    def strike(number: int, _what: str) -> None:
        if number == resume:
            wake(first, deaf=deaf)

    second.hand.before_write = strike
    first.start()
    resting = asyncio.ensure_future(_rest(story, world))
    stalled = asyncio.ensure_future(first.hand.stalled.wait())
    await asyncio.wait([resting, stalled], return_when=asyncio.FIRST_COMPLETED)
    first.feed.paused = stalled.done()
    second.start()
    story.takeover(world)
    await resting
    await quiet(world.api)
    wake(first, deaf=deaf)
    await quiet(world.api)
    stalled.cancel()
    await first.stop()
    await second.stop()
    return _judged(story, world, first, second)


def wake(replica: Replica, *, deaf: bool) -> None:
    """It goes on as if nothing had happened; its clock tells it that its lease is over, or not."""
    replica.leads = deaf
    replica.hand.woken.set()
    replica.feed.resume()


async def _set_up(story: Story, mishap: Mishap | None, at: int) -> tuple[World, Replica, Replica]:
    world = World(a_world(LoopClock().now, **story.pools))
    first = Replica(world.api, "first", Hand(world.api, mishap, at), NEAR)
    second = Replica(world.api, "second", Hand(world.api), FAR)
    for replica in (first, second):
        await replica.warm_up(world.api)
    story.begin(world)
    await asyncio.sleep(2 * FAR)
    return world, first, second


async def _rest(story: Story, world: World) -> None:
    """Let the acts happen, and then wait until all is quiet."""
    gone = 0.0
    for moment, act in sorted(story.acts.items()):
        await asyncio.sleep(moment - gone)
        gone = moment
        act(world)
    await quiet(world.api)


def _judged(story: Story, world: World, first: Replica, second: Replica) -> Told:
    state = check(world.api.history, taken_away=world.taken_away)
    told = Told(world, state, first.hand.writes, second.hand.writes)
    try:
        assert not state.entries(), "the ledger is not empty"
        assert not state.removals(), "removals are not finished"
        for claim, phases in story.ends.items():
            assert told.phase(claim) in phases, f"{claim} is {told.phase(claim)}"
        _check_settled(state, world)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{story_of(world.api.history)}") from error
    return told


def _check_settled(state: State, world: World) -> None:
    """Every VM is free, or somebody's by both words, or on its way out for a reason."""
    allocated = {vm["uid"]: uid for uid, claim in state.claims.items() for vm in held(claim)}
    left = 0
    for uid, vm in state.vms.items():
        name = vm["metadata"]["name"]
        ref = (vm["spec"].get("claimRef") or {}).get("uid")
        if "deletionTimestamp" not in vm["metadata"]:
            assert ref == allocated.get(uid), f"{name} has claimRef {ref}, not {allocated.get(uid)}"
        elif uid not in world.taken_away and ref is None:
            left += not vm["spec"].get("dirty")
        elif uid not in world.taken_away:
            claim = state.claims.get(ref)
            over = claim is None or claim["status"]["phase"] == ClaimPhase.RELEASED
            assert over, f"{name} goes, though its claim is there"
    assert left <= world.given_up, f"{left} free VMs were given up"


# -- the stories ------------------------------------------------------------------------------

BOUND, FAILED, RELEASED = ClaimPhase.BOUND, ClaimPhase.FAILED, ClaimPhase.RELEASED


def _batch(world: World) -> None:
    add_claim(world.api, "pair", {"data": 2}, mode="HypervisorAware")
    add_claim(world.api, "racks", {"data": 2}, mode="RackAware")
    add_claim(world.api, "one", {"data": 1})
    add_claim(world.api, "too-large", {"data": 9})


BATCH = Story(
    "several claims in one batch",
    {"data": "r1/h1 r1/h2 r2/h3 r2/h3 r3/h4 r3/h5"},
    _batch,
    ends={"pair": {BOUND}, "racks": {BOUND}, "one": {BOUND}, "too-large": {FAILED}},
)


def _waiting(world: World) -> None:
    world.edit(Kind.WARM_POOL, "data", replicas=3)
    add_claim(world.api, "cluster", {"data": 3, "master": 1}, onUnsatisfied="Wait", timeout="1h")
    add_claim(world.api, "small", {"data": 1})
    add_claim(world.api, "other", {"master": 1})


WAITING = Story(
    "a claim over two pools waits, another may not pass",
    {"data": "r1/h1 r2/h2", "master": "r1/h1 r2/h2"},
    _waiting,
    {1.0: lambda world: add_vm(world.api, "data", "data-late", "r3/h3")},
    {"cluster": {BOUND}, "small": {FAILED}, "other": {BOUND}},
)

SUBSTITUTE = Story(
    "a lost VM is replaced",
    {"data": "r1/h1 r2/h2 r2/h3 r3/h4 r4/h5 r4/h6"},
    lambda world: add_claim(world.api, "pair", {"data": 2}, mode="RackAware", replaceLost=True),
    {1.0: lambda world: world.delete_vm(_first_of(world, "pair"))},
    {"pair": {BOUND}},
    takeover=lambda world: world.delete_vm(_first_of(world, "pair")),
)


def _first_of(world: World, claim: str) -> str:
    body = world.api.peek(Kind.VM_CLAIM).get(Ref(HOME, claim))
    names = sorted(vm["name"] for vm in held(body)) if body is not None else []
    return names[0] if names else "nobody-yet"


def _recycling(world: World) -> None:
    for name in ("data-0", "data-1"):
        world.edit(Kind.WARM_VM, name, reclaimPolicy="Recycle")
    add_claim(world.api, "first", {"data": 2})
    add_claim(world.api, "second", {"data": 2}, onUnsatisfied="Wait", timeout="1h")


RECYCLING = Story(
    "what a claim has used serves another",
    {"data": "r1/h1 r2/h2"},
    _recycling,
    {
        3.0: lambda world: world.delete_claim("first"),
        9.0: World.finish_recycling,
        20.0: World.finish_recycling,
        21.0: World.replace_used,
    },
    {"second": {BOUND}},
)


def _shrinking(world: World) -> None:
    add_claim(world.api, "pair", {"data": 2}, mode="RackAware")
    world.scale("data", 2)


def _changed_mind(world: World) -> None:
    """The VMs that were to go are wanted after all."""
    world.edit(Kind.WARM_POOL, "data", replicas=6)
    add_claim(world.api, "new", {"data": 1})


SHRINKING = Story(
    "a pool gives VMs up while they are claimed",
    {"data": "r1/h1 r2/h2 r3/h3 r4/h4 r5/h5 r6/h6"},
    _shrinking,
    {0.5: lambda world: add_claim(world.api, "late", {"data": 1}, onUnsatisfied="Wait")},
    {"pair": {BOUND}, "late": {BOUND}},
    takeover=_changed_mind,
)


EXPIRING = Story(
    "a claim ends by itself",
    {"data": "r1/h1 r2/h2 r3/h3"},
    lambda world: add_claim(world.api, "brief", {"data": 2}, lifetime="4s"),
    ends={"brief": {RELEASED}},
)

STORIES = (BATCH, WAITING, SUBSTITUTE, RECYCLING, SHRINKING, EXPIRING)
