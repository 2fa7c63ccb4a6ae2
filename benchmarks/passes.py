"""A store with claims that wait: what the binder goes over whenever a VM comes or goes."""

from datetime import UTC, datetime
from typing import Any

from warmpool.api.names import API_VERSION, Kind
from warmpool.domain.cloud import Place
from warmpool.planning.stock import Shelf
from warmpool.reconcile.decide import Decider
from warmpool.reconcile.store import Store
from warmpool.sim.clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOM = 100_000
"""VMs that may be committed: more than there are."""


class Waiting:
    """A pool with such VMs, and claims that ask it for more than it can have."""

    def __init__(self, shelf: Shelf, claims: int, count: int, mode: str) -> None:
        self._places = [place for place, n in shelf.items() for _ in range(n)]
        self._store = Store()
        self._claims = claims
        self._newest = 0
        self._apply(Kind.WARM_POOL, "data", _POOL)
        for number, place in enumerate(self._places):
            self._apply(Kind.WARM_VM, f"vm-{number}", _vm("Ready", place))
        for number in range(claims):
            self._apply(Kind.VM_CLAIM, f"claim-{number}", _claim(count, mode))
        self._decider = Decider(self._store, ManualClock(NOW))
        self.pass_()

    def change(self) -> None:
        """A VM goes, or one comes."""
        phase = ("Ready", "Failed")[self._newest % 2]
        self._apply(Kind.WARM_VM, "vm-0", _vm(phase, self._places[0]))

    def pass_(self) -> None:
        """Go over the claims, and serve none."""
        decided = self._decider.decide(ROOM)
        if len(decided.waiting) != self._claims:
            raise RuntimeError("all were to wait")

    def _apply(self, kind: Kind, name: str, body: dict[str, Any]) -> None:
        self._newest += 1
        meta = {
            "namespace": "ns",
            "name": name,
            "uid": name,
            "generation": 1,
            "resourceVersion": str(self._newest),
            "creationTimestamp": NOW.isoformat(),
        }
        self._store.apply(kind, {"apiVersion": API_VERSION, "metadata": meta, **body})


_POOL = {
    "spec": {
        "replicas": 1,
        "cloudRef": {"secretName": "s", "cloud": "c"},
        "template": {"flavor": "f", "image": "i"},
    }
}


def _vm(phase: str, place: Place) -> dict[str, Any]:
    placed = {"zone": place.zone, "rack": place.rack, "hypervisor": place.hypervisor}
    status = {"phase": phase, "serverID": "s", "region": place.region, **placed}
    return {"spec": {"poolRef": {"name": "data", "uid": "data"}}, "status": status}


def _claim(count: int, mode: str) -> dict[str, Any]:
    asked = [{"name": "data", "pool": {"name": "data"}, "count": count}]
    spec = {"requests": asked, "mode": mode, "onUnsatisfied": "Wait", "timeout": "1h"}
    return {"spec": spec}
