"""The simulated Nova as `ports.cloud.Cloud`, in process: for scenarios that need no wire.

Faults of the API strike here as they do over HTTP: each call has the method and path that the real
adapter would use. Errors come out as the port's contract names them. Time passes by
`asyncio.sleep`, so a test with a faked event loop clock waits for nothing; the Nova behind it must
have a clock that agrees with that loop.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER, Reason
from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.catalogue import Entry
from warmpool.domain.cloud import (
    BuildSpec,
    FaultClass,
    FlavorSize,
    HostRoom,
    Identity,
    Inventory,
    Listing,
    NetworkChoice,
    Quota,
    Server,
    ServerFault,
    ServerGroup,
    ServerRequest,
    ServerState,
    Topology,
    Usage,
)
from warmpool.domain.errors import (
    AimForbidden,
    CallForbidden,
    CapacityRefused,
    CloudError,
    CloudUnavailable,
    CredentialsRefused,
    DependencyMissing,
    OutcomeUnknown,
    RequestRejected,
    ZoneClosed,
)
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.domain.marks import read_marks
from warmpool.domain.racks import Host, Hosts
from warmpool.sim import world as truth
from warmpool.sim.builds import Admission, BuildRequest
from warmpool.sim.errors import Refused
from warmpool.sim.forms import read_build, read_metadata
from warmpool.sim.listing import Query, status_of
from warmpool.sim.nova import Nova
from warmpool.sim.scheduler import room_on, suits
from warmpool.sim.spec import UNLIMITED, FlavorSpec
from warmpool.sim.views import rack_trait

T = TypeVar("T")

SERVERS: Final = "/compute/v2.1/servers"
GROUPS: Final = "/compute/v2.1/os-server-groups"
ANTI_AFFINITY: Final = "anti-affinity"
CREATE_VERSION: Final = (2, 74)
"""The microversion in which servers are asked for."""
MAX_TEXT: Final = 500
"""Characters of a text of Nova's that goes further."""

_STATES: Final = {
    "BUILD": ServerState.BUILDING,
    "ACTIVE": ServerState.ACTIVE,
    "ERROR": ServerState.ERROR,
    "SHUTOFF": ServerState.STOPPED,
    "PAUSED": ServerState.STOPPED,
    "SUSPENDED": ServerState.STOPPED,
    "DELETED": ServerState.DELETED,
}
_CAPACITY: Final = (
    ("quota exceeded", Reason.QUOTA_EXCEEDED),
    ("no valid host was found", Reason.NO_VALID_HOST),
    ("group policy was violated", Reason.NO_VALID_HOST),
    ("compute host ", Reason.NO_VALID_HOST),
)
"""Texts of faults that speak of capacity. Any other is the server's own."""


class SimCloud:
    """One project of a simulated cloud, with a role in it. The contract is `ports.cloud.Cloud`."""

    def __init__(
        self,
        nova: Nova,
        *,
        installation: InstallationId,
        admin: bool = True,
        timeout: float = 60.0,
        is_good: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take a part of `nova`.

        Args:
            nova: The cloud.
            installation: Whose servers are ours.
            admin: Whether the role sees hosts and racks.
            timeout: Seconds after which a call is given up.
            is_good: Whether the credentials are, now.
        """
        self._nova = nova
        self._mine = f"{TAG_INSTALLATION}{installation}"
        self._admin = admin
        self._is_good = is_good
        self._timeout = timeout
        self._project = nova.project()

    @property
    def region(self) -> str:
        return self._nova.spec.region

    async def resolve(
        self, template: Template, zones: tuple[str, ...], entry: Entry | None = None
    ) -> BuildSpec:
        """Turn names into ids."""
        world = self._nova.world
        wanted_flavor = entry.flavor if entry is not None else template.flavor or ""
        metadata = dict(entry.metadata if entry is not None else ()) | template.metadata
        flavors = {ident: flavor.name for ident, flavor in world.flavors.items()}
        images = {ident: image.name for ident, image in world.images.items()}
        return await self._call(
            "GET",
            "/compute/v2.1/flavors",
            lambda: BuildSpec(
                flavor_id=(
                    flavor := _choose(
                        flavors, wanted_flavor, _field(entry, "flavor"), Reason.FLAVOR_NOT_FOUND
                    )
                ),
                size=size_of(world.flavors[flavor]),
                image_id=self._image(template, entry, images),
                networks=self._networks(template),
                security_groups=tuple(template.security_groups),
                key_pair=self._key_pair(template, zones),
                metadata=tuple(sorted(metadata.items())),
                tags=tuple(template.tags),
                config_drive=template.config_drive,
            ),
        )

    async def create(self, request: ServerRequest) -> ServerId:
        """POST one server. Between its check and its being there others may pass, as with Nova."""
        admission: Admission | None = None

        def admit() -> None:
            nonlocal admission
            wish = self._build_request(request)
            admission = self._nova.admit(wish, self._project, admin=self._admin)

        def accept() -> ServerId:
            assert admission is not None  # noqa: S101 - admit has run, or raised
            return ServerId(self._nova.accept(admission)[0].id)

        post = self._nova.world.draw(self._nova.spec.timings.post)
        return await self._call("POST", SERVERS, accept, first=admit, between=post, changes=True)

    async def delete(self, server: ServerId) -> None:
        """Ask for the end of a server."""

        def work() -> None:
            try:
                found = self._nova.get(server, self._project)
            except Refused:
                return
            self._nova.delete(found, admin=self._admin)

        await self._call("DELETE", f"{SERVERS}/{server}", work, changes=True)

    async def get(self, server: ServerId) -> Server | None:
        """One server, or None."""

        def work() -> Server | None:
            try:
                return self._read(self._nova.get(server, self._project), fault=True)
            except Refused:
                return None

        return await self._call("GET", f"{SERVERS}/{server}", work)

    async def find(self, owner: VmUid) -> tuple[Server, ...]:
        """The servers with this owner's tag and ours."""
        found = await self._list_all(frozenset({self._mine, f"{TAG_OWNER}{owner}"}))
        return tuple(server for server in found if server.owner == owner)

    async def list(self, since: datetime | None) -> Listing:
        """All servers of ours, or what changed. Names deleted ones by what their tags were.

        Times are whole seconds, as on the wire.
        """
        self._nova.settle()
        taken_at = self._nova.world.time.moment().replace(microsecond=0)
        if since is None:
            servers = await self._list_all(frozenset({self._mine}))
            return Listing(servers, complete=True, taken_at=taken_at)
        changed = await self._list_all(frozenset(), since.replace(microsecond=0))
        return Listing(changed, complete=False, taken_at=taken_at)

    async def rebuild(self, server: ServerId, image_id: str) -> None:
        """Build a server anew in its place."""
        await self._call(
            "POST",
            f"{SERVERS}/{server}/action",
            lambda: self._nova.act(
                self._nova.get(server, self._project),
                "rebuild",
                {"imageRef": image_id},
                admin=self._admin,
            ),
            changes=True,
        )

    async def set_metadata(self, server: ServerId, items: Mapping[str, str]) -> None:
        """Write metadata, and leave what is not named."""
        await self._call(
            "POST",
            f"{SERVERS}/{server}/metadata",
            lambda: self._nova.add_metadata(
                self._nova.get(server, self._project), read_metadata(dict(items))
            ),
            changes=True,
        )

    async def groups(self) -> tuple[ServerGroup, ...]:
        """The project's anti-affinity groups."""
        there = self._nova.world.groups
        return await self._call(
            "GET",
            GROUPS,
            lambda: tuple(
                ServerGroup(
                    group.id, group.name, sum(m in self._nova.world.servers for m in group.members)
                )
                for group in there.values()
                if group.project == self._project.id and group.policy == ANTI_AFFINITY
            ),
        )

    async def create_group(self, name: str) -> str:
        """A new one."""

        def work() -> str:
            return self._nova.create_group(name, ANTI_AFFINITY, None, self._project).id

        return await self._call("POST", GROUPS, work, changes=True)

    async def delete_group(self, group: str) -> None:
        """Delete one."""
        there = self._nova.world.groups
        path = f"{GROUPS}/{group}"
        await self._call("DELETE", path, lambda: there.pop(group, None), changes=True)

    async def identity(self) -> Identity:
        """Project and roles of the token."""
        roles = frozenset({"admin", "member", "reader"} if self._admin else {"member", "reader"})
        project = self._project
        return await self._call(
            "GET",
            "/identity/v3/auth/tokens",
            lambda: Identity(project.id, project.name, "default", "Default", roles),
        )

    async def topology(self, key: str = "rack") -> Topology:
        """Racks of the hosts, from the host aggregates: all have the same metadata."""
        path, rule = "/compute/v2.1/os-aggregates", "os_compute_api:os-aggregates:index"
        return await self._racks(path, rule, lambda h: (h.name, {"rack": h.spec.rack}.get(key)))

    async def traits(self, prefix: str) -> Topology:
        """Racks of the hypervisors, from their traits."""

        def rack(host: truth.Host) -> tuple[str, str | None]:
            trait = rack_trait(host)
            return host.name, trait.removeprefix(prefix) if trait.startswith(prefix) else None

        return await self._racks("/placement/traits", "placement:traits:list", rack)

    async def _racks(
        self, path: str, rule: str, rack: Callable[[truth.Host], tuple[str, str | None]]
    ) -> Topology:
        if not self._admin:
            await self._call("GET", path, lambda: None)
            return Topology(visible=False, why_not=f"Policy doesn't allow {rule} to be performed.")
        pairs = map(rack, self._nova.world.hosts.values())
        racks = {host: there for host, there in pairs if there}
        return await self._call("GET", path, lambda: Topology(racks))

    async def hosts(self) -> Hosts:
        """All compute hosts."""
        path = "/compute/v2.1/os-hypervisors/detail"
        if not self._admin:
            await self._call("GET", path, lambda: None)
            why = "Policy doesn't allow os_compute_api:os-hypervisors:list-detail to be performed."
            return Hosts(visible=False, why_not=why)
        names = sorted(self._nova.world.hosts)
        there = tuple(Host(name, name) for name in names)
        return await self._call("GET", path, lambda: Hosts(there))

    async def inventory(self, spec: BuildSpec) -> Inventory:
        """Hypervisors that take builds, and their room."""
        path = "/compute/v2.1/os-hypervisors/detail"
        if not self._admin:
            await self._call("GET", path, lambda: None)
            rule = "os_compute_api:os-hypervisors:list-detail"
            why = f"these credentials may not see hypervisors: Policy doesn't allow {rule}"
            return Inventory(visible=False, why_not=why)
        world = self._nova.world
        flavor = world.flavors.get(spec.flavor_id)
        return await self._call(
            "GET",
            path,
            lambda: Inventory(
                tuple(
                    HostRoom(host.name, host.name, host.spec.zone, room_on(host, flavor))
                    for host in world.hosts.values()
                    if world.is_up(host) and not host.disabled
                    if flavor is None or suits(host, flavor)
                )
            ),
        )

    async def quota(self) -> Quota:
        """What the project may have and what it uses."""
        project = self._project

        def usage(used: int, limit: int) -> Usage:
            return Usage(used, None if limit == UNLIMITED else limit)

        return await self._call(
            "GET",
            "/compute/v2.1/limits",
            lambda: Quota(
                usage(project.instances, project.quota.instances),
                usage(project.cores, project.quota.cores),
                usage(project.ram_mb, project.quota.ram_mb),
                usage(0, project.quota.server_group_members).limit,
            ),
        )

    async def down_hosts(self) -> frozenset[str]:
        """Hosts whose service is silent."""

        def work() -> frozenset[str]:
            world = self._nova.world
            return frozenset(h.name for h in world.hosts.values() if not world.is_up(h))

        found = await self._call("GET", "/compute/v2.1/os-services", work)
        return found if self._admin else frozenset()

    async def console(self, server: ServerId, lines: int) -> str:
        """The end of a console."""

        def work() -> str:
            try:
                return self._nova.console(self._nova.get(server, self._project), lines)
            except Refused as refused:
                if refused.code in {404, 409}:
                    return ""
                raise

        return await self._call("POST", f"{SERVERS}/{server}/action", work)

    async def close(self) -> None:
        """There is nothing to free."""

    def _image(self, template: Template, entry: Entry | None, images: dict[str, str]) -> str:
        """The image by name or id, or the newest of some."""
        wanted = entry.image if entry is not None else template.image or ""
        if isinstance(wanted, str):
            return _choose(images, wanted, _field(entry, "image"), Reason.IMAGE_NOT_FOUND)
        fitting = [
            (image.created, ident)
            for ident, image in self._nova.world.images.items()
            if set(wanted.properties) <= set(image.properties.items())
            and set(wanted.tags) <= set(image.tags)
        ]
        if not fitting:
            raise DependencyMissing(
                "no active image has all of it",
                reason=Reason.IMAGE_NOT_FOUND,
                field=f"spec.template.{_field(entry, 'image')}",
            )
        return max(fitting)[1]

    def _networks(self, template: Template) -> NetworkChoice | tuple[str, ...]:
        if template.networks is None:
            return NetworkChoice.AUTO
        if not template.networks:
            return NetworkChoice.NONE
        there = {ident: network.name for ident, network in self._nova.world.networks.items()}
        return tuple(
            _choose(there, asked.network, f"networks[{n}].network", Reason.NETWORK_NOT_FOUND)
            for n, asked in enumerate(template.networks)
        )

    def _key_pair(self, template: Template, zones: tuple[str, ...]) -> str | None:
        """The key pair, and then a look at the zones: in the order that the real adapter has."""
        there = {name: name for name in self._project.key_pairs}
        if template.key_pair is not None:
            _choose(there, template.key_pair, "keyPair", Reason.KEY_PAIR_NOT_FOUND)
        for n, zone in enumerate(zones):
            if zone not in self._nova.world.zones():
                raise DependencyMissing(
                    f"there is no availability zone {zone!r}",
                    reason=Reason.ZONE_NOT_FOUND,
                    field=f"spec.availabilityZones[{n}]",
                )
        return template.key_pair

    def _build_request(self, request: ServerRequest) -> BuildRequest:
        """Through the same checks as a body that came over HTTP."""
        spec = request.spec
        server: dict[str, object] = {
            "name": request.name,
            "flavorRef": spec.flavor_id,
            "imageRef": spec.image_id,
            "tags": [self._mine, f"{TAG_OWNER}{request.owner}", *spec.tags],
            "metadata": dict(spec.metadata),
            "config_drive": spec.config_drive,
            "networks": spec.networks.value
            if isinstance(spec.networks, NetworkChoice)
            else [{"uuid": network} for network in spec.networks],
        }
        wishes = {
            "availability_zone": request.zone,
            "hypervisor_hostname": request.hypervisor,
            "user_data": spec.user_data,
            "key_name": spec.key_pair,
            "security_groups": [{"name": name} for name in spec.security_groups],
        }
        server |= {key: wish for key, wish in wishes.items() if wish}
        hints = {"os:scheduler_hints": {"group": spec.group}} if spec.group else {}
        return read_build({"server": server, **hints}, CREATE_VERSION)

    async def _list_all(
        self, tags: frozenset[str], since: datetime | None = None
    ) -> tuple[Server, ...]:
        """Page by page, each a call of its own."""
        found: dict[ServerId, Server] = {}
        marker: str | None = None
        while True:
            query = Query(self._project.id, tags=tags, since=since, marker=marker)
            select = partial(self._nova.select, query)
            page, more = await self._call("GET", f"{SERVERS}/detail", select)
            mine = (server for server in page if self._mine in server.all_tags)
            found.update({ServerId(server.id): self._read(server) for server in mine})
            if not more or not page:
                return tuple(found.values())
            marker = page[-1].id

    def _read(self, server: truth.Server, *, fault: bool = False) -> Server:
        status = status_of(server)
        tags = server.all_tags if self._mine in server.all_tags else ()
        owners = [tag.removeprefix(TAG_OWNER) for tag in tags if tag.startswith(TAG_OWNER)]
        marks = read_marks(server.metadata)
        owner = (marks.owner if tags else None) or (VmUid(owners[0]) if owners else None)
        host = server.host if self._admin else None
        return Server(
            ServerId(server.id),
            server.name,
            _STATES.get(status, ServerState.OTHER),
            busy=server.task is not None,
            owner=owner,
            zone=self._nova.world.zone_of(server),
            host_id=self._nova.world.host_hash(server),
            host=host,
            hypervisor=host,
            addresses=tuple(server.addresses.values()),
            hostname=server.hostname,
            status=f"{status}/{server.task}" if server.task else status,
            fault=read_fault(server) if fault else None,
            created=server.created.replace(microsecond=0),
            updated=server.updated.replace(microsecond=0),
            marks=marks,
        )

    async def _call(  # noqa: PLR0913 - a call and what may befall it
        self,
        method: str,
        path: str,
        work: Callable[[], T],
        *,
        first: Callable[[], None] | None = None,
        between: float = 0.0,
        changes: bool = False,
    ) -> T:
        """Do the work as a call would: with the faults of the API that suit it, and counted.

        `first` is done at the beginning, `work` `between` seconds later.
        """
        self._nova.settle()
        self._nova.traffic.calls[f"{method} {_route(path)}"] += 1
        what = f"{method} {path}"
        try:
            late = (first, work) if first is not None else (work,)
            lost = await self._suffer(method, path, late, changes=changes)
            if first is not None:
                first()
            await asyncio.sleep(between)
            result = work()
        except Refused as refused:
            builds = path in (SERVERS, GROUPS)
            raise translate(refused, what, builds=builds, changes=changes) from refused
        if lost:
            raise _lost(what, changes=changes)
        return result

    async def _suffer(
        self, method: str, path: str, steps: tuple[Callable[[], object], ...], *, changes: bool
    ) -> bool:
        """Let the faults strike. Returns whether the answer is to be lost when the work is done."""
        if self._nova.faults.away("credentials") or not self._is_good():
            raise Refused(401, "The request you have made requires authentication.")
        for fault in self._nova.faults.api(method, path):
            if fault.effect == "status":
                message = fault.message or "injected"
                raise Refused(fault.status, message, retry_after=fault.retry_after)
            if fault.effect == "drop":
                raise _lost(f"{method} {path}", changes=changes)
            if fault.effect == "lost":
                return True
            delay = self._nova.world.draw(fault.delay)
            await asyncio.sleep(min(delay, self._timeout))
            if delay > self._timeout:
                self._nova.world.time.after(delay - self._timeout, partial(_quietly, steps))
                raise _lost(f"{method} {path}", changes=changes)
        return False


def _quietly(steps: tuple[Callable[[], object], ...]) -> None:
    """Do what nobody waits for any more."""
    with suppress(Refused):
        for step in steps:
            step()


def _lost(what: str, *, changes: bool) -> CloudError:
    error = OutcomeUnknown if changes else CloudUnavailable
    return error(f"{what}: the answer was lost")


def _route(path: str) -> str:
    return re.sub(r"/servers/(?!detail)[^/]+", "/servers/{id}", path)


def translate(refused: Refused, what: str, *, builds: bool, changes: bool) -> CloudError:
    """The port's error for a refusal of Nova's."""
    code = refused.code
    text, echo, _ = refused.message.partition(" Value: ")
    text = f"{text} the value is refused" if echo else text
    said = f"{what}: the cloud answered {code}: {text[:MAX_TEXT]}"
    if code >= 500:  # noqa: PLR2004 - HTTP
        return OutcomeUnknown(said) if changes else CloudUnavailable(said)
    if code == 401 or (code == 403 and not changes):  # noqa: PLR2004 - HTTP
        return CredentialsRefused(said) if code == 401 else CallForbidden(said)  # noqa: PLR2004
    if builds and "requested_destination" in refused.message:
        return AimForbidden(said)
    if builds and (full := _full(refused.message, said)):
        return full
    if code in {413, 429}:
        limited = CapacityRefused if builds else CloudUnavailable
        return limited(said, reason=Reason.RATE_LIMITED)
    return RequestRejected(said) if changes else CloudUnavailable(said)


def _full(text: str, said: str) -> CapacityRefused | None:
    if "availability zone is not available" in text:
        return ZoneClosed(said)
    reason = _capacity(text)
    return CapacityRefused(said, reason=reason) if reason else None


def _capacity(text: str) -> Reason | None:
    lowered = text.lower()
    return next((reason for known, reason in _CAPACITY if known in lowered), None)


def size_of(flavor: FlavorSpec) -> FlavorSize:
    """What one server of a flavor takes."""
    specs = tuple(sorted(flavor.extra_specs.items()))
    return FlavorSize(flavor.vcpus, flavor.ram_mb, flavor.disk_gb, specs)


def read_fault(server: truth.Server) -> ServerFault | None:
    """Why a server is in ERROR, if it is."""
    if server.vm_state != "error":
        return None
    message = server.fault.message if server.fault else ""
    reason = _capacity(message)
    kind = FaultClass.CAPACITY if reason else FaultClass.VM
    if not reason and "Exhausted all hosts" in message:
        kind = FaultClass.HOSTS
    return ServerFault(kind, reason or Reason.BUILD_FAULT, message[:MAX_TEXT])


def _field(entry: Entry | None, field: str) -> str:
    """What of the template names it."""
    return field if entry is None else "flavorRef.name"


def _choose(there: Mapping[str, str], value: str, field: str, reason: Reason) -> str:
    """The id that a name or an id means."""
    if value in there:
        return value
    ids = [ident for ident, name in there.items() if name == value]
    if len(ids) == 1:
        return ids[0]
    raise DependencyMissing(
        f"spec.template.{field}: {len(ids)} things are named {value!r}",
        reason=reason,
        field=f"spec.template.{field}",
    )
