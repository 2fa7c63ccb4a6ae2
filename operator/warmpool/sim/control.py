"""Commands that change a simulated cloud behind everybody's back, and the truth about it.

The commands are values, so that they come over HTTP as they come from Python.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field, TypeAdapter

from warmpool.sim.errors import Refused
from warmpool.sim.listing import status_of
from warmpool.sim.nova import Nova
from warmpool.sim.spec import UNLIMITED, Spec
from warmpool.sim.world import Host, Server


class SetQuota(Spec):
    """Change what a project may have. What is not named stays."""

    do: Literal["quota"] = "quota"
    project: str = ""
    """Empty: the cloud's own project."""
    instances: int | None = Field(default=None, ge=UNLIMITED)
    cores: int | None = Field(default=None, ge=UNLIMITED)
    ram_mb: int | None = Field(default=None, ge=UNLIMITED)
    server_groups: int | None = Field(default=None, ge=UNLIMITED)
    server_group_members: int | None = Field(default=None, ge=UNLIMITED)


class ChangeHost(Spec):
    """Do something to a hypervisor."""

    do: Literal["host"] = "host"
    host: str
    change: Literal["disable", "enable", "kill", "crash", "revive", "force-down", "unforce-down"]
    """`kill`: its nova-compute dies, guests live on. `crash`: the machine is dead. `revive`: it is
    back, and carries out what was asked of it meanwhile."""


class ChangeServer(Spec):
    """Do something to a server."""

    do: Literal["server"] = "server"
    server: str
    """Its id."""
    change: Literal["rename", "move", "wipe", "untag", "tag", "silence", "unsilence", "lock"]
    """`rename` and `tag` to `to`, `move` to the host `to`. `wipe`: gone at once. `untag`: all tags
    are gone. `silence`: the guest does not answer, Nova sees nothing of it."""
    to: str = ""


class Forget(Spec):
    """Delete an image or a flavor, by name or id."""

    do: Literal["forget"] = "forget"
    kind: Literal["image", "flavor", "network", "key-pair"]
    name: str


class Restore(Spec):
    """Bring all images, flavors and networks of the spec back."""

    do: Literal["restore"] = "restore"


Command = Annotated[
    SetQuota | ChangeHost | ChangeServer | Forget | Restore, Field(discriminator="do")
]
_ADAPTER: TypeAdapter[Command] = TypeAdapter(Command)


def parse_command(document: object) -> Command:
    """A command from JSON.

    Raises:
        ValueError: it is none.
    """
    return _ADAPTER.validate_python(document)


def execute(nova: Nova, command: Command) -> None:
    """Carry a command out.

    Raises:
        Refused: 404 for what there is not, 400 for what cannot be.
    """
    nova.settle()
    match command:
        case SetQuota():
            project = nova.project(command.project)
            asked = command.model_dump(exclude={"do", "project"}, exclude_none=True)
            project.quota = project.quota.model_copy(update=asked)
        case ChangeHost():
            _change_host(nova, nova.host(command.host), command.change)
        case ChangeServer():
            _change_server(nova, nova.get(command.server), command)
        case Forget():
            _forget(nova, command.kind, command.name)
        case Restore():
            nova.world.stock()
        case _:
            assert_never(command)


def _change_host(nova: Nova, host: Host, change: str) -> None:
    if change in {"disable", "enable"}:
        nova.disable(host, change == "disable")
    elif change in {"kill", "crash"}:
        nova.kill(host.name, power=change == "crash")
    elif change == "revive":
        nova.revive(host.name)
    else:
        nova.force_down(host, down=change == "force-down")


def _change_server(nova: Nova, server: Server, command: ChangeServer) -> None:
    match command.change:
        case "rename":
            server.name = command.to
            nova.world.touch(server)
        case "move":
            nova.move(server, command.to)
        case "wipe":
            nova.wipe(server)
        case "untag":
            nova.set_tags(server, ())
        case "tag":
            nova.set_tags(server, (*server.tags, command.to))
        case "silence" | "unsilence":
            nova.set_reachable(server, reachable=command.change == "unsilence")
        case "lock":
            nova.act(server, "lock")


def _forget(nova: Nova, kind: str, name: str) -> None:
    world = nova.world
    things: dict[str, dict[str, Any]] = {
        "image": world.images,
        "flavor": world.flavors,
        "network": world.networks,
        "key-pair": nova.project().key_pairs,
    }
    there = things[kind]
    found = [ident for ident, thing in there.items() if name in {ident, thing.name}]
    if not found:
        raise Refused(404, f"there is no {kind} {name!r}")
    for ident in found:
        del there[ident]


def state(nova: Nova) -> dict[str, Any]:
    """All truth about a cloud: what tests hold against what somebody believes."""
    nova.settle()
    world = nova.world
    return {
        "now": world.time.moment().isoformat(),
        "servers": [_server(nova, server) for server in world.servers.values()],
        "deleted": [server.id for server in world.deleted.values()],
        "ghosts": {host.name: sorted(host.ghosts) for host in world.hosts.values() if host.ghosts},
        "hosts": [_host(nova, host) for host in world.hosts.values()],
        "posts_accepted": nova.builds.posts,
        "servers_accepted": nova.builds.accepted,
        "servers_vanished": nova.builds.vanished,
        "servers_created": world.created,
        "servers_deleted": world.removed,
        "answering": world.answering,
        "calls": dict(sorted(nova.traffic.calls.items())),
        "bytes_sent": nova.traffic.bytes_sent,
        "faults": faults(nova),
    }


def journal(nova: Nova) -> dict[str, Any]:
    """What was asked for servers and what became of them, as far back as it is kept."""
    nova.settle()
    entries = [{**asdict(e), "at": e.at.isoformat()} for e in nova.world.journal.entries()]
    return {"dropped": nova.world.journal.dropped, "entries": entries}


def faults(nova: Nova) -> list[dict[str, Any]]:
    """The faults that are switched on."""
    return [
        {"id": armed.id, "strikes": armed.strikes, **armed.fault.model_dump()}
        for armed in nova.faults.armed()
    ]


def _server(nova: Nova, server: Server) -> dict[str, Any]:
    host = nova.world.hosts.get(server.host or "")
    return {
        "id": server.id,
        "name": server.name,
        "status": status_of(server),
        "task": server.task,
        "host": server.host,
        "rack": host.spec.rack if host else None,
        "zone": nova.world.zone_of(server),
        "tags": server.tags,
        "metadata": server.metadata,
        "addresses": list(server.addresses.values()),
        "answers": any(a in nova.world.answering for a in server.addresses.values()),
        "fault": server.fault.message if server.fault else None,
        "created": server.created.isoformat(),
    }


def _host(nova: Nova, host: Host) -> dict[str, Any]:
    return {
        "name": host.name,
        "zone": host.spec.zone,
        "rack": host.spec.rack,
        "up": nova.world.is_up(host),
        "alive": host.alive,
        "disabled": host.disabled,
        "vcpus_used": host.vcpus_used,
        "ram_used": host.ram_used,
        "waiting": len(host.queue),
    }
