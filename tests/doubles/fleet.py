"""A store with many pools, whose statuses are what their VMs are."""

from collections import Counter

from builders import a_place, a_pool_body, a_vm_body
from warmpool.api.names import Kind
from warmpool.domain.ids import Ref
from warmpool.reconcile.store import Store

STATES = (*["ready"] * 7, "claimed", "claimed", "building")
RACKS = 10
HOSTS = 40


def a_fleet(pools: int = 20, vms: int = 2000) -> Store:
    """So many pools with so many VMs in all: of ten, seven ready, two claimed, one building."""
    store = Store()
    counts = {Ref("search", f"pool-{n}"): Counter[str]() for n in range(pools)}
    for number in range(vms):
        pool = Ref("search", f"pool-{number % pools}")
        state = STATES[number // pools % len(STATES)]
        counts[pool][state] += 1
        store.apply(Kind.WARM_VM, _vm(number, pool, state))
    for pool, states in counts.items():
        store.apply(Kind.WARM_POOL, _pool(pool, states))
    return store


def _vm(number: int, pool: Ref, state: str) -> dict[str, object]:
    host = number // 20 * 7 % HOSTS
    body = a_vm_body(
        number + 1,
        phase="Building" if state == "building" else "Ready",
        place=a_place(host + 1, rack=f"r{host % RACKS + 1:02}", zone=f"az{host % 2 + 1}"),
        claim="logs-7" if state == "claimed" else None,
    )
    body["metadata"]["name"] = f"{pool.name}-{number}"
    body["spec"]["poolRef"] = {"name": pool.name, "uid": f"uid-of-{pool.name}"}
    return body


def _pool(pool: Ref, states: Counter[str]) -> dict[str, object]:
    status = {
        "ready": states["ready"],
        "claimed": states["claimed"],
        "building": states["building"],
        "replicas": states["ready"] + states["building"],
        "state": "Filling" if states["building"] else "Full",
        "claimable": {
            "any": states["ready"],
            "distinctHypervisors": min(states["ready"], HOSTS),
            "distinctRacks": min(states["ready"], RACKS),
        },
    }
    wanted = states["ready"] + states["building"]
    return a_pool_body(pool, replicas=wanted, status=status)
