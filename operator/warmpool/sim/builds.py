"""From a POST to the scheduler's decision: checks, quota, one choice for all servers of a POST."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from warmpool.sim.errors import Refused, bad_request, policy
from warmpool.sim.faults import Faults
from warmpool.sim.scheduler import NO_HOST, Wish, decide
from warmpool.sim.spawns import Spawns
from warmpool.sim.spec import UNLIMITED, FlavorSpec
from warmpool.sim.world import Deed, Group, Project, Server, World

POLL_SCHEDULER: Final = 0.5
"""Seconds after which a build looks again whether the scheduler is back."""

MAX_METADATA: Final = 128


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A POST to /servers, its form checked."""

    name: str
    flavor_id: str
    image_id: str
    networks: tuple[str, ...] | None = ()
    """Ids of networks. Empty: none. None: Nova chooses."""
    zone: str = ""
    forced_host: str | None = None
    """From `zone:host`."""
    host: str | None = None
    min_count: int = 1
    max_count: int = 1
    group: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    user_data: str | None = None
    key_name: str | None = None
    config_drive: bool = False
    description: str | None = None
    hostname: str | None = None
    security_groups: tuple[str, ...] = ("default",)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that has passed all checks of the API, and is no server yet."""

    request: BuildRequest
    project: Project
    flavor: FlavorSpec
    networks: tuple[str, ...]
    group: Group | None
    count: int


class Builds:
    """Accepts requests, and carries them out."""

    def __init__(self, world: World, faults: Faults, spawns: Spawns) -> None:
        self._world = world
        self._faults = faults
        self._spawns = spawns
        self.posts = 0
        self.accepted = 0
        self.vanished = 0

    def admit(self, request: BuildRequest, project: Project, *, admin: bool) -> Admission:
        """Check a request.

        Raises:
            Refused: 400 for what does not exist, 403 for what is too much or not allowed.
        """
        flavor = self._world.flavors.get(request.flavor_id)
        if flavor is None:
            raise bad_request(f"Flavor {request.flavor_id} could not be found.")
        self._check_image(request, flavor)
        self._check_place(request, admin=admin)
        if len(request.metadata) > MAX_METADATA:
            raise Refused(403, f"Maximum number of metadata items exceeds {MAX_METADATA}")
        self._check_access(request, project)
        group = self._group(request, project)
        networks = self.networks(request)
        count = self._quota(request, project, flavor)
        self._check_group(group, project, count)
        return Admission(request, project, flavor, networks, group, count)

    def accept(self, admission: Admission) -> list[Server]:
        """Make the servers.

        Several admissions at a time pass the checks before any is counted: that is Nova's race,
        and it ends in ERROR later.
        """
        self.posts += 1
        self.accepted += admission.count
        reservation = f"r-{self._world.new_id()[:8]}"
        servers = [self._make(admission, n, reservation) for n in range(admission.count)]
        for server in servers:
            self._world.note("posted", server)
        there = [server for server in servers if not self._vanishes(server)]
        for server in there:
            self._world.add(server)
            if admission.group is not None:
                admission.group.members.append(server.id)
        if there:
            conduct = partial(self._conduct, there, admission)
            self._world.time.after(self._world.draw(self._world.spec.timings.schedule), conduct)
        return servers

    def make_at_once(self, admission: Admission) -> list[Server]:
        """Make servers past scheduler and quota."""
        self.accepted += admission.count
        reservation = f"r-{self._world.new_id()[:8]}"
        servers = [self._make(admission, n, reservation) for n in range(admission.count)]
        for server in servers:
            self._world.add(server)
            self._world.conduct(server)
        return servers

    def _check_image(self, request: BuildRequest, flavor: FlavorSpec) -> None:
        image = self._world.images.get(request.image_id)
        if image is None:
            raise bad_request("Can not find requested image")
        if flavor.ram_mb < image.min_ram:
            raise bad_request("Flavor's memory is too small for requested image.")
        if flavor.disk_gb < image.min_disk:
            raise bad_request(
                "Flavor's disk is too small for requested image. Flavor disk is"
                f" {flavor.disk_gb << 30} bytes, minimum size is {image.min_disk << 30} bytes."
            )

    def _check_access(self, request: BuildRequest, project: Project) -> None:
        if request.key_name is not None and request.key_name not in project.key_pairs:
            raise bad_request("Invalid key_name provided.")
        for group in request.security_groups:
            if group not in self._world.spec.security_groups:
                raise bad_request(f"Security group {group} not found for project {project.id}.")

    def _check_place(self, request: BuildRequest, *, admin: bool) -> None:
        if request.forced_host is not None and not admin:
            raise policy("os_compute_api:servers:create:forced_host")
        if request.host is not None and not admin:
            raise policy("compute:servers:create:requested_destination")
        if request.host is not None and request.host not in self._world.hosts:
            raise bad_request(f"Compute host {request.host} could not be found.")
        if request.zone and request.zone not in self._world.open_zones():
            raise bad_request("The requested availability zone is not available")

    def _group(self, request: BuildRequest, project: Project) -> Group | None:
        if request.group is None:
            return None
        group = self._world.groups.get(request.group)
        if group is None or group.project != project.id:
            raise bad_request(f"Instance group {request.group} could not be found.")
        return group

    def networks(self, request: BuildRequest) -> tuple[str, ...]:
        """Ids of the networks that are asked for.

        Raises:
            Refused: 400, there is no such network.
        """
        if request.networks is None:
            return tuple(self._world.networks)[:1]
        for network in request.networks:
            if network not in self._world.networks:
                raise bad_request(f"Network {network} could not be found.")
        return request.networks

    def _quota(self, request: BuildRequest, project: Project, flavor: FlavorSpec) -> int:
        """How many servers it may be: fewer than asked for, down to `min_count`."""
        for count in range(request.max_count, request.min_count - 1, -1):
            if not self._over(project, flavor, count):
                return count
        over = self._over(project, flavor, request.min_count)
        names = ", ".join(name for name, *_ in over)
        requested, used, allowed = (
            ", ".join(str(row[column]) for row in over) for column in (1, 2, 3)
        )
        raise Refused(
            403,
            f"Quota exceeded for {names}: Requested {requested}, but already used {used} of"
            f" {allowed} {names}",
        )

    def _over(
        self, project: Project, flavor: FlavorSpec, count: int
    ) -> list[tuple[str, int, int, int]]:
        quota = project.quota
        rows = (
            ("cores", count * flavor.vcpus, project.cores, quota.cores),
            ("instances", count, project.instances, quota.instances),
            ("ram", count * flavor.ram_mb, project.ram_mb, quota.ram_mb),
        )
        return [r for r in rows if r[3] != UNLIMITED and r[1] + r[2] > r[3]]

    def _check_group(self, group: Group | None, project: Project, count: int) -> None:
        limit = project.quota.server_group_members
        if group is None or limit == UNLIMITED:
            return
        members = sum(ident in self._world.servers for ident in group.members)
        if members + count > limit:
            raise Refused(403, "Quota exceeded, too many servers in group")

    def _make(self, admission: Admission, index: int, reservation: str) -> Server:
        request, now = admission.request, self._world.time.moment()
        name = request.name if request.max_count == 1 else f"{request.name}-{index + 1}"
        server = Server(
            self._world.new_id(),
            self._world.next_number(),
            name,
            request.hostname or name,
            admission.project.id,
            admission.flavor,
            request.image_id,
            created=now,
            updated=now,
            networks=admission.networks,
            zone_asked=request.zone,
            metadata=dict(request.metadata),
            tags=tuple(sorted(set(request.tags))),
            group=admission.group.id if admission.group else None,
            key_name=request.key_name,
            config_drive=request.config_drive,
            user_data=request.user_data,
            description=request.description,
            security_groups=request.security_groups,
            reservation=reservation,
            launch_index=index,
        )
        server.all_tags = server.tags
        server.actions.append(Deed("create", f"req-{self._world.new_id()}", now, now))
        return server

    def _vanishes(self, server: Server) -> bool:
        vanishes = self._faults.spawn(server.name, None) is not None
        self.vanished += vanishes
        return vanishes

    def _conduct(self, servers: Sequence[Server], admission: Admission) -> None:
        """The conductor's part: quota once more, then one decision for all of them."""
        if self._faults.away("scheduler"):
            again = partial(self._conduct, servers, admission)
            self._world.time.after(POLL_SCHEDULER, again)
            return
        there = [s for s in servers if s.id in self._world.servers and s.vm_state == "building"]
        within = [server for server in there if self._within_quota(server, admission.project)]
        if not within:
            return
        request = admission.request
        zone = "" if request.forced_host else request.zone
        wish = Wish(zone, request.host or request.forced_host, admission.group)
        choices = decide(self._world, within, wish)
        for n, server in enumerate(within):
            if choices is None:
                self._spawns.fail(server, NO_HOST)
            else:
                self._spawns.send(server, choices[n])

    def _within_quota(self, server: Server, project: Project) -> bool:
        """The late check: counts what came before it in the conductor's order."""
        used, allowed = self._world.conduct(server), project.quota.instances
        if allowed == UNLIMITED or used < allowed:
            return True
        self._spawns.fail(
            server,
            f"Quota exceeded for instances: Requested 1, but already used {used} of {allowed}"
            " instances",
        )
        return False
