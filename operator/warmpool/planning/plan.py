"""A pool's plan: facts in, actions out. No clock, no chance, no I/O."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from warmpool.api.names import Reason
from warmpool.domain.actions import Action, Build, CreateVm, Discard
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Plan, PoolFacts, VmView, counts_for_size
from warmpool.planning.health import may_give_up
from warmpool.planning.lifecycle import WAIT, Rules, Step, next_step
from warmpool.planning.sizing import surplus, to_create, zones_for


def plan(facts: PoolFacts) -> Plan:
    """What to do with a pool now."""
    looked = list(_steps(facts))
    restless = frozenset(uid for uid, step in looked if step is not WAIT and not step.at_rest)
    alarms = {uid: step.look_again for uid, step in looked if step.at_rest and step.look_again}
    steps = [step for _, step in looked if not step.at_rest]
    stepping = [s.action for s in steps if s.action is not None]
    resizing = [] if _is_still(facts) else list(_resize(facts, stepping))
    going = {a.vm.uid for a in resizing if isinstance(a, Discard)}
    staying = [a for a in stepping if isinstance(a, CreateVm) or a.vm.uid not in going]
    return Plan(tuple(staying + resizing), _earliest(facts, steps), restless | going, alarms)


def _is_still(facts: PoolFacts) -> bool:
    """Nothing is built or given up: paused."""
    return facts.pool.spec.paused and not facts.pool.deleting


def _steps(facts: PoolFacts) -> Iterator[tuple[VmUid, Step]]:
    rules = Rules(facts.pool.spec, facts.now, may_give_up=may_give_up(facts))
    no_builds = replace(rules, may_build=False)
    for view in facts.vms:
        if facts.pool.deleting and counts_for_size(view) and not view.busy and not view.settling:
            yield view.vm.uid, Step(Discard(view.vm, Reason.DELETING))
            continue
        yield view.vm.uid, next_step(view, rules if _may_build(facts, view) else no_builds)


def _may_build(facts: PoolFacts, view: VmView) -> bool:
    held = "" in facts.holds or view.vm.zone in facts.holds
    return facts.cloud_ready and facts.problem is None and not held


def _resize(facts: PoolFacts, stepping: list[Action]) -> Iterator[Action]:
    if facts.pool.deleting:
        return
    busy = {a.vm.uid for a in stepping if not isinstance(a, CreateVm | Build)}
    for vm in surplus(facts):
        if vm.uid not in busy:
            yield Discard(vm, Reason.SHRINKING)
    if facts.cloud_ready and facts.problem is None:
        for zone in zones_for(facts, to_create(facts)):
            yield CreateVm(zone)


def _earliest(facts: PoolFacts, steps: list[Step]) -> datetime | None:
    times = [s.look_again for s in steps if s.look_again is not None]
    times += [hold.until for hold in facts.holds.values()]
    if facts.next_token is not None:
        times.append(facts.next_token)
    return min(times, default=None)
