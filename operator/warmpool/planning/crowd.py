"""Which VMs to give up where rules say how the rest shall lie."""

from collections.abc import Iterable, Iterator

from warmpool.api.v1alpha1.base import DomainName
from warmpool.domain.cloud import Place
from warmpool.domain.facts import Vm
from warmpool.planning.layout import Layout

Rank = tuple[int, int, int, Place]


class Crowd:
    """Ready VMs, given up one by one so that what stays breaks the rules the least."""

    def __init__(self, layout: Layout, vms: Iterable[Vm]) -> None:
        """`layout`: of the pool, these VMs included. It is changed as VMs leave."""
        self._layout = layout
        self._at: dict[Place, list[Vm]] = {}
        for vm in sorted(vms, key=_age, reverse=True):
            self._at.setdefault(vm.place, []).append(vm)

    def leave(self, number: int) -> Iterator[Vm]:
        """So many of them: out of the fullest rack and hypervisor, unless the rules say another."""
        for _ in range(number):
            place = min(self._fullest(), key=self._rank, default=None)
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

    def _rank(self, place: Place) -> Rank:
        counts = self._layout.counts
        return (
            self._layout.cost_after(place, -1),
            -counts[DomainName.RACK][place.rack],
            -counts[DomainName.HYPERVISOR][place.hypervisor],
            place,
        )


def _age(vm: Vm) -> tuple[object, ...]:
    return (vm.ready_at or vm.created, vm.ref)
