"""How the checks of a pool's VMs went. Known to the leader only: the next one counts anew."""

from collections.abc import Container
from datetime import datetime

from warmpool.api.names import Phase
from warmpool.domain.facts import Vm
from warmpool.domain.ids import VmUid
from warmpool.domain.pools import Checked, is_sick


class Checks:
    """The last check of each VM of a pool."""

    def __init__(self, began: datetime) -> None:
        """`began`: when this replica began to look after the pool."""
        self._began = began
        self._last: dict[VmUid, Checked] = {}

    def of(self, vm: Vm) -> Checked | None:
        """The last check of a VM; None: it is not ready, or somebody's."""
        if vm.claim is not None or vm.retained or not (vm.phase is Phase.READY or is_sick(vm)):
            return None
        known = self._last.get(vm.uid)
        return known or Checked(max(self._began, vm.ready_at or self._began), ever=False)

    def note(self, vm: VmUid, now: datetime, *, failed: bool) -> None:
        """A VM was checked."""
        before = self._last.get(vm)
        failures = before.failures if before is not None else 0
        self._last[vm] = Checked(now, failures + 1 if failed else 0)

    def keep(self, vms: Container[VmUid]) -> None:
        """Forget all others."""
        self._last = {uid: last for uid, last in self._last.items() if uid in vms}
