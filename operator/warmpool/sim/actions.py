"""Actions on servers: accepted at once, done later, status and task moving apart."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from warmpool.sim.computes import EVACUATED, Computes
from warmpool.sim.errors import Refused, bad_request, locked, policy, wrong_state
from warmpool.sim.faults import ActionFault, Faults
from warmpool.sim.removal import Removal
from warmpool.sim.scheduler import Wish, decide
from warmpool.sim.spawns import Spawns
from warmpool.sim.spec import Seconds
from warmpool.sim.world import (
    POWER_NONE,
    POWER_OFF,
    POWER_ON,
    POWER_PAUSED,
    Deed,
    Fault,
    Host,
    Migration,
    Server,
    World,
)

STOPS_AFTER_EVACUATION: Final = (2, 95)
"""Microversion from which on an evacuated server arrives stopped."""

Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Kind:
    """One action that changes the state of a server on its host."""

    verb: str
    """As Nova's refusals call it."""
    states: frozenset[str]
    """States of the machine in which it is allowed."""
    task: str
    becomes: str


def _kind(verb: str, states: str, task: str, becomes: str) -> Kind:
    return Kind(verb, frozenset(states.split()), task, becomes)


SIMPLE: Final = {
    "os-stop": _kind("stop", "active error", "powering-off", "stopped"),
    "os-start": _kind("start", "stopped", "powering-on", "active"),
    "reboot": _kind("reboot", "active", "rebooting", "active"),
    "rebuild": _kind("rebuild", "active stopped error", "rebuilding", "active"),
    "pause": _kind("pause", "active", "pausing", "paused"),
    "unpause": _kind("unpause", "paused", "unpausing", "active"),
    "suspend": _kind("suspend", "active", "suspending", "suspended"),
    "resume": _kind("resume", "suspended", "resuming", "active"),
}
POLICIES: Final = {
    "os-migrateLive": "os_compute_api:os-migrate-server:migrate_live",
    "evacuate": "os_compute_api:os-evacuate",
    "os-resetState": "os_compute_api:os-admin-actions:reset_state",
}
OTHERS: Final = frozenset(POLICIES) | {"lock", "unlock", "forceDelete"}
KEYS: Final = frozenset(SIMPLE) | OTHERS

POWERS: Final = {
    "active": POWER_ON,
    "stopped": POWER_OFF,
    "paused": POWER_PAUSED,
    "suspended": POWER_OFF,
}
"""Power of a server by the state that an action leaves it in."""

HISTORY: Final = {
    "os-stop": "stop",
    "os-start": "start",
    "os-migrateLive": "live-migration",
}
"""What os-instance-actions calls an action, where it is not its key."""


class Actions:
    """Carries out actions."""

    def __init__(
        self,
        world: World,
        faults: Faults,
        computes: Computes,
        *,
        spawns: Spawns,
        removal: Removal,
    ) -> None:
        self._world = world
        self._faults = faults
        self._computes = computes
        self._spawns = spawns
        self._removal = removal

    def act(
        self,
        server: Server,
        key: str,
        arguments: Arguments,
        *,
        admin: bool,
        version: tuple[int, int],
    ) -> None:
        """Begin an action.

        Raises:
            Refused: 400 unknown or wrong, 403 not this role, 409 wrong state or locked.
        """
        if key not in KEYS:
            raise bad_request(f"There is no such action: {key}")
        if key in POLICIES and not admin:
            raise policy(POLICIES[key])
        if server.locked and not admin and key not in {"lock", "unlock"}:
            raise locked(server.id)
        if key in SIMPLE:
            self._simple(server, key, arguments)
        elif key == "os-migrateLive":
            self._migrate(server, arguments)
        elif key == "evacuate":
            self._evacuate(server, arguments, version)
        else:
            self._at_once(server, key, arguments, admin=admin)

    def _at_once(self, server: Server, key: str, arguments: Arguments, *, admin: bool) -> None:
        if key == "forceDelete":
            self._removal.delete(server, admin=admin)
        elif key == "os-resetState":
            self._reset(server, str(arguments.get("state")))
        else:
            server.locked = key == "lock"
            server.version += 1

    def _reset(self, server: Server, state: str) -> None:
        """Set the state by hand. An old fault shows again with it."""
        if state not in {"active", "error"}:
            raise bad_request(f"Invalid state {state!r}")
        server.job += 1
        server.vm_state, server.task = state, None
        self._world.touch(server)

    def _check(self, server: Server, verb: str, states: frozenset[str]) -> None:
        if server.vm_state not in states:
            raise wrong_state(verb, server.id, "vm_state", server.vm_state)
        if server.task is not None:
            raise wrong_state(verb, server.id, "task_state", server.task)

    def _start(self, server: Server, key: str, task: str) -> Deed:
        server.task = task
        server.job += 1
        self._world.touch(server)
        deed = Deed(
            HISTORY.get(key, key),
            f"req-{self._world.new_id()}",
            server.updated,
            server.updated,
        )
        server.actions.append(deed)
        return deed

    def _host(self, server: Server, verb: str) -> Host:
        if server.host is None:
            raise Refused(409, f"Cannot '{verb}' instance {server.id} while it has no host")
        return self._world.hosts[server.host]

    def _simple(self, server: Server, key: str, arguments: Arguments) -> None:
        kind = SIMPLE[key]
        self._check(server, kind.verb, kind.states)
        host = self._host(server, kind.verb)
        becomes, task = kind.becomes, kind.task
        if key == "rebuild":
            becomes = "stopped" if server.vm_state == "stopped" else becomes
            self._new_contents(server, arguments)
        if key == "reboot" and arguments.get("type") == "HARD":
            task = "rebooting_hard"
        deed = self._start(server, key, task)
        self._later(
            server,
            key,
            deed,
            host=host,
            seconds=self._world.spec.timings.action,
            done=partial(self._become, server, becomes, host),
        )

    def _new_contents(self, server: Server, arguments: Arguments) -> None:
        image = arguments.get("imageRef")
        if image not in self._world.images:
            raise bad_request("Cannot find image for rebuild")
        server.image_id = str(image)
        if isinstance(name := arguments.get("name"), str):
            server.name = name
        if isinstance(metadata := arguments.get("metadata"), dict):
            server.metadata = dict(metadata)

    def _become(self, server: Server, state: str, host: Host) -> None:
        """The action has succeeded. What runs now was started anew, but for a pause."""
        self._world.guest_off(server)
        server.vm_state, server.task = state, None
        server.power = POWERS[state]
        self._world.touch(server)
        if state == "active" and host.powered:
            server.launched = server.updated
            self._spawns.boot(server)

    def _later(  # noqa: PLR0913 - an action and how it goes on
        self,
        server: Server,
        key: str,
        deed: Deed,
        *,
        host: Host,
        seconds: Seconds,
        done: Callable[[], None],
    ) -> None:
        """Let the host finish the action, unless the server has another job by then."""
        job, before = server.job, server.vm_state
        fault = self._faults.strike(ActionFault, lambda fault: fault.suits(server.name, key))
        if fault is not None and fault.effect == "hang":
            return

        def end() -> None:
            if server.job != job or server.id not in self._world.servers:
                return
            if fault is None:
                done()
            else:
                self._undo(server, key, before)
            deed.updated = self._world.time.moment()
            deed.message = "Error" if fault else None

        wait = self._world.draw(seconds)
        self._computes.cast(host, lambda: self._computes.later(host, wait, end))

    def _undo(self, server: Server, key: str, before: str) -> None:
        """It has failed: the server is back as it was, and tells nobody. A rebuild is lost."""
        server.task = None
        server.vm_state = "error" if key == "rebuild" else before
        self._world.touch(server)
        for name in [name for name in server.placed_on if name != server.host]:
            self._world.unplace(server, self._world.hosts[name])
        if key == "evacuate":
            mine = [m for m in self._world.migrations if m.server == server.id]
            mine[-1].status = "error"
        if key == "rebuild":
            self._world.guest_off(server)
            server.power = POWER_NONE
            message = f"Failed to rebuild instance {server.id}"
            server.fault = Fault(message, server.updated, message)

    def _migrate(self, server: Server, arguments: Arguments) -> None:
        """Live migration. When it fails the server has no fault: only os-migrations tells."""
        self._check(server, "os-migrateLive", frozenset({"active", "paused"}))
        source = self._host(server, "os-migrateLive")
        asked = arguments.get("host")
        if asked is not None and asked not in self._world.hosts:
            raise bad_request(f"Compute host {asked} could not be found.")
        target = self._target(server, source, asked)
        record = self._record(server, source, "live-migration")
        deed = self._start(server, "os-migrateLive", "migrating")
        fault = self._faults.strike(
            ActionFault, lambda fault: fault.suits(server.name, "os-migrateLive")
        )
        if fault is not None and fault.effect == "hang":
            return
        failed = target is None or fault is not None or not self._world.is_up(source)
        if target is not None and not failed:
            self._world.place(server, target)
            record.dest, record.status = target.name, "running"
        end = partial(self._migrated, server, record, deed, server.job)
        wait = self._world.draw(self._world.spec.timings.migrate)
        if failed:
            self._world.time.after(wait, end)
        else:
            self._computes.cast(source, lambda: self._computes.later(source, wait, end))

    def _target(self, server: Server, source: Host, asked: object) -> Host | None:
        """Where it can go. The zone that was asked for at the build pins it."""
        group = self._world.groups.get(server.group or "")
        host = asked if isinstance(asked, str) else None
        wish = Wish(server.zone_asked, host, group, frozenset({source.name}))
        choices = decide(self._world, [server], wish)
        return choices[0].host if choices else None

    def _record(self, server: Server, source: Host, kind: str) -> Migration:
        now = self._world.time.moment()
        number = len(self._world.migrations) + 1
        record = Migration(number, self._world.new_id(), server.id, kind, source.name, now, now)
        self._world.migrations.append(record)
        return record

    def _migrated(self, server: Server, record: Migration, deed: Deed, job: int) -> None:
        if server.id not in self._world.servers:
            return
        if server.job == job:
            server.task = None
            self._world.touch(server)
        record.updated = deed.updated = self._world.time.moment()
        if record.dest is None:
            record.status, deed.message = "error", "Error"
            return
        source, target = self._world.hosts[record.source], self._world.hosts[record.dest]
        self._world.set_host(server, target)
        self._world.unplace(server, source)
        self._world.show_guest(server)
        record.status = "completed"

    def _evacuate(self, server: Server, arguments: Arguments, version: tuple[int, int]) -> None:
        """Build a server anew elsewhere, since its host is down. Placement counts it on both."""
        self._check(server, "evacuate", frozenset({"active", "stopped", "error"}))
        source = self._host(server, "evacuate")
        if self._world.is_up(source):
            raise bad_request(f"Compute service of {source.name} is still in use.")
        asked = arguments.get("host")
        if asked is not None and asked not in self._world.hosts:
            raise bad_request(f"Compute host {asked} could not be found.")
        target = self._target(server, source, asked)
        record = self._record(server, source, "evacuation")
        deed = self._start(server, "evacuate", "rebuilding")
        if target is None:
            self._stranded(server, record, deed)
            return
        self._world.place(server, target)
        record.dest, record.status = target.name, "pre-migrating"
        stays = server.vm_state == "stopped" or version >= STOPS_AFTER_EVACUATION
        end = partial(self._evacuated, server, record, stopped=stays)
        self._later(
            server,
            "evacuate",
            deed,
            host=target,
            seconds=self._world.spec.timings.migrate,
            done=end,
        )

    def _stranded(self, server: Server, record: Migration, deed: Deed) -> None:
        record.status, deed.message = "error", "Error"
        server.task, server.vm_state = None, "error"
        self._world.touch(server)
        message = "No valid host was found. There are not enough hosts available."
        server.fault = Fault(message, server.updated, message)

    def _evacuated(self, server: Server, record: Migration, *, stopped: bool) -> None:
        target = self._world.hosts[record.dest or ""]
        self._world.guest_off(server)
        self._world.set_host(server, target)
        record.status, record.updated = EVACUATED, self._world.time.moment()
        self._become(server, "stopped" if stopped else "active", target)
