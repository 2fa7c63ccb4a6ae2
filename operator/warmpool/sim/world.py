"""The simulated cloud as data: hosts, servers and what they hold, on a line of time.

Nothing here decides anything. Events run when `settle` finds them due, in order, each at its own
moment, however late that is: what nobody looks at need not happen on time.
"""

import hashlib
import heapq
import ipaddress
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from warmpool.ports.clock import Clock
from warmpool.sim.journal import Entry, Journal
from warmpool.sim.spec import (
    FlavorSpec,
    HostSpec,
    ImageSpec,
    KeyPairSpec,
    NetworkSpec,
    QuotaSpec,
    WorldSpec,
)

_NAMESPACE: Final = uuid.UUID("5f2d1c7e-7f4b-4c53-9a52-3f1f6f0d7a11")

POWER_NONE, POWER_ON, POWER_PAUSED, POWER_OFF = 0, 1, 3, 4


def named_id(kind: str, name: str) -> str:
    """A UUID that depends on kind and name alone, so that it is the same in every run."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind}/{name}"))


class Timeline:
    """Events to come, and the moment that is being simulated."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self.at = clock.monotonic()

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Run an event later."""
        heapq.heappush(self._events, (self.at + seconds, next(self._order), event))

    def settle(self) -> None:
        """Run all that is due, up to the present."""
        present = self._clock.monotonic()
        while self._events and self._events[0][0] <= present:
            due, _, event = heapq.heappop(self._events)
            self.at = max(self.at, due)
            event()
        self.at = max(self.at, present)

    def due(self) -> float | None:
        """When the next event is due, on the clock's monotonic scale."""
        return self._events[0][0] if self._events else None

    def moment(self) -> datetime:
        """Wall time of the moment that is being simulated."""
        return self._clock.now() - timedelta(seconds=self._clock.monotonic() - self.at)


@dataclass(slots=True, eq=False)
class Host:
    """One hypervisor with its compute service."""

    name: str
    spec: HostSpec
    number: int
    tie: float
    """Chance, drawn once: decides between hosts of the same weight."""
    id: str
    service_id: str
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    silent_since: float | None = None
    """Since when its nova-compute is dead. None: it lives."""
    powered: bool = True
    """Whether the machine runs: without it, its guests are dead too."""
    vcpus_used: int = 0
    ram_used: int = 0
    disk_used: int = 0
    reported_ram: int = 0
    """RAM that its compute service has taken note of: later than placement has."""
    building: int = 0
    queue: list[Callable[[], None]] = field(default_factory=list)
    """Messages that wait for its compute service to come back."""
    ghosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Guests that run although Nova has no server for them: former id to addresses."""

    @property
    def alive(self) -> bool:
        return self.silent_since is None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a server is in ERROR."""

    message: str
    created: datetime
    details: str
    code: int = 500


@dataclass(slots=True, eq=False)
class Group:
    """A server group."""

    id: str
    name: str
    project: str
    policy: str
    max_per_host: int = 1
    has_rules: bool = False
    members: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Server:
    """One server, with all that is true of it."""

    id: str
    number: int
    """In the order of creation: listings are sorted by it."""
    name: str
    hostname: str
    project: str
    flavor: FlavorSpec
    image_id: str
    created: datetime
    updated: datetime
    networks: tuple[str, ...] = ()
    """Ids of the networks it was asked onto."""
    zone_asked: str = ""
    host: str | None = None
    vm_state: str = "building"
    task: str | None = "scheduling"
    power: int = POWER_NONE
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    all_tags: tuple[str, ...] = ()
    """What its tags last were: Nova drops them with the server."""
    fault: Fault | None = None
    group: str | None = None
    locked: bool = False
    key_name: str | None = None
    config_drive: bool = False
    user_data: str | None = None
    description: str | None = None
    security_groups: tuple[str, ...] = ("default",)
    reservation: str = ""
    launch_index: int = 0
    launched: datetime | None = None
    terminated: datetime | None = None
    addresses: dict[str, str] = field(default_factory=dict)
    """Network id to address."""
    placed_on: list[str] = field(default_factory=list)
    """Hosts whose capacity it holds: two after an evacuation."""
    guest_up: bool = False
    reachable: bool = True
    boots: int = 0
    conducted: bool = False
    hung: bool = False
    """A fault has stopped its build or its task for good."""
    job: int = 0
    """Grows with everything that is begun on it: what was begun before does not finish."""
    version: int = 0
    """Grows with every change: tells whether a rendering of it is stale."""
    actions: list["Deed"] = field(default_factory=list)
    renderings: dict[object, tuple[int, str, bytes]] = field(default_factory=dict)
    """JSON of it, by who asks: with the version and the host status that it was made from."""


@dataclass(slots=True, eq=False)
class Deed:
    """An entry in the history of a server."""

    action: str
    request_id: str
    started: datetime
    updated: datetime
    message: str | None = None


@dataclass(slots=True, eq=False)
class Migration:
    """An entry in os-migrations."""

    number: int
    id: str
    server: str
    kind: str
    source: str
    created: datetime
    updated: datetime
    dest: str | None = None
    status: str = "accepted"


@dataclass(slots=True, eq=False)
class Project:
    """A project and its quota."""

    id: str
    name: str
    quota: QuotaSpec
    conducted: int = 0
    """Servers that the conductor has taken on: what its own, late check of the quota counts."""
    instances: int = 0
    cores: int = 0
    ram_mb: int = 0
    key_pairs: dict[str, KeyPairSpec] = field(default_factory=dict)


class Addresses:
    """Addresses of guests: each has one owner at a time."""

    def __init__(self, network: str) -> None:
        self._fresh = ipaddress.ip_network(network).hosts()
        self._freed: deque[str] = deque()

    def take(self) -> str:
        """One that nobody has."""
        if self._freed:
            return self._freed.popleft()
        address = next(self._fresh, None)
        if address is None:
            raise RuntimeError("the network of the guests has no address left: make it larger")
        return str(address)

    def free(self, address: str) -> None:
        """Its owner is gone."""
        self._freed.append(address)


class World:
    """All that there is in one cloud."""

    def __init__(self, spec: WorldSpec, clock: Clock, seed: int) -> None:
        self.spec = spec
        self.time = Timeline(clock)
        self.chance = random.Random(f"{seed}/chance")  # noqa: S311 - a simulation wants to repeat
        self._names = random.Random(f"{seed}/names")  # noqa: S311 - a simulation wants to repeat
        self.hosts = {host.name: host for host in self._make_hosts()}
        self.flavors: dict[str, FlavorSpec] = {}
        self.images: dict[str, ImageSpec] = {}
        self.networks: dict[str, NetworkSpec] = {}
        self.stock()
        self.projects: dict[str, Project] = {}
        self.groups: dict[str, Group] = {}
        self.servers: dict[str, Server] = {}
        """Those that are there, in the order of their creation."""
        self.deleted: dict[str, Server] = {}
        """Those that were there, in the order of their end."""
        self.migrations: list[Migration] = []
        self.precached: dict[tuple[str, str], datetime] = {}
        self.answering: dict[str, str] = {}
        """Address to the server, or former server, whose guest answers there."""
        self.guest_log: deque[tuple[str, bool]] = deque()
        """Guests that came up or went down, for whoever opens the ports."""
        self.addresses = Addresses(spec.guests.network)
        self.journal = Journal()
        self._numbers = count(1)
        self.created = 0
        self.removed = 0
        self.project_by_name(spec.project)

    def stock(self) -> None:
        """Have all flavors, images and networks that the spec names."""
        spec = self.spec
        self.flavors.update({f.id or named_id("flavor", f.name): f for f in spec.flavors})
        self.images.update({i.id or named_id("image", i.name): i for i in spec.images})
        self.networks.update({n.id or named_id("network", n.name): n for n in spec.networks})

    def _make_hosts(self) -> Iterator[Host]:
        number = 0
        for group in self.spec.hosts:
            for n in range(1, group.count + 1):
                number += 1
                name = group.name.format(n=n, rack=group.rack, zone=group.zone)
                yield Host(
                    name,
                    group,
                    number,
                    self.chance.random(),
                    named_id("hypervisor", name),
                    named_id("service", name),
                    reported_ram=group.reserved_ram_mb,
                )

    def new_id(self) -> str:
        """A UUID that the seed decides."""
        return str(uuid.UUID(int=self._names.getrandbits(128), version=4))

    def next_number(self) -> int:
        return next(self._numbers)

    def draw(self, span: tuple[float, float]) -> float:
        """Seconds out of a range."""
        low, high = span
        return low if low == high else self.chance.uniform(low, high)

    def project_by_name(self, name: str) -> Project:
        """The project of this name. It comes to be when first named."""
        ident = named_id("project", name).replace("-", "")
        if ident not in self.projects:
            keys = {key.name: key for key in self.spec.key_pairs}
            self.projects[ident] = Project(ident, name, self.spec.quota, key_pairs=keys)
        return self.projects[ident]

    def zones(self) -> tuple[str, ...]:
        return tuple(sorted({host.spec.zone for host in self.hosts.values()}))

    def open_zones(self) -> set[str]:
        """Those that servers may be asked for in: some host is enabled, be it dead or alive."""
        return {host.spec.zone for host in self.hosts.values() if not host.disabled}

    def racks(self) -> dict[str, list[Host]]:
        """Rack to its hosts, in the order of the spec."""
        racks: dict[str, list[Host]] = {}
        for host in self.hosts.values():
            racks.setdefault(host.spec.rack, []).append(host)
        return racks

    def zone_of(self, server: Server) -> str:
        """The availability zone as Nova shows it."""
        if server.host is not None:
            return self.hosts[server.host].spec.zone
        return server.zone_asked

    def host_hash(self, server: Server) -> str:
        """`hostId`: tells hosts apart within a project, and nothing else."""
        if server.host is None:
            return ""
        return hashlib.sha224((server.project + server.host).encode()).hexdigest()

    def is_up(self, host: Host) -> bool:
        """What Nova believes of its compute service."""
        if host.forced_down:
            return False
        if host.silent_since is None:
            return True
        return self.time.at - host.silent_since <= self.spec.timings.service_down_time

    def host_status(self, server: Server) -> str:
        """What an admin reads of the host of a server."""
        if server.host is None:
            return ""
        host = self.hosts[server.host]
        if host.forced_down:
            return "DOWN"
        if host.disabled:
            return "MAINTENANCE"
        return "UP" if self.is_up(host) else "UNKNOWN"

    def touch(self, server: Server) -> None:
        """Note that a server has changed."""
        server.version += 1
        server.updated = self.time.moment() - timedelta(seconds=self.spec.timings.clock_behind)

    def place(self, server: Server, host: Host) -> None:
        """Let a server hold capacity of a host."""
        server.placed_on.append(host.name)
        host.vcpus_used += server.flavor.vcpus
        host.ram_used += server.flavor.ram_mb
        host.disk_used += server.flavor.disk_gb

    def unplace(self, server: Server, host: Host) -> None:
        """Give it back."""
        server.placed_on.remove(host.name)
        host.vcpus_used -= server.flavor.vcpus
        host.ram_used -= server.flavor.ram_mb
        host.disk_used -= server.flavor.disk_gb

    def set_host(self, server: Server, host: Host | None) -> None:
        """Let a server be on a host, or on none."""
        if server.host is not None:
            self.hosts[server.host].reported_ram -= server.flavor.ram_mb
        server.host = host.name if host else None
        if host is not None:
            host.reported_ram += server.flavor.ram_mb

    def give_addresses(self, server: Server) -> None:
        """An address on each of its networks."""
        for network in server.networks:
            if network not in server.addresses:
                server.addresses[network] = self.addresses.take()

    def take_addresses(self, server: Server) -> None:
        """Take them back."""
        self.guest_off(server)
        for address in server.addresses.values():
            self.addresses.free(address)
        server.addresses.clear()

    def guest_on(self, server: Server) -> None:
        """The guest has booted."""
        server.guest_up = True
        self.show_guest(server)

    def guest_off(self, server: Server) -> None:
        """The guest has ended."""
        server.guest_up = False
        server.boots += 1
        self.show_guest(server)

    def show_guest(self, server: Server) -> None:
        """Let the addresses of a server answer, or not, as things are."""
        powered = server.host is not None and self.hosts[server.host].powered
        up = server.guest_up and server.reachable and powered
        for address in server.addresses.values():
            self.show_address(address, server.id, up)

    def show_address(self, address: str, server_id: str, up: bool) -> None:
        """Let one address answer, or not."""
        if up and address not in self.answering:
            self.answering[address] = server_id
            self.guest_log.append((address, True))
        elif not up and self.answering.get(address) == server_id:
            del self.answering[address]
            self.guest_log.append((address, False))

    def add(self, server: Server) -> None:
        """There is one more server. From here on it counts against the quota, ERROR or not."""
        self.servers[server.id] = server
        self.created += 1
        self._count(server, 1)

    def remove(self, server: Server) -> None:
        """There is one server less."""
        self.note("gone", server)
        del self.servers[server.id]
        self.deleted[server.id] = server
        self.removed += 1
        self._count(server, -1)

    def note(self, what: str, server: Server) -> None:
        """Write down what befalls a server, before it does."""
        self.journal.add(Entry(self.time.moment(), what, server.id, server.name, server.tags))

    def _count(self, server: Server, sign: int) -> None:
        project = self.projects[server.project]
        project.instances += sign
        project.cores += sign * server.flavor.vcpus
        project.ram_mb += sign * server.flavor.ram_mb
        if sign < 0:
            project.conducted -= server.conducted

    def conduct(self, server: Server) -> int:
        """The conductor takes a server on. Returns how many it had before."""
        project = self.projects[server.project]
        server.conducted = True
        project.conducted += 1
        return project.conducted - 1

    def flavor_id(self, server: Server) -> str:
        return server.flavor.id or named_id("flavor", server.flavor.name)
