"""What stops a pool that is short of VMs, and how it is told."""

import pytest

from builders import a_site, a_survey, a_view, a_vm, after, claimed, ready, some_facts
from warmpool.api.names import Phase, Reason
from warmpool.domain.actions import Build, CreateVm
from warmpool.domain.cloud import FlavorSize, Quota, Usage
from warmpool.domain.pools import Headroom, Hold, PoolFacts, Problem, Survey
from warmpool.planning.filling import Stop, stop, to_build, wall
from warmpool.planning.plan import plan
from warmpool.planning.quota import headroom

FULL = Headroom(0, "10 of 10 instances")


@pytest.mark.parametrize(
    ("facts", "reason", "message"),
    [
        pytest.param(
            some_facts(problem=Problem(Reason.IMAGE_NOT_FOUND, "no image")),
            Reason.IMAGE_NOT_FOUND,
            "no image",
            id="problem",
        ),
        pytest.param(some_facts(paused=True), Reason.PAUSED, "paused", id="paused"),
        pytest.param(
            some_facts(holds={"": Hold(after(9), Reason.RATE_LIMITED, "slow down")}),
            Reason.RATE_LIMITED,
            "slow down",
            id="held",
        ),
        pytest.param(
            some_facts(claimed(), max_size=1), Reason.MAX_SIZE_REACHED, "maxSize 1", id="at max"
        ),
        pytest.param(
            some_facts(survey=Survey(headroom=FULL)),
            Reason.QUOTA_EXCEEDED,
            "10 of 10 instances",
            id="quota",
        ),
        pytest.param(
            some_facts(survey=a_survey(a_site(1, 0), a_site(2, 0))),
            Reason.NO_VALID_HOST,
            "none of 2 hypervisors has room for flavor 'm1.micro'",
            id="no room",
        ),
        pytest.param(
            some_facts(
                survey=a_survey(a_site(1, 0), a_site(2, zone="az9")), availability_zones=["az1"]
            ),
            Reason.NO_VALID_HOST,
            "none of 1 hypervisors in az1 has room",
            id="no room in the zones",
        ),
        pytest.param(
            some_facts(survey=a_survey()),
            Reason.NO_VALID_HOST,
            "no hypervisor takes builds",
            id="no hypervisors",
        ),
        pytest.param(
            some_facts(
                ready(1),
                survey=a_survey(a_site(1)),
                spread=[
                    {"domain": "hypervisor", "maxPerDomain": 1},
                    {"domain": "rack", "maxSkew": 1},
                ],
            ),
            Reason.SPREAD_EXHAUSTED,
            "(1 per hypervisor)",
            id="spread",
        ),
    ],
)
def test_what_stops_a_pool_is_told(facts: PoolFacts, reason: Reason, message: str) -> None:
    found = stop(facts)
    assert found is not None
    assert found.reason is reason
    assert message in found.message
    assert to_build(facts) == [] or facts.pool.spec.paused


def test_nothing_stops_a_pool_in_a_cloud_with_room() -> None:
    assert stop(some_facts(survey=a_survey(a_site()))) is None


def test_where_all_zones_are_held_no_room_is_looked_for() -> None:
    held = {"": Hold(after(9), Reason.RATE_LIMITED, "slow down")}
    assert wall(some_facts(replicas=1, holds=held, survey=a_survey(a_site(1, 0)))) is None


def test_a_full_pool_meets_no_wall() -> None:
    facts = some_facts(ready(), replicas=1, survey=Survey(headroom=FULL))
    assert wall(facts) is None
    assert wall(some_facts(replicas=1, survey=Survey(headroom=FULL))) == Stop(
        Reason.QUOTA_EXCEEDED, FULL.message
    )


def test_vms_that_wait_for_a_server_meet_the_wall_of_the_quota_and_no_other() -> None:
    pending = a_view(a_vm(1, Phase.PENDING))
    facts = some_facts(pending, replicas=1, max_size=1, survey=Survey(headroom=FULL))
    assert wall(facts) == Stop(Reason.QUOTA_EXCEEDED, FULL.message)
    assert wall(some_facts(pending, replicas=1, max_size=1)) is None


def test_nothing_is_built_before_the_cloud_was_surveyed() -> None:
    pending = a_view(a_vm(1, Phase.PENDING))
    assert plan(some_facts(pending, survey=Survey(done=False))).actions == ()


def test_the_quota_bounds_new_builds() -> None:
    facts = some_facts(replicas=5, survey=Survey(headroom=Headroom(2)))
    assert to_build(facts) == [CreateVm(""), CreateVm("")]


def test_what_the_quota_leaves_goes_to_vms_that_are_there_already() -> None:
    pending = [a_vm(n, Phase.PENDING) for n in (1, 2)]
    views = [a_view(vm) for vm in pending]
    facts = some_facts(*views, replicas=5, survey=Survey(headroom=Headroom(3)))
    assert plan(facts).actions == (Build(pending[0]), Build(pending[1]), CreateVm(""))
    tight = some_facts(*views, replicas=5, survey=Survey(headroom=Headroom(1)))
    assert plan(tight).actions == (Build(pending[0]),)


# --- the quota -------------------------------------------------------------------------------

SIZE = FlavorSize(vcpus=2, ram_mb=512)


def a_quota(**bounds: tuple[int, int | None]) -> Quota:
    usages = {name: Usage(0, None) for name in ("instances", "cores", "ram_mb")}
    return Quota(**(usages | {name: Usage(*bound) for name, bound in bounds.items()}))


@pytest.mark.parametrize(
    ("quota", "promised", "left"),
    [
        pytest.param(a_quota(), 3, None, id="without bound"),
        pytest.param(a_quota(instances=(4, 10)), 0, 6, id="instances"),
        pytest.param(a_quota(instances=(4, 10)), 2, 4, id="with builds on their way"),
        pytest.param(a_quota(instances=(12, 10)), 0, 0, id="above the limit"),
        pytest.param(a_quota(cores=(4, 9)), 1, 1, id="cores"),
        pytest.param(a_quota(ram_mb=(0, 1023)), 0, 1, id="memory"),
        pytest.param(a_quota(instances=(0, 9), cores=(0, 8), ram_mb=(0, 9999)), 0, 4, id="least"),
    ],
)
def test_the_tightest_bound_counts(quota: Quota, promised: int, left: int | None) -> None:
    assert headroom(quota, SIZE, [SIZE] * promised, ours=0).left == left


def test_a_flavor_of_unknown_size_is_bounded_by_instances_alone() -> None:
    quota = a_quota(instances=(9, 10), cores=(8, 8))
    assert headroom(quota, FlavorSize(), [], ours=9).left == 1


def test_a_full_quota_is_told_with_what_is_not_ours() -> None:
    quota = a_quota(instances=(9, 10))
    told = headroom(quota, SIZE, [SIZE], ours=6)
    assert told == Headroom(
        0,
        "the quota is reached: 10 of 10 instances are used, 3 servers of the project are not of"
        " this installation",
    )
    assert "not of" not in headroom(quota, SIZE, [], ours=9).message
