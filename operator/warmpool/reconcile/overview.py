"""What people are shown of now: pools, and how their VMs lie over racks and hypervisors."""

from collections import Counter
from typing import Any

from warmpool.api.names import PoolCondition
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref
from warmpool.reconcile.store import Store

Json = dict[str, Any]

STATES = ("ready", "claimed", "building", "failed", "going")
"""Of a VM, as people are told."""


def pools(store: Store) -> list[Json]:
    """All pools, by name."""
    return [_pool(pool) for pool in sorted(store.pools(), key=lambda pool: pool.ref)]


def _pool(pool: Pool) -> Json:
    status = pool.status
    held = [c for c in status.conditions if c.type == PoolCondition.READY]
    return {
        "namespace": pool.ref.namespace,
        "name": pool.ref.name,
        "wanted": pool.spec.replicas,
        "reserve": pool.spec.reserve,
        "ready": status.ready,
        "building": status.building,
        "claimed": status.claimed,
        "failed": status.failed,
        "claimable": {
            "any": status.claimable.any,
            "hypervisors": status.claimable.distinct_hypervisors,
            "racks": status.claimable.distinct_racks,
        },
        "state": status.state,
        "message": held[0].message if held else "",
        "failure": status.last_failure.message if status.last_failure is not None else "",
    }


def density(store: Store, ref: Ref) -> Json | None:
    """How many VMs of a pool stand on each hypervisor, by rack and state. None: no such pool."""
    pool = store.pool(ref)
    if pool is None:
        return None
    counted: dict[tuple[str, str, str], Counter[str]] = {}
    for vm in store.vms_of(ref):
        place = vm.place
        here = counted.setdefault((place.zone, place.rack, place.hypervisor), Counter())
        here[_state(store, vm)] += 1
    racks: dict[tuple[str, str], list[Json]] = {}
    for (zone, rack, hypervisor), counts in sorted(counted.items()):
        states = {state: counts[state] for state in STATES if counts[state]}
        racks.setdefault((zone, rack), []).append({"hypervisor": hypervisor, "vms": states})
    return {
        "pool": _pool(pool),
        "racks": [
            {"zone": zone, "rack": rack, "hypervisors": hosts}
            for (zone, rack), hosts in sorted(racks.items())
        ],
        "vms": [_vm(store, vm) for vm in sorted(store.vms_of(ref), key=lambda vm: vm.ref)],
    }


def _vm(store: Store, vm: Vm) -> Json:
    return {
        "namespace": vm.ref.namespace,
        "name": vm.ref.name,
        "state": _state(store, vm),
        "zone": vm.place.zone,
        "rack": vm.place.rack,
        "hypervisor": vm.place.hypervisor,
        "claim": f"{vm.claim.namespace}/{vm.claim.name}" if vm.claim is not None else "",
    }


def _state(store: Store, vm: Vm) -> str:
    if vm.deleting:
        return "going"
    if store.owner(vm) is not None:
        return "claimed"
    known = {"Ready": "ready", "Failed": "failed", "Terminating": "going"}
    return known.get(vm.phase.value, "building")
