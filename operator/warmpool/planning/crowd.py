"""Which VMs to give up where rules say how the rest shall lie."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from warmpool.api.v1alpha1.base import DomainName
from warmpool.api.v1alpha1.pool import ScaleDown
from warmpool.domain.cloud import Place
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref
from warmpool.planning.layout import Layout

Rank = tuple[int, float, float, Place]


class Crowd:
    """Ready VMs, given up one by one so that what stays breaks the rules the least."""

    def __init__(
        self,
        layout: Layout,
        vms: Iterable[Vm],
        policy: ScaleDown = ScaleDown.MOST_CROWDED_DOMAIN,
    ) -> None:
        """Take them in.

        Args:
            layout: of the pool, these VMs included. It is changed as VMs leave.
            vms: those to choose from.
            policy: who goes first of those that cost the rules the same.
        """
        self._layout = layout
        self._crowded = policy is ScaleDown.MOST_CROWDED_DOMAIN
        self._newest = policy is ScaleDown.NEWEST
        self._at: dict[Place, list[Vm]] = {}
        for vm in sorted(vms, key=_age, reverse=not self._newest):
            self._at.setdefault(vm.place, []).append(vm)

    def leave(self, number: int) -> Iterator[Vm]:
        """So many of them, as the policy says unless the rules say another."""
        for _ in range(number):
            if self._crowded:
                place = min(self._fullest(), key=self._crowd, default=None)
            else:
                place = min(self._at, key=self._seniority, default=None)
            if place is None:
                return
            here = self._at[place]
            self._layout.shift(place, -1)
            yield here.pop()
            if not here:
                del self._at[place]

    def _fullest(self) -> Iterator[Place]:
        """The fullest hypervisor of each rack: a VM of it costs no more than of another there."""
        counts = self._layout.counts[DomainName.HYPERVISOR]
        best: dict[tuple[str, str], tuple[int, Place]] = {}
        for place in self._at:
            rack, rank = (place.zone, place.rack), (-counts[place.hypervisor], place)
            if rack not in best or rank < best[rack]:
                best[rack] = rank
        return (place for _, place in best.values())

    def _seniority(self, place: Place) -> Rank:
        since = _age(self._at[place][-1])[0].timestamp()
        return (self._layout.cost_after(place, -1), -since if self._newest else since, 0, place)

    def _crowd(self, place: Place) -> Rank:
        counts = self._layout.counts
        return (
            self._layout.cost_after(place, -1),
            -counts[DomainName.RACK][place.rack],
            -counts[DomainName.HYPERVISOR][place.hypervisor],
            place,
        )


def _age(vm: Vm) -> tuple[datetime, Ref]:
    return (vm.ready_at or vm.created, vm.ref)
