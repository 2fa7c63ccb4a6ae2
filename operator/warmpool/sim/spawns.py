"""What hypervisors do to become a server's host: claims, spawns, attempts on the next one."""

from dataclasses import dataclass
from datetime import datetime

from warmpool.sim.computes import Computes
from warmpool.sim.faults import Faults, SpawnFault
from warmpool.sim.removal import Removal
from warmpool.sim.scheduler import Choice, fits, group_full
from warmpool.sim.world import POWER_NONE, POWER_ON, Fault, Host, Server, World

VIOLATED = "Anti-affinity instance group policy was violated."
TRACEBACK = 'Traceback (most recent call last):\n  File "nova/sim.py", line 1, in spawn\n{0}\n'


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to build a server."""

    server: Server
    host: Host
    """Holds capacity for it already."""
    alternates: tuple[Host, ...]
    number: int = 1


class Spawns:
    """Carries out the scheduler's choices."""

    def __init__(self, world: World, faults: Faults, computes: Computes, removal: Removal) -> None:
        self._world = world
        self._faults = faults
        self._computes = computes
        self._removal = removal

    def send(self, server: Server, choice: Choice) -> None:
        """Send a server to its host. If that is dead, it stays in scheduling until it is back."""
        self._try(Attempt(server, choice.host, choice.alternates))

    def fail(self, server: Server, message: str) -> None:
        """Set a server to ERROR. It counts on, until somebody deletes it."""
        world = self._world
        world.take_addresses(server)
        world.set_host(server, None)
        for name in list(server.placed_on):
            world.unplace(server, world.hosts[name])
        server.vm_state, server.task, server.power = "error", None, POWER_NONE
        world.touch(server)
        server.fault = Fault(message, server.updated, TRACEBACK.format(message))
        self._log_create(server, server.updated, "Error")

    def appear(self, server: Server, host: Host) -> None:
        """Let a server be ACTIVE on a host from one moment to the next."""
        self._world.place(server, host)
        self._world.set_host(server, host)
        self._world.give_addresses(server)
        self._activate(server)

    def boot(self, server: Server) -> None:
        """Let the guest answer when it has booted, unless it was ended before."""
        boots = server.boots
        self._world.time.after(
            self._world.draw(self._world.spec.timings.boot),
            lambda: self._world.guest_on(server) if server.boots == boots else None,
        )

    def _log_create(self, server: Server, moment: datetime, message: str | None) -> None:
        create = server.actions[0]
        create.updated, create.message = moment, message

    def _try(self, attempt: Attempt) -> None:
        self._world.place(attempt.server, attempt.host)
        self._computes.cast(attempt.host, lambda: self._receive(attempt))

    def _receive(self, attempt: Attempt) -> None:
        server = attempt.server
        if self._gone(server):
            return
        server.task = None
        self._world.touch(server)
        seconds = self._world.draw(self._world.spec.timings.claim)
        self._computes.later(attempt.host, seconds, lambda: self._claim(attempt))

    def _claim(self, attempt: Attempt) -> None:
        """The hypervisor takes the server, unless its group has a member too many there."""
        server, host = attempt.server, attempt.host
        if self._gone(server):
            return
        if group_full(self._world, server, host):
            self._next(attempt, VIOLATED)
            return
        self._world.set_host(server, host)
        self._world.give_addresses(server)
        server.task = "block_device_mapping"
        self._world.touch(server)
        self._computes.enter(host, lambda: self._spawn(attempt))

    def _spawn(self, attempt: Attempt) -> None:
        server, host = attempt.server, attempt.host
        if server.task == "block_device_mapping":
            server.task = "spawning"
            self._world.touch(server)
        fault = self._faults.spawn(server.name, host.name)
        if fault is not None and fault.effect == "hang":
            server.hung = True
            self._computes.leave(host)
            return
        timings = self._world.spec.timings
        seconds = self._world.draw(timings.failed_spawn if fault else timings.build)
        self._world.time.after(seconds, lambda: self._returned(attempt, fault))

    def _returned(self, attempt: Attempt, fault: SpawnFault | None) -> None:
        """The spawn is over: its slot is free, whether or not the service is there to say so."""
        self._computes.leave(attempt.host)
        self._computes.cast(attempt.host, lambda: self._ended(attempt, fault))

    def _ended(self, attempt: Attempt, fault: SpawnFault | None) -> None:
        server = attempt.server
        if self._gone(server):
            return
        if fault is None:
            self._activate(server)
            return
        message = fault.message.replace("{id}", server.id)
        if fault.effect == "abort":
            self.fail(server, message)
        else:
            self._next(attempt, message)

    def _gone(self, server: Server) -> bool:
        """Whether the build is pointless. One that is being deleted ends here."""
        if server.id in self._world.servers and server.task == "deleting":
            self._removal.finish(server)
        return server.id not in self._world.servers

    def _activate(self, server: Server) -> None:
        self._world.note("active", server)
        server.vm_state, server.task, server.power = "active", None, POWER_ON
        self._world.touch(server)
        server.launched = server.updated
        self._log_create(server, server.updated, None)
        self.boot(server)

    def _next(self, attempt: Attempt, message: str) -> None:
        """This hypervisor will not do: try the next one that the scheduler named."""
        server, world = attempt.server, self._world
        world.take_addresses(server)
        world.set_host(server, None)
        world.unplace(server, attempt.host)
        server.task = "scheduling"
        world.touch(server)
        if attempt.number >= world.spec.max_attempts:
            self._give_up(
                server,
                f"Exceeded max scheduling attempts {attempt.number} for"
                f" instance {server.id}. Last exception: {message}",
            )
            return
        left = [host for host in attempt.alternates if fits(host, server)]
        if not left:
            self._give_up(
                server,
                "Exhausted all hosts available for retrying build failures for"
                f" instance {server.id}.",
            )
            return
        self._try(Attempt(server, left[0], tuple(left[1:]), attempt.number + 1))

    def _give_up(self, server: Server, why: str) -> None:
        self.fail(server, f"Exceeded maximum number of retries. {why}")
