"""The Nova server group of a pool: found again by its name, made once, deleted with the pool."""

from warmpool.domain.cloud import ServerGroup
from warmpool.domain.facts import Pool
from warmpool.domain.ids import PoolUid
from warmpool.ports.cloud import Cloud


def prefix_of(pool: PoolUid) -> str:
    """What the names of a pool's groups begin with, whatever its hint was."""
    return f"warmpool-{pool}-"


async def settle_group(cloud: Cloud, pool: Pool) -> str:
    """Have the group of the pool's hint, and none of former ones without members; its id.

    Two leaders in a row may both make it: then the same one of the two is used ever after. Empty:
    the pool has no hint, or is going and has no group.

    Raises:
        CloudError: Nova could not be asked, or the project may have no more groups.
    """
    hint = pool.spec.template.group_hint
    if not hint and not pool.status.server_group:
        return ""
    name = f"{prefix_of(pool.uid)}{hint}"
    ours = await _groups_of(cloud, pool.uid)
    named = sorted((g for g in ours if g.name == name), key=lambda g: (-g.members, g.id))
    kept = named[0].id if hint and named else ""
    if hint and not kept and not pool.deleting:
        kept = await cloud.create_group(name)
    for group in ours:
        if group.id != kept and not group.members:
            await cloud.delete_group(group.id)
    return kept


async def delete_groups(cloud: Cloud, pool: PoolUid) -> None:
    """Delete all groups of a pool that is going.

    Raises:
        CloudError: Nova could not be asked.
    """
    for group in await _groups_of(cloud, pool):
        await cloud.delete_group(group.id)


async def _groups_of(cloud: Cloud, pool: PoolUid) -> list[ServerGroup]:
    return [group for group in await cloud.groups() if group.name.startswith(prefix_of(pool))]
