"""What the loops of a term record of what they do."""

from collections.abc import Sequence
from typing import TypeVar

import pytest

from lab import Lab
from warmpool.api.names import Kind, Reason
from warmpool.domain.errors import ClusterOutcomeUnknown, ClusterUnavailable
from warmpool.domain.history import (
    BuildRecord,
    ClaimRecord,
    LeadershipRecord,
    Record,
    ReleaseRecord,
    RemovalRecord,
    Result,
)
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body, PatchOp
from warmpool.sim.faults import ApiFault, SpawnFault

pytestmark = pytest.mark.looptime

CREATE = "servers$"

R = TypeVar("R", bound=Record)


def told(lab: Lab, kind: type[R]) -> list[R]:
    return [record for record in lab.records if isinstance(record, kind)]


async def filled(lab: Lab, **spec: object) -> Ref:
    pool = lab.pool(**spec)
    await lab.until(lambda: lab.is_even(pool, int(str(spec["replicas"]))))
    return pool


async def test_a_build_tells_where_it_ended_and_what_its_phases_took() -> None:
    async with Lab(build=20.0) as lab:
        pool = await filled(lab, replicas=3)
        builds = told(lab, BuildRecord)
        assert {b.vm.ref for b in builds} == {ref for ref, _ in lab.vms()}
        for build in builds:
            assert (build.vm.pool, build.result, build.attempt) == (pool, Result.READY, 1)
            assert build.vm.place.rack
            assert build.vm.server
            assert (build.vm.flavor, build.image) == ("m1.micro", "debian-13")
            phases = build.phases
            spans = [
                phases.queued,
                phases.post,
                phases.scheduling,
                phases.spawning,
                phases.reachable,
                phases.ready,
            ]
            assert None not in spans
            assert build.took == pytest.approx(sum(s for s in spans if s is not None), abs=0.01)
            assert 20 <= build.took <= 40
            assert phases.spawning is not None
            assert phases.spawning > 10


async def test_builds_that_fail_are_counted_until_one_succeeds() -> None:
    async with Lab() as lab:
        mend = lab.arm(SpawnFault(effect="abort", message="no disk"))
        lab.pool(replicas=1)
        await lab.until(lambda: len(told(lab, BuildRecord)) >= 2, within=300)
        mend()
        await lab.until(lambda: told(lab, BuildRecord)[-1].result is Result.READY, within=300)
        *failed, last = told(lab, BuildRecord)
        assert [b.attempt for b in (*failed, last)] == list(range(1, len(failed) + 2))
        assert {(b.result, b.reason, b.blame) for b in failed} == {
            (Result.FAILED, Reason.BUILD_FAULT, "vm")
        }
        assert "no disk" in failed[0].message


async def test_a_build_that_the_cloud_refuses_says_so() -> None:
    async with Lab() as lab:
        text = "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"
        refusal = ApiFault(effect="status", method="POST", path=CREATE, status=403, message=text)
        lab.arm(refusal.model_copy(update={"count": 1}))
        pool = lab.pool(replicas=1)
        await lab.until(lambda: lab.is_even(pool, 1), within=300)
        refused, ready = told(lab, BuildRecord)
        assert (refused.result, refused.reason) == (Result.REFUSED, Reason.QUOTA_EXCEEDED)
        assert (refused.blame, refused.attempt) == ("capacity", 1)
        assert (ready.result, ready.attempt, ready.vm.uid) == (Result.READY, 2, refused.vm.uid)


async def test_a_claim_takes_vms_out_of_their_pool_and_gives_them_back() -> None:
    async with Lab() as lab:
        await filled(lab, replicas=3)
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim))
        (answer,) = told(lab, ClaimRecord)
        assert (answer.claim, answer.size, answer.result) == (claim, 2, Result.BOUND)
        assert answer.wait < 1
        removals = told(lab, RemovalRecord)
        assert [(r.why, r.claim, r.claim_uid) for r in removals] == [
            (Reason.BOUND, claim, answer.uid)
        ] * 2
        assert all(r.stood is not None for r in removals)
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: len(lab.servers()) == 3 and len(lab.free()) == 3)
        releases = told(lab, ReleaseRecord)
        assert {r.vm.ref for r in releases} == {r.vm.ref for r in removals}
        assert {(r.claim, r.policy) for r in releases} == {(claim, "Delete")}
        assert len(told(lab, RemovalRecord)) == 2, "its pool has lost a claimed VM once"


async def test_a_refused_claim_tells_what_was_short() -> None:
    async with Lab() as lab:
        await filled(lab, replicas=1)
        lab.claim(count=5)
        await lab.until(lambda: told(lab, ClaimRecord))
        (answer,) = told(lab, ClaimRecord)
        assert (answer.result, answer.reason) == (Result.REFUSED, Reason.NOT_ENOUGH_READY)
        assert "1" in answer.message
        assert "5" in answer.message


def claims_lose(lab: Lab, monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> list[str]:
    """The next two writes of a claim's status get no answer. What was asked each time."""
    patch, phases = lab.cluster.patch, []

    async def lossy(kind: Kind, ref: Ref, ops: Sequence[PatchOp], **how: bool) -> Body:
        if kind is not Kind.VM_CLAIM or len(phases) == 2:
            return await patch(kind, ref, ops, **how)
        phases.append(ops[-1]["value"]["phase"])
        if not arrives:
            raise ClusterUnavailable("503")
        if len(phases) == 1:
            await patch(kind, ref, ops, **how)
        raise ClusterOutcomeUnknown("the connection was cut")

    monkeypatch.setattr(lab.cluster, "patch", lossy)
    return phases


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize(("count", "result"), [(2, Result.BOUND), (5, Result.REFUSED)])
async def test_an_answer_is_told_once_though_writing_it_failed_at_first(
    count: int, result: Result, *, arrives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim whose PATCH lost its answer was in no history, and a refusal before it stood."""
    async with Lab() as lab:
        await filled(lab, replicas=3)
        tries = claims_lose(lab, monkeypatch, arrives=arrives)
        claim = lab.claim(count=count)
        await lab.until(lambda: tries)
        assert not told(lab, ClaimRecord), "nobody knows yet"
        await lab.until(lambda: told(lab, ClaimRecord))
        phase = "Bound" if result is Result.BOUND else "Failed"
        assert lab.cluster.peek(Kind.VM_CLAIM)[claim]["status"]["phase"] == phase
        assert [record.result for record in told(lab, ClaimRecord)] == [result]
        removed = 2 if result is Result.BOUND else 0
        assert len(told(lab, RemovalRecord)) == removed


async def test_vms_leave_a_pool_for_a_reason() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=3)
        await lab.change(pool, replicas=2)
        await lab.until(lambda: lab.is_even(pool, 2))
        victim, _ = sorted(ref for ref, _ in lab.vms())
        lab.delete(Kind.WARM_VM, victim)
        await lab.until(lambda: len(told(lab, RemovalRecord)) == 2)
        assert [r.why for r in told(lab, RemovalRecord)] == [Reason.SHRINKING, Reason.DELETING]
        assert told(lab, RemovalRecord)[1].vm.ref == victim


async def test_leaderships_are_told_from_their_beginning_to_their_end() -> None:
    async with Lab() as lab:
        await filled(lab, replicas=1)
        await lab.restart()
        await lab.until(lambda: len(told(lab, LeadershipRecord)) == 3)
    first, ended, second, last = told(lab, LeadershipRecord)
    assert [r.result for r in (first, ended, second, last)] == [
        Result.BEGAN,
        Result.ENDED,
        Result.BEGAN,
        Result.ENDED,
    ]
    assert (first.identity, second.identity) == ("replica-0", "replica-1")
    assert second.epoch == first.epoch + 1
    assert ended.led is not None
    assert ended.led > 2


async def test_ids_are_of_what_is_told_and_never_twice() -> None:
    async with Lab() as lab:
        await filled(lab, replicas=3)
        claim = lab.claim(count=2)
        await lab.until(lambda: lab.bound(claim))
        await lab.restart()
        lab.delete(Kind.VM_CLAIM, claim)
        await lab.until(lambda: len(told(lab, ReleaseRecord)) == 2, within=90)
    ids = [record.id for record in lab.records]
    assert len(ids) == len(set(ids))


async def test_a_claim_that_was_told_to_wait_first_says_so() -> None:
    async with Lab() as lab:
        pool = await filled(lab, replicas=1)
        lab.claim("late", count=2, onUnsatisfied="Wait")
        lab.claim("now", count=1)
        await lab.until(lambda: len(told(lab, ClaimRecord)) == 1)
        await lab.change(pool, replicas=2)
        await lab.until(lambda: len(told(lab, ClaimRecord)) == 2)
        assert [(r.claim.name, r.waited) for r in told(lab, ClaimRecord)] == [
            ("now", False),
            ("late", True),
        ]
        assert told(lab, ClaimRecord)[1].wait > 1
