"""The API server is restored from a backup: nothing is bound twice, no claim's server is touched.

What was claimed, built or recycled since the backup stands in Nova alone. Whoever has a server at
the moment of the loss keeps it, as it is, whatever users and the operator do afterwards.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from doubles.cluster import Backup, FakeCluster
from lab import Lab
from warmpool.api.names import LABEL_HELD, Kind, Reason
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.errors import ClusterUnavailable, TestFailed, WentBack
from warmpool.domain.ids import Ref
from warmpool.domain.marks import read_marks
from warmpool.ports.cluster import Body, PatchOp
from warmpool.reconcile.sweeper import CONDEMN_AFTER, SWEEP_EVERY
from warmpool.sim.faults import ApiFault, SpawnFault
from warmpool.sim.world import Server

pytestmark = pytest.mark.looptime

AWAY = 300.0
"""Seconds from the loss until the API server is there again."""

MARKED = 5.0
"""Seconds by which a bound VM's mark stands on its server."""

SWEPT = CONDEMN_AFTER + 2 * SWEEP_EVERY

AHEAD = [0, 1_000_000]
"""Revisions repeat, or go on: `etcdutl snapshot restore --bump-revision`."""


@dataclass
class Loss:
    """The truth at the moment of the loss."""

    users: Mapping[str, str]
    """Server id to the uid of the claim that has it."""
    deeds: Mapping[str, int]
    """How often each server had been rebuilt."""
    known: frozenset[str]
    """Uids of the claims that the backup knows to be bound."""

    def check(self, lab: Lab, *, ended: frozenset[str] = frozenset()) -> None:
        """Who had a server has it, untouched, and it is nobody else's.

        `ended`: claims that were deleted after the restoration.
        """
        there = {server.id: server for server in lab.servers()}
        for server, user in self.users.items():
            if user in ended:
                continue
            assert server in there, f"the server of {user} was deleted"
            assert rebuilds(there[server]) == self.deeds[server], f"{user} has lost its disk"
        for ref, claim in lab.cluster.peek(Kind.VM_CLAIM).items():
            for vm in (claim["status"].get("allocation") or {}).get("vms", []):
                user, uid = self.users.get(vm["serverID"]), claim["metadata"]["uid"]
                new = uid not in self.known
                assert not new or user in (None, uid), f"{ref} has what {user} uses"


def rebuilds(server: Server) -> int:
    return sum(deed.action == "rebuild" for deed in server.actions)


def users(lab: Lab) -> dict[str, str]:
    """Who has which server, by the claims."""
    return {
        vm["serverID"]: claim["metadata"]["uid"]
        for claim in lab.cluster.peek(Kind.VM_CLAIM).values()
        if claim["status"].get("phase") == "Bound"
        for vm in claim["status"]["allocation"]["vms"]
    }


async def lose(lab: Lab, backup: Backup, *, ahead: int = 0) -> Loss:
    """The API server is lost, and restored; a new process of the operator begins."""
    await asyncio.sleep(MARKED)
    await lab.stop()
    had = users(lab)
    deeds = {server.id: rebuilds(server) for server in lab.servers()}
    await asyncio.sleep(AWAY)
    lab.cluster.restore(backup, ahead=ahead)
    loss = Loss(had, deeds, frozenset(users(lab).values()))
    lab.start()
    return loss


def vm_of(lab: Lab, server: str) -> Body:
    [vm] = [vm for _, vm in lab.vms() if vm["status"].get("serverID") == server]
    return vm


def held(vm: Body) -> str:
    """Why a VM is held; empty: it is not."""
    conditions = vm["status"].get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Held"), "")


async def bound(lab: Lab, name: str, count: int = 1, **spec: object) -> Ref:
    claim = lab.claim(name, count, **spec)
    await lab.until(lambda: lab.bound(claim))
    return claim


@pytest.mark.parametrize("ahead", AHEAD)
async def test_what_was_claimed_since_is_kept_for_its_claim_and_handed_out_to_nobody(
    ahead: int,
) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        backup = lab.cluster.backup()
        await bound(lab, "since", 2)
        loss = await lose(lab, backup, ahead=ahead)
        new = lab.claim("new", 3, onUnsatisfied="Wait", timeout="10m")
        await lab.until(lambda: lab.bound(new))
        await asyncio.sleep(SWEPT)
        loss.check(lab)
        for server, user in loss.users.items():
            vm = vm_of(lab, server)
            assert vm["spec"]["retained"]
            assert vm["spec"]["claimRef"]["uid"] == user
            assert vm["spec"]["claimRef"]["name"] == "since"
            assert held(vm) == Reason.HELD_FOR_CLAIM
        await lab.until(lambda: lab.status(pool)["ready"] == 3)
        assert lab.status(pool)["retained"] == 2


@pytest.mark.parametrize("ahead", AHEAD)
async def test_what_was_built_and_claimed_since_is_adopted(ahead: int) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        backup = lab.cluster.backup()
        before = {server.id for server in lab.servers()}
        await bound(lab, "one", 2)
        await lab.until(lambda: len(lab.free()) == 2)
        await bound(lab, "two", 2)
        await lab.until(lambda: len(lab.free()) == 2)
        loss = await lose(lab, backup, ahead=ahead)
        await lab.until(lambda: lab.status(pool).get("retained") == 4, within=SWEPT + 60)
        loss.check(lab)
        for server in lab.servers():
            vm = vm_of(lab, server.id)
            if server.id in loss.users and server.id not in before:
                assert held(vm) == Reason.FOUND_IN_NOVA
                assert vm["spec"]["claimRef"]["uid"] == loss.users[server.id]
        await lab.until(lambda: lab.status(pool)["ready"] == 2)
        await lab.until(lambda: len(lab.servers()) == 6, within=SWEPT)
        written = len(lab.cluster.history)
        await asyncio.sleep(SWEPT)
        loss.check(lab)
        again = [c for c in lab.cluster.history[written:] if c.kind is Kind.WARM_VM]
        assert not again, "each is adopted once"


async def test_what_was_recycled_and_claimed_by_another_since_outlives_the_first_claim() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1, maxSize=1, reclaimPolicy="Recycle")
        await lab.until(lambda: lab.is_even(pool, 1))
        first = await bound(lab, "first")
        backup = lab.cluster.backup()
        lab.delete(Kind.VM_CLAIM, first)
        await bound(lab, "second", onUnsatisfied="Wait", timeout="10m")
        loss = await lose(lab, backup)
        [server] = loss.users
        await lab.until(lambda: vm_of(lab, server)["spec"]["retained"])
        lab.delete(Kind.VM_CLAIM, first)  # its owner wants it gone, as it once did
        await asyncio.sleep(SWEPT)
        loss.check(lab)


async def test_what_was_being_recycled_and_is_in_use_now_is_not_wiped() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1, maxSize=1, reclaimPolicy="Recycle")
        await lab.until(lambda: lab.is_even(pool, 1))
        lab.delete(Kind.VM_CLAIM, await bound(lab, "first"))
        await lab.until(lambda: any(vm["spec"].get("dirty") for _, vm in lab.vms()))
        backup = lab.cluster.backup()
        await bound(lab, "second", onUnsatisfied="Wait", timeout="10m")
        loss = await lose(lab, backup)
        await asyncio.sleep(SWEPT)
        loss.check(lab)
        assert held(vm_of(lab, *loss.users)) == Reason.HELD_FOR_CLAIM


async def test_a_binding_in_flight_that_was_over_long_ago_is_not_carried_out_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backup was made between its commit and its publication."""
    async with Lab() as lab:
        pool = lab.pool(replicas=1, maxSize=1, reclaimPolicy="Recycle")
        await lab.until(lambda: lab.is_even(pool, 1))
        with monkeypatch.context() as patched:
            patched.setattr(lab.cluster, "patch", without_claims(lab.cluster))
            first = lab.claim("first", 1, onUnsatisfied="Wait", timeout="1h")
            await lab.until(lambda: in_flight(lab))
            backup = lab.cluster.backup()
        await lab.until(lambda: lab.bound(first))
        lab.delete(Kind.VM_CLAIM, first)
        await bound(lab, "second", onUnsatisfied="Wait", timeout="10m")
        loss = await lose(lab, backup)
        await asyncio.sleep(SWEPT)
        loss.check(lab)
        assert held(vm_of(lab, *loss.users)) == Reason.HELD_FOR_CLAIM


async def test_a_binding_in_flight_is_carried_out_although_nobody_led_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The former leader's publication may be on its way, however long nobody has led by the clock.

    It was taken back, and its VM given to whoever came next: both claims had it.
    """
    async with Lab() as lab:
        pool = lab.pool(replicas=1, maxSize=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        patch = lab.cluster.patch
        late: list[tuple[Any, ...]] = []
        with monkeypatch.context() as patched:

            async def frozen(kind: Kind, ref: Ref, ops: Sequence[PatchOp], **how: bool) -> Body:
                if kind is Kind.VM_CLAIM:
                    late.append((kind, ref, ops, how))
                    await asyncio.Event().wait()
                return await patch(kind, ref, ops, **how)

            patched.setattr(lab.cluster, "patch", frozen)
            first = lab.claim("first", 1, onUnsatisfied="Wait", timeout="1h")
            await lab.until(lambda: late)
            await lab.stop()
        second = lab.claim("second", 1, onUnsatisfied="Wait", timeout="1h", priority=10)
        await asyncio.sleep(AWAY)
        kind, ref, ops, how = late[0]
        lab.start()
        await asyncio.sleep(2)
        with contextlib.suppress(TestFailed):
            await patch(kind, ref, ops, **how)
        await lab.until(lambda: lab.bound(first))
        await asyncio.sleep(SWEPT)
        assert lab.bound(first)
        assert not lab.bound(second)
        assert len(users(lab)) == 1


def without_claims(cluster: FakeCluster) -> Callable[..., Awaitable[Body]]:
    """An API server that takes no status of a claim."""
    patch = cluster.patch

    async def attempt(kind: Kind, ref: Ref, ops: Sequence[PatchOp], **how: bool) -> Body:
        if kind is Kind.VM_CLAIM:
            raise ClusterUnavailable("503")
        return await patch(kind, ref, ops, **how)

    return attempt


def in_flight(lab: Lab) -> bool:
    [ledger] = lab.cluster.peek(Kind.BINDING_LEDGER).values()
    return bool(ledger["spec"]["entries"])


async def test_what_was_still_being_built_and_is_in_use_now_is_kept() -> None:
    async with Lab(build=5.0) as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: len(lab.servers()) == 2)
        backup = lab.cluster.backup()
        await bound(lab, "since", 2, onUnsatisfied="Wait", timeout="10m")
        loss = await lose(lab, backup)
        await lab.until(lambda: lab.status(pool).get("retained") == 2)
        await lab.until(lambda: lab.status(pool)["ready"] == 2)
        loss.check(lab)


async def test_no_claim_gets_a_vm_whose_server_has_ended_since() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        backup = lab.cluster.backup()
        before = {server.id for server in lab.servers()}
        for ref, _ in lab.vms():
            lab.delete(Kind.WARM_VM, ref)
        await lab.until(lambda: not before & {server.id for server in lab.servers()})
        await lose(lab, backup)
        new = await bound(lab, "new", 3, onUnsatisfied="Wait", timeout="10m")
        [claim] = [c for ref, c in lab.cluster.peek(Kind.VM_CLAIM).items() if ref == new]
        given = {vm["serverID"] for vm in claim["status"]["allocation"]["vms"]}
        assert given <= {server.id for server in lab.servers()}


@pytest.mark.parametrize("do", ["shrink", "delete"])
async def test_a_pool_that_shrinks_or_goes_takes_nothing_that_is_in_use(do: str) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        backup = lab.cluster.backup()
        await bound(lab, "since", 2)
        await lab.until(lambda: len(lab.free()) == 3)
        await bound(lab, "later", 2)
        loss = await lose(lab, backup)
        if do == "shrink":
            await lab.change(pool, replicas=0)
        else:
            lab.delete(Kind.WARM_POOL, pool)
        await asyncio.sleep(2 * SWEPT)
        loss.check(lab)


async def test_no_claim_is_answered_before_nova_was_asked() -> None:
    """Not even refused, since what is free is not known."""
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        backup = lab.cluster.backup()
        await bound(lab, "since", 1)
        await asyncio.sleep(MARKED)
        mend = lab.arm(ApiFault(effect="status", status=503, path="^/compute/"))
        loss = await lose(lab, backup)
        one, many = lab.claim("one", 1), lab.claim("many", 9)
        await asyncio.sleep(120)
        for claim in (one, many):
            status = lab.cluster.peek(Kind.VM_CLAIM)[claim]["status"]
            assert status["phase"] == "Pending"
            assert [c["reason"] for c in status["conditions"]] == [Reason.LOOKING_BACK]
        mend()
        await lab.until(lambda: lab.bound(one))
        assert lab.cluster.peek(Kind.VM_CLAIM)[many]["status"]["phase"] == "Failed"
        loss.check(lab)


async def test_where_nobody_led_for_a_while_and_nothing_was_lost_all_goes_on() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2, reclaimPolicy="Recycle")
        await lab.until(lambda: lab.is_even(pool, 2))
        old = await bound(lab, "old")
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.stop()
        lab.delete(Kind.VM_CLAIM, old)
        await asyncio.sleep(AWAY)
        lab.start()
        new = await bound(lab, "new", 2)
        await lab.until(lambda: lab.is_even(pool, 2), within=120)
        assert lab.status(pool)["retained"] == 0
        assert lab.bound(new)


async def test_a_takeover_within_the_time_that_one_takes_looks_at_nothing_first() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        await lab.stop()
        await asyncio.sleep(10)
        lab.arm(ApiFault(effect="status", status=503, path="^/compute/"))
        lab.start()
        await bound(lab, "during")


async def test_the_next_leader_goes_on_looking_where_the_first_one_died() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        backup = lab.cluster.backup()
        await bound(lab, "since", 1)
        await asyncio.sleep(MARKED)
        mend = lab.arm(ApiFault(effect="status", status=503, path="^/compute/"))
        loss = await lose(lab, backup)
        claim = lab.claim("new", 2, onUnsatisfied="Wait", timeout="10m")
        await asyncio.sleep(5)
        await lab.restart()
        await asyncio.sleep(5)
        assert not lab.bound(claim)
        mend()
        await lab.until(lambda: lab.bound(claim))
        loss.check(lab)


@pytest.mark.parametrize("word", ["give back", "delete"])
async def test_a_person_decides_what_becomes_of_what_is_kept(word: str) -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        backup = lab.cluster.backup()
        await bound(lab, "one")
        await lab.until(lambda: len(lab.free()) == 1)
        await bound(lab, "two")
        loss = await lose(lab, backup)
        await lab.until(lambda: lab.status(pool).get("retained") == 2, within=SWEPT + 60)
        for server in loss.users:
            ref = ref_of(vm_of(lab, server))
            if word == "delete":
                lab.delete(Kind.WARM_VM, ref)
                continue
            give_back = [{"op": "add", "path": "/spec/retained", "value": False}]
            await lab.cluster.patch(Kind.WARM_VM, ref, give_back)
        await lab.until(lambda: lab.is_even(pool, 1), within=120)
        assert not loss.users.keys() & {server.id for server in lab.servers()}, (
            "their claims are over"
        )


def ref_of(vm: Body) -> Ref:
    return Ref(vm["metadata"]["namespace"], vm["metadata"]["name"])


@pytest.mark.parametrize("policy", ["Delete", "Recycle"])
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "living"])
async def test_what_is_given_back_to_an_older_claim_is_that_claims(
    policy: str, *, ended: bool
) -> None:
    """It was kept again at once, and again: its mark still named the one that is forgotten."""
    async with Lab() as lab:
        pool = lab.pool(replicas=1, maxSize=1, reclaimPolicy="Recycle")
        await lab.until(lambda: lab.is_even(pool, 1))
        first = await bound(lab, "first")
        backup = lab.cluster.backup()
        lab.delete(Kind.VM_CLAIM, first)
        await bound(lab, "second", onUnsatisfied="Wait", timeout="10m")
        loss = await lose(lab, backup)
        [server] = loss.users
        await lab.until(lambda: held(vm_of(lab, server)))
        if ended:
            lab.delete(Kind.VM_CLAIM, first)
        ref = ref_of(vm_of(lab, server))
        give_back = [
            {"op": "add", "path": "/spec/retained", "value": False},
            {"op": "add", "path": "/spec/reclaimPolicy", "value": policy},
        ]
        await lab.cluster.patch(Kind.WARM_VM, ref, give_back)
        if ended:
            await lab.until(lambda: lab.is_even(pool, 1), within=120)
            assert server in {s.id for s in lab.servers()} or policy == "Delete"
            assert all(LABEL_HELD not in vm["metadata"]["labels"] for _, vm in lab.vms())
            return
        await asyncio.sleep(60)
        vm = vm_of(lab, server)
        assert not held(vm)
        assert not vm["spec"]["retained"]
        there = {s.id: s for s in lab.servers()}[server]
        assert read_marks(there.metadata).claim == ClaimRef(**vm["spec"]["claimRef"])


async def test_a_claim_ref_that_somebody_took_off_by_hand_costs_nobody_the_vm() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1, maxSize=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        claim = await bound(lab, "one")
        await asyncio.sleep(MARKED)
        [(ref, vm)] = lab.vms()
        await lab.cluster.patch(Kind.WARM_VM, ref, [{"op": "remove", "path": "/spec/claimRef"}])
        other = lab.claim("other", 1, onUnsatisfied="Wait", timeout="10m")
        await lab.until(lambda: lab.bound(other))
        assert lab.bound(claim)
        assert len(users(lab)) == 2
        assert dict(lab.vms())[ref]["spec"]["claimRef"] == vm["spec"]["claimRef"]


async def test_what_was_being_kept_when_its_keeper_died_says_why() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        [(ref, _)] = lab.vms()
        await bound(lab, "one")
        await asyncio.sleep(MARKED)
        await lab.stop()
        half = [
            {"op": "add", "path": "/spec/retained", "value": True},
            {
                "op": "add",
                "path": f"/metadata/labels/{LABEL_HELD.replace('/', '~1')}",
                "value": "true",
            },
        ]
        await lab.cluster.patch(Kind.WARM_VM, ref, half)
        lab.start()
        await lab.until(lambda: held(dict(lab.vms())[ref]))


async def test_what_was_built_since_and_is_nobodys_is_swept() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        backup = lab.cluster.backup()
        await lab.change(pool, replicas=3)
        await lab.until(lambda: lab.is_even(pool, 3))
        loss = await lose(lab, backup)
        await lab.until(lambda: len(lab.servers()) == 1, within=SWEPT + 60)
        loss.check(lab)
        assert lab.is_even(pool, 1)


async def test_a_server_that_was_never_ready_is_swept_all_the_same() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        backup = lab.cluster.backup()
        lab.arm(SpawnFault(effect="hang"))
        await lab.change(pool, replicas=3)
        await lab.until(lambda: len(lab.servers()) == 3)
        loss = await lose(lab, backup)
        await lab.until(lambda: len(lab.servers()) == 1, within=SWEPT + 60)
        loss.check(lab)
        assert lab.is_even(pool, 1)


async def test_a_server_whose_pool_is_forgotten_is_left_alone() -> None:
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        backup = lab.cluster.backup()
        lab.pool("young", replicas=1)
        await lab.until(lambda: len(lab.free()) == 2)
        await bound(lab, "since", requests=[{"name": "r", "pool": {"name": "young"}, "count": 1}])
        loss = await lose(lab, backup)
        await asyncio.sleep(2 * SWEPT)
        loss.check(lab)
        again = lab.pool("young", replicas=0)
        await lab.until(lambda: lab.status(again).get("retained") == 1, within=2 * SWEPT)
        loss.check(lab)


@pytest.mark.parametrize("ahead", AHEAD)
async def test_a_process_that_remembers_what_is_lost_ends(ahead: int) -> None:
    """It would take all that the API server shows for an echo."""
    async with Lab() as lab:
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1))
        backup = lab.cluster.backup()
        await bound(lab, "since")
        await lab.stop()
        lab.cluster.restore(backup, ahead=ahead)
        lab.start(lab.store)
        with pytest.raises(WentBack):
            await lab.ended()


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happened_since_the_backup(seed: int, ahead: int) -> None:
    """Claims come and go before the backup, after it and after the restoration."""
    chance = random.Random(seed)  # noqa: S311 - a story
    async with Lab(seed=seed, build=1.0) as lab:
        policy = chance.choice(["Delete", "Recycle", "Retain"])
        pool = lab.pool(replicas=4, reclaimPolicy=policy)
        life = Life(lab, chance)
        await lab.until(lambda: lab.is_even(pool, 4))
        await life.go_on(chance.randint(0, 8))
        backup = lab.cluster.backup()
        await life.go_on(chance.randint(1, 12))
        loss = await lose(lab, backup, ahead=ahead)
        life.forget()
        await life.go_on(chance.randint(3, 12))
        loss.check(lab, ended=frozenset(life.ended))
        await asyncio.sleep(2 * SWEPT)
        loss.check(lab, ended=frozenset(life.ended))
        await lab.change(pool, replicas=chance.choice([0, 2, 6]))
        await asyncio.sleep(60)
        loss.check(lab, ended=frozenset(life.ended))


@dataclass
class Life:
    """What users do."""

    lab: Lab
    chance: random.Random
    made: int = 0
    ended: set[str] = field(default_factory=set)
    """Uids of the claims that were deleted."""

    def forget(self) -> None:
        """Names that the lost history had used are free again, and used again."""
        self.made //= 2
        self.ended.clear()

    async def go_on(self, deeds: int) -> None:
        for _ in range(deeds):
            claims = list(self.lab.cluster.peek(Kind.VM_CLAIM))
            if claims and self.chance.random() < 0.4:
                gone = self.chance.choice(claims)
                self.ended.add(self.lab.cluster.peek(Kind.VM_CLAIM)[gone]["metadata"]["uid"])
                self.lab.delete(Kind.VM_CLAIM, gone)
            else:
                self._claim(claims)
            await asyncio.sleep(self.chance.uniform(0.01, 4))

    def _claim(self, there: list[Ref]) -> None:
        self.made += 1
        name = f"claim-{self.made}"
        if all(ref.name != name for ref in there):
            mode = self.chance.choice(["Fail", "Wait", "Build"])
            count = self.chance.randint(1, 3)
            self.lab.claim(name, count, onUnsatisfied=mode, timeout="10m")
