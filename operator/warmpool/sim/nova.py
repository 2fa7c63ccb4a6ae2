"""The simulated Nova: one object with everything that clients and tests may do to it.

Synchronous, with the clock and the seed handed in. Every method first lets happen what is due by
the clock, so a test moves the clock and asks. Nova's refusals come out as `errors.Refused`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from warmpool.ports.clock import Clock
from warmpool.sim.actions import Actions, Arguments
from warmpool.sim.builds import MAX_METADATA, Admission, BuildRequest, Builds
from warmpool.sim.computes import EVACUATED, Computes
from warmpool.sim.errors import UNEXPECTED, Refused, bad_request, locked, no_instance
from warmpool.sim.faults import Fault, Faults
from warmpool.sim.listing import Query, select
from warmpool.sim.removal import Removal
from warmpool.sim.spawns import Spawns
from warmpool.sim.spec import UNLIMITED, WorldSpec
from warmpool.sim.world import Group, Host, Project, Server, World

LATEST: Final = (2, 96)
"""The newest microversion that is spoken."""

POLICIES: Final = ("anti-affinity", "affinity", "soft-anti-affinity", "soft-affinity")


@dataclass(slots=True)
class Traffic:
    """What clients have asked for."""

    calls: Counter[str]
    """Calls by method and route: `GET /compute/v2.1/servers/detail`."""
    bytes_sent: int = 0


class Nova:
    """A whole cloud: what it holds, and what happens in it."""

    def __init__(self, spec: WorldSpec, *, clock: Clock, seed: int = 1) -> None:
        self.world = World(spec, clock, seed)
        self.faults = Faults(lambda: self.world.time.at)
        self.computes = Computes(self.world)
        self.traffic = Traffic(Counter())
        self._removal = Removal(self.world, self.faults, self.computes)
        self._spawns = Spawns(self.world, self.faults, self.computes, self._removal)
        self.builds = Builds(self.world, self.faults, self._spawns)
        self._actions = Actions(
            self.world, self.faults, self.computes, spawns=self._spawns, removal=self._removal
        )

    @property
    def spec(self) -> WorldSpec:
        return self.world.spec

    def settle(self) -> None:
        """Let happen what is due."""
        self.world.time.settle()

    def project(self, name: str = "") -> Project:
        """A project by name; without one, the spec's own."""
        return self.world.project_by_name(name or self.spec.project)

    # What clients do

    def admit(self, request: BuildRequest, project: Project, *, admin: bool) -> Admission:
        """The first half of a POST: all checks.

        Raises:
            Refused: 400 for what does not exist, 403 for what is too much or not allowed.
        """
        self.settle()
        return self.builds.admit(request, project, admin=admin)

    def accept(self, admission: Admission) -> list[Server]:
        """The second half: the servers are there, and on their way."""
        self.settle()
        return self.builds.accept(admission)

    def create(
        self, request: BuildRequest, project: Project | None = None, *, admin: bool = False
    ) -> list[Server]:
        """Both halves, with nobody in between."""
        return self.accept(self.admit(request, project or self.project(), admin=admin))

    def get(self, server_id: str, project: Project | None = None) -> Server:
        """A server.

        Raises:
            Refused: 404.
        """
        self.settle()
        server = self.world.servers.get(server_id)
        if server is None or (project is not None and server.project != project.id):
            raise no_instance(server_id)
        return server

    def select(self, query: Query) -> tuple[list[Server], bool]:
        """One page of a listing, and whether another one follows.

        Raises:
            Refused: 400 for a marker or a status that there is not.
        """
        self.settle()
        return select(self.world, self.faults, query)

    def delete(self, server: Server, *, admin: bool = False) -> None:
        """Begin to delete.

        Raises:
            Refused: 409, it is locked.
        """
        self.settle()
        self._removal.delete(server, admin=admin)

    def act(
        self,
        server: Server,
        key: str,
        arguments: Arguments | None = None,
        *,
        admin: bool = False,
        version: tuple[int, int] = LATEST,
    ) -> None:
        """Begin an action.

        Raises:
            Refused: 400 unknown or wrong, 403 not this role, 409 wrong state or locked.
        """
        self.settle()
        self.world.note(key, server)
        self._actions.act(server, key, arguments or {}, admin=admin, version=version)

    def console(self, server: Server, lines: int) -> str:
        """What a server wrote on its console, to the last line.

        Raises:
            Refused: 409, it was not placed yet; 500, its host is dead.
        """
        self.settle()
        host = self.world.hosts.get(server.host or "")
        if host is None:
            raise Refused(409, f"Instance {server.id} is not ready")
        if not host.alive:
            raise Refused(500, UNEXPECTED)
        works = server.guest_up and server.reachable
        panic = "Kernel panic - not syncing: no init found."
        last = f"{server.hostname} login: " if works else panic
        text = ["[    0.000000] Linux version 6.12.0-sim", "[    0.731000] eth0: link up", last]
        return "\n".join(text[-lines:] if lines else text)

    def set_tags(self, server: Server, tags: Iterable[str]) -> None:
        """Put these tags in place of those there are. Nova does not call that a change."""
        self.world.note("tags", server)
        server.tags = server.all_tags = tuple(sorted(set(tags)))
        server.renderings.clear()

    def set_metadata(self, server: Server, metadata: Mapping[str, str]) -> None:
        """Put this metadata in place of what there is.

        Raises:
            Refused: 403, too much of it; 409, locked.
        """
        if server.locked:
            raise locked(server.id)
        if len(metadata) > MAX_METADATA:
            raise Refused(403, f"Maximum number of metadata items exceeds {MAX_METADATA}")
        self.world.note("metadata", server)
        server.metadata = dict(metadata)
        self.world.touch(server)

    def add_metadata(self, server: Server, items: Mapping[str, str]) -> None:
        """Put these items beside what there is.

        Raises:
            Refused: 403, too much of it; 409, locked.
        """
        self.set_metadata(server, {**server.metadata, **items})

    def create_group(
        self, name: str, policy: str, rules: dict[str, int] | None, project: Project
    ) -> Group:
        """A server group.

        Raises:
            Refused: 400 for rules that the policy does not take, 403 for one too many.
        """
        if policy not in POLICIES:
            raise bad_request(f"Invalid input for field/attribute policy. Value: {policy}.")
        if rules and policy != "anti-affinity":
            raise bad_request("Only anti-affinity policy supports rules.")
        mine = sum(group.project == project.id for group in self.world.groups.values())
        if project.quota.server_groups != UNLIMITED and mine >= project.quota.server_groups:
            raise Refused(403, "Quota exceeded, too many server groups.")
        group = Group(self.world.new_id(), name, project.id, policy)
        if rules:
            group.max_per_host, group.has_rules = rules.get("max_server_per_host", 1), True
        self.world.groups[group.id] = group
        return group

    # What befalls hosts, servers and whole clouds

    def arm(self, fault: Fault) -> int:
        """Switch a fault on. Returns the number to switch it off by."""
        self.settle()
        return self.faults.add(fault)

    def host(self, name: str) -> Host:
        """A host.

        Raises:
            Refused: 404.
        """
        self.settle()
        if name not in self.world.hosts:
            raise Refused(404, f"Compute host {name} could not be found.")
        return self.world.hosts[name]

    def disable(self, host: Host, disabled: bool, reason: str | None = None) -> None:
        """Take it out of scheduling, or back in."""
        self.settle()
        host.disabled, host.disabled_reason = disabled, reason if disabled else None

    def force_down(self, host: Host, *, down: bool) -> None:
        """Let it read down whatever it does, or not any more.

        Raises:
            Refused: 400, servers were evacuated from it and it has not been restarted since.
        """
        self.settle()
        left = (m for m in self.world.migrations if m.source == host.name)
        if not down and host.forced_down and any(m.status == EVACUATED for m in left):
            raise bad_request(
                f"Unable to update forced_down field for host {host.name} to False as there are"
                " evacuations in progress or with status 'done' from it."
            )
        host.forced_down = down

    def kill(self, host: str, *, power: bool = False) -> None:
        """Its nova-compute dies; with `power` the machine and its guests do."""
        self.computes.kill(self.host(host), power=power)

    def revive(self, host: str) -> None:
        """Its nova-compute is back, and does what was asked of it meanwhile."""
        self.computes.revive(self.host(host))

    def move(self, server: Server, host: str) -> None:
        """Put a server on another host, without a migration that anybody could see."""
        target = self.host(host)
        for name in list(server.placed_on):
            self.world.unplace(server, self.world.hosts[name])
        self.world.set_host(server, target)
        self.world.place(server, target)
        self.world.touch(server)
        self.world.show_guest(server)

    def wipe(self, server: Server) -> None:
        """Let a server be gone from one moment to the next."""
        self.settle()
        self._removal.finish(server)

    def set_reachable(self, server: Server, *, reachable: bool) -> None:
        """Let its guest answer, or not: Nova sees nothing of it."""
        self.settle()
        server.reachable = reachable
        self.world.show_guest(server)

    def preload(self, count: int, request: BuildRequest) -> list[Server]:
        """Servers that are ACTIVE at once, spread over the hosts whatever their room.

        Quota does not count, and no event is waited for.
        """
        self.settle()
        project = self.project()
        request = replace(request, min_count=count, max_count=count)
        flavor = self.world.flavors[request.flavor_id]
        networks = self.builds.networks(request)
        admission = Admission(request, project, flavor, networks, None, count)
        servers = self.builds.make_at_once(admission)
        hosts = list(self.world.hosts.values())
        for n, server in enumerate(servers):
            self._spawns.appear(server, hosts[n % len(hosts)])
        return servers

    def answers(self, address: str) -> bool:
        """Whether a guest answers there now."""
        self.settle()
        return address in self.world.answering
