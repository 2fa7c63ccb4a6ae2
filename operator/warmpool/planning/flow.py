"""Cheapest flow on small networks whose arcs cost more the more they carry.

Successive shortest paths, one unit at a time, with potentials: Dijkstra's search ends at the sink,
so that a unit looks at the few arcs around its path and not at the network. Costs are whole numbers
of any size, so that preferences in order of rank fit into one number. It is exact: the flow is
largest, and of the largest the cheapest. Same network, same answer.
"""

from heapq import heappop, heappush
from typing import NamedTuple


class Cost(NamedTuple):
    """What the next unit over an arc costs. It never falls as the arc fills."""

    again: int = 0
    """For each unit after the first."""
    steep: int = 0
    """Times the units that are there already."""
    left: int = 0
    """Stock behind the arc, before the flow."""
    last: int = 0
    """For the unit that leaves that stock empty."""
    thin: int = 0
    """Times how much less than from a stock of `full` the sum of squares of the stocks falls."""
    full: int = 0
    always: int = 0
    """For every unit."""

    def of_next(self, flow: int) -> int:
        """The cost of one more, with so many there."""
        left = self.left - flow
        cost = self.always + self.steep * flow + self.thin * (2 * (self.full - left) + 1)
        if flow:
            cost += self.again
        if left == 1:
            cost += self.last
        return cost


FREE = Cost()


class Network:
    """Nodes are numbers; an arc has an even number and its way back the next one."""

    def __init__(self) -> None:
        self._out: list[list[int]] = []
        self._head: list[int] = []
        self._room: list[int] = []
        self._price: list[int] = []
        self._cost: list[Cost] = []
        self._potential: list[int] = []

    def node(self) -> int:
        self._out.append([])
        self._potential.append(0)
        return len(self._out) - 1

    def arc(self, tail: int, head: int, capacity: int, cost: Cost = FREE) -> int:
        """An arc. Its first unit may not cost less than nothing."""
        arc = len(self._head)
        self._head += (head, tail)
        self._room += (capacity, 0)
        self._price += (0, 0) if cost is FREE else (cost.of_next(0), 0)
        self._cost.append(cost)
        self._out[tail].append(arc)
        self._out[head].append(arc + 1)
        return arc

    def flow(self, arc: int) -> int:
        return self._room[arc + 1]

    def push(self, source: int, sink: int, amount: int) -> int:
        """Send up to so many units; returns how many got through."""
        for sent in range(amount):
            path = self._cheapest(source, sink)
            if not path:
                return sent
            for arc in path:
                self._send(arc)
        return amount

    def _send(self, arc: int) -> None:
        """One unit over an arc or, odd number, back over it."""
        self._room[arc] -= 1
        self._room[arc ^ 1] += 1
        cost = self._cost[arc >> 1]
        if cost is not FREE:
            forth = arc & ~1
            flow = self._room[forth | 1]
            self._price[forth] = cost.of_next(flow)
            self._price[forth | 1] = -cost.of_next(flow - 1) if flow else 0

    def _cheapest(self, source: int, sink: int) -> list[int]:
        """Arcs of the cheapest way from source to sink that has room. Empty: there is none."""
        out, head, room, price, potential = (
            self._out, self._head, self._room, self._price, self._potential,
        )  # fmt: skip
        best: dict[int, int] = {source: 0}
        via: dict[int, int] = {}
        final: dict[int, int] = {}
        heap = [(0, source)]
        while heap:
            far, node = heappop(heap)
            if node in final:
                continue
            final[node] = far
            if node == sink:
                break
            base = far + potential[node]
            for arc in out[node]:
                if room[arc]:
                    there = head[arc]
                    reach = base + price[arc] - potential[there]
                    known = best.get(there)
                    if known is None or reach < known:
                        best[there] = reach
                        via[there] = arc
                        heappush(heap, (reach, there))
        else:
            return []
        for node, distance in final.items():
            potential[node] += distance - far
        return self._path(via, sink)

    def _path(self, via: dict[int, int], sink: int) -> list[int]:
        path = []
        node = sink
        while node in via:
            path.append(via[node])
            node = self._head[via[node] ^ 1]
        return path
