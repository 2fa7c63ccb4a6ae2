"""Where a server goes: Nova's filters, and its weigher by free RAM."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from warmpool.sim.spec import FlavorSpec
from warmpool.sim.world import Group, Host, Server, World

NO_HOST = "No valid host was found. There are not enough hosts available."
NO_HOST_SHORT = "No valid host was found. "

SCOPE = "aggregate_instance_extra_specs:"
"""Prefix of the extra specs of a flavor that the metadata of a host's aggregate must match."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What limits the choice, beside the flavor."""

    zone: str = ""
    host: str | None = None
    """This one and no other."""
    group: Group | None = None
    avoid: frozenset[str] = frozenset()


@dataclass(slots=True)
class Round:
    """What one decision over several servers has taken so far."""

    vcpus: dict[str, int] = field(default_factory=dict)
    ram: dict[str, int] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)

    def take(self, host: Host, server: Server) -> None:
        self.vcpus[host.name] = self.vcpus.get(host.name, 0) + server.flavor.vcpus
        self.ram[host.name] = self.ram.get(host.name, 0) + server.flavor.ram_mb
        self.members[host.name] = self.members.get(host.name, 0) + 1


@dataclass(frozen=True, slots=True)
class Choice:
    """A host for one server, and those to fall back to."""

    host: Host
    alternates: tuple[Host, ...]


def decide(world: World, servers: Iterable[Server], wish: Wish) -> list[Choice] | None:
    """Hosts for all of these servers, in one decision. None: not for all of them."""
    round_ = Round()
    members = _members(world, wish.group)
    choices = []
    for server in servers:
        fit = [h for h in world.hosts.values() if _passes(world, h, server, wish, round_, members)]
        if not fit:
            return None
        fit.sort(key=lambda host: _weight(host, wish, round_, members))
        alternates = () if wish.host else tuple(fit[1 : world.spec.max_attempts])
        choices.append(Choice(fit[0], alternates))
        round_.take(fit[0], server)
    return choices


def fits(host: Host, server: Server) -> bool:
    """Whether the host still has room for the server."""
    return _has_room(host, server, Round())


def room_on(host: Host, flavor: FlavorSpec | None) -> int:
    """How many further servers of the flavor the host takes."""
    if flavor is None:
        return 0
    spec = host.spec
    rooms = (
        (int(spec.vcpus * spec.cpu_ratio) - host.vcpus_used) // flavor.vcpus,
        (spec.ram_mb - spec.reserved_ram_mb - host.ram_used) // flavor.ram_mb,
        (spec.disk_gb - host.disk_used) // flavor.disk_gb if flavor.disk_gb else None,
    )
    fits = flavor.vcpus <= spec.vcpus
    return max(0, min(room for room in rooms if room is not None)) if fits else 0


def group_full(world: World, server: Server, host: Host) -> bool:
    """The check that the hypervisor itself makes, late: members that are on it already."""
    group = world.groups.get(server.group or "")
    if group is None or group.policy != "anti-affinity":
        return False
    others = _members(world, group).get(host.name, 0) - (server.host == host.name)
    return others >= group.max_per_host


def _members(world: World, group: Group | None) -> dict[str, int]:
    """Members that their hypervisors have: those on the way there are not seen."""
    found: dict[str, int] = {}
    for ident in group.members if group else ():
        server = world.servers.get(ident)
        if server is not None and server.host is not None:
            found[server.host] = found.get(server.host, 0) + 1
    return found


def _passes(  # noqa: PLR0913, PLR0917 - the filters and what they look at
    world: World, host: Host, server: Server, wish: Wish, round_: Round, members: dict[str, int]
) -> bool:
    if host.disabled or not world.is_up(host) or host.name in wish.avoid:
        return False
    if wish.host not in {None, host.name} or wish.zone not in {"", host.spec.zone}:
        return False
    return (
        _has_room(host, server, round_)
        and suits(host, server.flavor)
        and _group_allows(host, wish.group, round_, members)
    )


def _has_room(host: Host, server: Server, round_: Round) -> bool:
    flavor, spec = server.flavor, host.spec
    vcpus = host.vcpus_used + round_.vcpus.get(host.name, 0) + flavor.vcpus
    ram = host.ram_used + round_.ram.get(host.name, 0) + flavor.ram_mb
    return (
        flavor.vcpus <= spec.vcpus
        and vcpus <= spec.vcpus * spec.cpu_ratio
        and ram <= spec.ram_mb - spec.reserved_ram_mb
        and host.disk_used + flavor.disk_gb <= spec.disk_gb
    )


def suits(host: Host, flavor: FlavorSpec) -> bool:
    """Whether the host's aggregates have what the flavor asks of them."""
    metadata = {"rack": host.spec.rack, "availability_zone": host.spec.zone}
    return all(
        metadata.get(key.removeprefix(SCOPE)) == value
        for key, value in flavor.extra_specs.items()
        if key.startswith(SCOPE)
    )


def _group_allows(host: Host, group: Group | None, round_: Round, members: dict[str, int]) -> bool:
    if group is None:
        return True
    here = members.get(host.name, 0) + round_.members.get(host.name, 0)
    if group.policy == "anti-affinity":
        return here < group.max_per_host
    if group.policy == "affinity":
        return here > 0 or not (members or round_.members)
    return True


def _weight(
    host: Host, wish: Wish, round_: Round, members: dict[str, int]
) -> tuple[float, float, float]:
    """Smaller is better.

    Members of a group see only the RAM that hypervisors have reported: that is why several POSTs
    at a time all aim at the same one.
    """
    here = members.get(host.name, 0) + round_.members.get(host.name, 0)
    soft = {"soft-anti-affinity": here, "soft-affinity": -here}
    lean = soft.get(wish.group.policy, 0) if wish.group else 0
    used = host.reported_ram if wish.group else host.ram_used + host.spec.reserved_ram_mb
    free = host.spec.ram_mb - used - round_.ram.get(host.name, 0)
    return (lean, -free, host.tie)
