"""Server groups with the policy anti-affinity: asked of Nova, read into our words."""

from collections.abc import Awaitable, Callable
from typing import Final

from warmpool.domain.cloud import ServerGroup
from warmpool.effects.nova_calls import Answer, Call, Effect
from warmpool.effects.nova_messages import created_id, found, good, is_server_id
from warmpool.effects.nova_reading import MAX_NAME, as_objects

PATH: Final = "/os-server-groups"
POLICY: Final = "anti-affinity"
PAGE: Final = 1000
"""Groups per page: Nova's default maximum. They are paged by offset."""
MAX_PAGES: Final = 20

Ask = Callable[[Call], Awaitable[Answer]]


async def groups(ask: Ask) -> tuple[ServerGroup, ...]:
    """The contract of `Cloud.groups`."""
    read: list[ServerGroup] = []
    for number in range(MAX_PAGES):
        query = {"limit": str(PAGE), "offset": str(PAGE * number)}
        answer = good(await ask(Call("list server groups", PATH, query=query)))
        records = as_objects(answer.body, "server_groups")
        read += filter(None, map(_read, records))
        if len(records) < PAGE:
            break
    return tuple(read)


def _read(record: dict[str, object]) -> ServerGroup | None:
    """A group; None: of another policy, or not to be read."""
    ident, name, members = record.get("id"), record.get("name"), record.get("members")
    if record.get("policies") != [POLICY] or not isinstance(name, str):
        return None
    if not isinstance(ident, str) or not is_server_id(ident):
        return None
    return ServerGroup(ident, name[:MAX_NAME], len(members) if isinstance(members, list) else 0)


async def create(name: str, ask: Ask) -> str:
    """The contract of `Cloud.create_group`."""
    json = {"server_group": {"name": name, "policies": [POLICY]}}
    call = Call("create server group", PATH, "POST", effect=Effect.BUILD, json=json)
    return created_id(await ask(call), "server_group")


async def delete(group: str, ask: Ask) -> None:
    """The contract of `Cloud.delete_group`."""
    if is_server_id(group):
        call = Call("delete server group", f"{PATH}/{group}", "DELETE", effect=Effect.CHANGE)
        found(await ask(call))
