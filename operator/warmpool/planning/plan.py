"""A pool's plan: facts in, actions out. No clock, no chance, no I/O."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from warmpool.api.names import Phase, Reason
from warmpool.domain.actions import (
    Action,
    Build,
    Check,
    ConfirmLost,
    CreateVm,
    Discard,
    Keep,
    MakeReady,
    Preserve,
    Release,
    Relocate,
    ReportBuilding,
    Sicken,
)
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import (
    PRESERVED_AT_MOST,
    Plan,
    PoolFacts,
    VmView,
    counts_for_size,
    is_contradicted,
)
from warmpool.planning.filling import to_build
from warmpool.planning.grouping import Turns
from warmpool.planning.health import may_give_up
from warmpool.planning.lifecycle import WAIT, Rules, Step, next_step
from warmpool.planning.mending import mend
from warmpool.planning.sizing import room, surplus
from warmpool.planning.turnover import turnover


def plan(facts: PoolFacts) -> Plan:
    """What to do with a pool now. Who is given up has its successor planned in the same breath."""
    looked = list(_steps(facts))
    restless = frozenset(uid for uid, step in looked if not step.at_rest)
    alarms = {uid: step.look_again for uid, step in looked if step.at_rest and step.look_again}
    steps = [step for _, step in looked if not step.at_rest]
    stepping = [s.action for s in steps if s.action is not None]
    if facts.frozen:
        stepping = [action for action in stepping if _may_be_done_frozen(action, facts)]
    if _is_still(facts):
        return Plan(tuple(stepping), _earliest(facts, steps), restless, alarms, facts.mending)
    leaving, left = _leaving(facts, stepping)
    going = {a.vm.uid for a in leaving}
    staying = [a for a in stepping if isinstance(a, CreateVm) or a.vm.uid not in going]
    mended, mending = mend(facts) if left is facts else ((), facts.mending)
    actions = (*staying, *leaving, *_coming(left, stepping), *mended)
    wake_at = _earliest(replace(facts, mending=mending), steps)
    return Plan(actions, wake_at, restless | going, alarms, mending)


def _leaving(facts: PoolFacts, stepping: list[Action]) -> tuple[list[Discard], PoolFacts]:
    """Who goes because there are too many, then who goes for a newer one; and who is left."""
    in_hand = {a.vm.uid for a in stepping if not isinstance(a, CreateVm | Build)}
    left = _without(facts, [a for a in stepping if isinstance(a, Discard)])
    if facts.pool.deleting:
        return [], left
    too_many = [Discard(vm, Reason.SHRINKING) for vm in surplus(left) if vm.uid not in in_hand]
    left = _without(left, too_many)
    newer = turnover(left, in_hand)
    return too_many + newer, _without(left, newer)


def _without(facts: PoolFacts, discards: list[Discard]) -> PoolFacts:
    """The facts once these are given up."""
    if not discards:
        return facts
    gone = {discard.vm.uid for discard in discards}
    vms = (replace(v, leaving=True) if v.vm.uid in gone else v for v in facts.vms)
    return replace(facts, vms=tuple(vms))


def _coming(facts: PoolFacts, stepping: list[Action]) -> list[CreateVm]:
    """New VMs, after those that are there already and have no server."""
    if facts.pool.deleting:
        return []
    return to_build(facts, sum(isinstance(action, Build) for action in stepping))


def look_back(facts: PoolFacts) -> tuple[Plan, bool]:
    """What may be done before it is known that the API server has forgotten nothing.

    The second is whether that is known now: what Nova says of every VM is what we know.
    """
    decided = plan(facts)
    proving = tuple(action for action in decided.actions if isinstance(action, Keep | ConfirmLost))
    return replace(decided, actions=proving), facts.cloud_ready and not any(
        _is_unproven(view) for view in facts.vms
    )


def _is_unproven(view: VmView) -> bool:
    """What a binding in flight has is its claim's or nobody's: the binder asks whose."""
    if view.settling:
        return False
    return (is_contradicted(view.vm, view.server) and not view.vm.retained) or _is_lost(view)


def _is_lost(view: VmView) -> bool:
    """Whether a VM that a claim could get has no server any more: it ended since the backup."""
    vm = view.vm
    given = vm.claim is not None or vm.retained or vm.deleting or view.leaving
    return view.server_missing and vm.phase is Phase.READY and not given


def _is_still(facts: PoolFacts) -> bool:
    """Nothing is built or given up: paused, or frozen."""
    return (facts.pool.spec.paused or facts.frozen) and not facts.pool.deleting


def _may_be_done_frozen(action: Action, facts: PoolFacts) -> bool:
    """Whether it neither asks the cloud nor gives a VM up on what the cloud said before.

    Each call would be one more login that is refused, and Keystone may lock an account for many.
    """
    match action:
        case MakeReady(vm=vm):
            return not vm.dirty  # of a used one Nova is told first that it is nobody's
        case ReportBuilding() | Relocate() | Sicken() | Check() | Release():
            return True
        case Discard():
            return facts.pool.deleting
        case _:
            return False


def _steps(facts: PoolFacts) -> Iterator[tuple[VmUid, Step]]:
    pool, left = facts.pool, _room_for_builds(facts)
    keepable = PRESERVED_AT_MOST - facts.tally["preserved",]
    rules = Rules(
        pool.spec,
        facts.now,
        pool.revision,
        may_give_up=may_give_up(facts),
        preserve=pool.preserve,
    )
    no_builds, turns = replace(rules, may_build=False), Turns(facts)
    for view in facts.vms:
        left_alone = view.busy or view.settling or view.unread
        if pool.deleting and counts_for_size(view) and not left_alone:
            yield view.vm.uid, Step(Discard(view.vm, Reason.DELETING))
            continue
        step = next_step(view, rules if _may_build(facts, view) else no_builds)
        if isinstance(step.action, Build):
            step = step if left > 0 and turns.takes(view) else WAIT
            left -= 1
        if isinstance(step.action, Preserve):
            step = step if keepable > 0 else Step(Discard(view.vm, Reason.UNHEALTHY))
            keepable -= 1
        yield view.vm.uid, step


def _room_for_builds(facts: PoolFacts) -> float:
    """How many servers may be POSTed, as far as the quota is known, and within `maxSize`."""
    if not facts.survey.done:
        return 0
    bounds = (facts.survey.headroom.left, room(facts))
    return min((left for left in bounds if left is not None), default=float("inf"))


def _may_build(facts: PoolFacts, view: VmView) -> bool:
    held = "" in facts.holds or view.vm.zone in facts.holds
    return facts.cloud_ready and facts.problem is None and not held


def _earliest(facts: PoolFacts, steps: list[Step]) -> datetime | None:
    times = [s.look_again for s in steps if s.look_again is not None]
    times += [hold.until for hold in facts.holds.values()]
    if facts.next_token is not None:
        times.append(facts.next_token)
    if facts.mending.until is not None and facts.mending.until > facts.now:
        times.append(facts.mending.until)
    return min(times, default=None)
