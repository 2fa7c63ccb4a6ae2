"""Which servers match a pool's template. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER
from warmpool.domain.adoption import Existing, Verdict
from warmpool.domain.cloud import BuildSpec, ServerState
from warmpool.domain.facts import Pool
from warmpool.domain.ids import ServerId

MAX_TAGS: Final = 50
"""Tags of one server, as Nova has it. Two are ours."""


def closed(pool: Pool) -> str:
    """Why servers cannot be put under a pool as it stands. Empty: they can."""
    if pool.deleting:
        return f"pool {pool.ref} is being deleted, and its VMs with it"
    if not pool.spec.paused:
        return f"pool {pool.ref} is not paused: set spec.paused first, and unset it after"
    return ""


def verdicts(
    pool: Pool,
    spec: BuildSpec,
    servers: Iterable[Existing],
    *,
    owned: Mapping[ServerId, str],
    room: int,
) -> list[Verdict]:
    """What is to be said of each server, the adoptable ones first in the order of their names.

    Args:
        pool: whose they are to be.
        spec: its template, resolved.
        servers: those that were asked for.
        owned: WarmVMs by the servers that they name.
        room: how many more VMs the pool wants.
    """
    found: list[Verdict] = []
    for each in sorted(servers, key=lambda e: (e.server.name, e.server.id)):
        why_not = next(_obstacles(pool, spec, each, owned), "")
        if not why_not and room <= 0:
            why_not = "the pool wants no more: raise replicas, or maxSize"
        room -= not why_not
        found.append(Verdict(each.server.id, each.server.name, each.server.zone, why_not))
    return sorted(found, key=lambda verdict: bool(verdict.why_not))


def _obstacles(
    pool: Pool, spec: BuildSpec, each: Existing, owned: Mapping[ServerId, str]
) -> Iterator[str]:
    """Why a pool cannot take a server, the plainest first."""
    server = each.server
    yield from _owners(each, owned)
    if server.state is not ServerState.ACTIVE or server.busy:
        yield f"it is {server.status}, not ACTIVE and at rest"
    if each.flavor_id != spec.flavor_id:
        yield "it is of another flavor"
    if each.image_id != spec.image_id:
        yield "it was booted from a volume" if not each.image_id else "it is of another image"
    if each.key_pair != (spec.key_pair or ""):
        yield f"it has the key pair {each.key_pair!r}" if each.key_pair else "it has no key pair"
    zones = pool.spec.availability_zones
    if zones and server.zone not in zones:
        yield f"it stands in zone {server.zone!r}"
    yield from _connections(pool, each)
    if len(each.tags) > MAX_TAGS - 2:
        yield f"it has {len(each.tags)} tags: there is no room for ours"


def _owners(each: Existing, owned: Mapping[ServerId, str]) -> Iterator[str]:
    if each.server.id in owned:
        yield f"it is WarmVM {owned[each.server.id]}'s already"
    marks = (TAG_INSTALLATION, TAG_OWNER)
    if any(tag.startswith(marks) for tag in each.tags):
        yield "it is marked as some installation's"


def _connections(pool: Pool, each: Existing) -> Iterator[str]:
    """Networks by name; one that the template names by id is not told apart."""
    wanted = pool.spec.template.networks
    if wanted is None:
        if not each.networks:
            yield "it is on no network"
        return
    names = {network.network for network in wanted}
    if len(names) != len(each.networks):
        yield f"it is on {len(each.networks)} networks, the template names {len(names)}"


def unmarked(servers: Iterable[Existing], owned: Mapping[ServerId, str]) -> Collection[Existing]:
    """Servers of WarmVMs that do not carry their mark: an adoption that was cut short."""
    return [e for e in servers if e.server.id in owned and e.server.owner is None]
