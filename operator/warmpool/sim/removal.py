"""The end of servers: accepted with 204, over with 404, and sometimes not over even then."""

from functools import partial

from warmpool.sim.computes import Computes
from warmpool.sim.errors import locked
from warmpool.sim.faults import DeleteFault, Faults
from warmpool.sim.world import POWER_NONE, Host, Server, World


class Removal:
    """Deletes servers."""

    def __init__(self, world: World, faults: Faults, computes: Computes) -> None:
        self._world = world
        self._faults = faults
        self._computes = computes

    def delete(self, server: Server, *, admin: bool) -> None:
        """Begin to delete a server. A second time is as good as the first.

        Raises:
            Refused: 409, it is locked, and this is no admin.
        """
        self._world.note("delete", server)
        if server.locked and not admin:
            raise locked(server.id)
        fault = self._faults.strike(DeleteFault, lambda fault: fault.suits(server.name))
        if fault is not None and fault.effect == "ignored":
            return
        if server.task == "deleting":
            return
        if fault is not None:
            self._mark(server)
            server.hung = True
            return
        self._begin(server)

    def finish(self, server: Server, *, guest_lives_on: bool = False) -> None:
        """The server is gone: 404 from here on."""
        if server.id not in self._world.servers:
            return
        world, host = self._world, self._world.hosts.get(server.host or "")
        world.remove(server)
        if guest_lives_on and host is not None:
            host.ghosts[server.id] = tuple(server.addresses.values())
            server.addresses = {}
        world.take_addresses(server)
        for name in list(server.placed_on):
            world.unplace(server, world.hosts[name])
        self._bury(server, host)

    def _bury(self, server: Server, host: Host | None) -> None:
        """What Nova still tells of it: its place, but neither tags nor metadata."""
        if host is not None:
            host.reported_ram -= server.flavor.ram_mb
        server.vm_state, server.task, server.power = "deleted", None, POWER_NONE
        server.all_tags, server.tags = server.tags, ()
        server.metadata = {}
        server.fault = None
        server.job += 1
        self._world.touch(server)
        server.terminated = server.updated

    def _mark(self, server: Server) -> None:
        server.task = "deleting"
        self._world.touch(server)

    def _begin(self, server: Server) -> None:
        host = self._world.hosts.get(server.host or "")
        if host is None:
            self.finish(server)
            return
        if not self._world.is_up(host):
            self.finish(server, guest_lives_on=server.guest_up)
            return
        self._mark(server)
        if server.vm_state == "building" and not server.hung:
            return
        server.job += 1
        finish = partial(self.finish, server)
        seconds = self._world.draw(self._world.spec.timings.delete)
        self._computes.cast(host, lambda: self._computes.later(host, seconds, finish))
