"""Compute services: what they are sent, what becomes of it while they are dead, and after."""

from collections import deque
from collections.abc import Callable

from warmpool.sim.world import Host, World

EVACUATED = "done"
"""Status of an evacuation that its old host, dead at the time, does not know of yet."""


class Computes:
    """Messages to compute services, and the slots in which they build.

    A cast to a service that is dead waits without end, and is carried out when it is back, however
    late that is. Nova itself does the same.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: deque[tuple[Host, Callable[[], None]]] = deque()
        self._building = 0

    def cast(self, host: Host, work: Callable[[], None]) -> None:
        """Let a host do something: now, or when its service lives again."""
        if host.alive:
            work()
        else:
            host.queue.append(work)

    def later(self, host: Host, seconds: float, work: Callable[[], None]) -> None:
        """Let a host finish something. If it is dead by then, it does so when it lives again."""
        self._world.time.after(seconds, lambda: self.cast(host, work))

    def enter(self, host: Host, work: Callable[[], None]) -> None:
        """Do the work as soon as a slot for a build is free."""
        self._waiting.append((host, work))
        self._pump()

    def leave(self, host: Host) -> None:
        """A build is over."""
        host.building -= 1
        self._building -= 1
        self._pump()

    def _pump(self) -> None:
        timings = self._world.spec.timings
        at_once, per_host = timings.builds_at_once, timings.builds_per_host
        for _ in range(len(self._waiting)):
            if at_once is not None and self._building >= at_once:
                return
            host, work = self._waiting.popleft()
            if per_host is not None and host.building >= per_host:
                self._waiting.append((host, work))
                continue
            host.building += 1
            self._building += 1
            work()

    def kill(self, host: Host, *, power: bool = False) -> None:
        """The compute service dies. With `power` the whole machine does, and its guests too."""
        if host.silent_since is None:
            host.silent_since = self._world.time.at
        host.powered = host.powered and not power
        self._show_guests(host)

    def revive(self, host: Host) -> None:
        """The service is back, and carries out what was sent to it meanwhile.

        Guests of a machine that was off do not come back by themselves.
        """
        if not host.powered:
            host.ghosts.clear()
        self._release_evacuated(host)
        host.silent_since, host.powered = None, True
        queue, host.queue = host.queue, []
        for work in queue:
            work()

    def _release_evacuated(self, host: Host) -> None:
        for migration in self._world.migrations:
            if migration.source != host.name or migration.status != EVACUATED:
                continue
            migration.status = "completed"
            server = self._world.servers.get(migration.server)
            if server is not None and host.name in server.placed_on:
                self._world.unplace(server, host)

    def _show_guests(self, host: Host) -> None:
        if host.powered:
            return
        for server in self._world.servers.values():
            if server.host == host.name:
                self._world.guest_off(server)
        for ident, addresses in host.ghosts.items():
            for address in addresses:
                self._world.show_address(address, ident, up=False)
        for addresses in host.ghosts.values():
            for address in addresses:
                self._world.addresses.free(address)
        host.ghosts.clear()
