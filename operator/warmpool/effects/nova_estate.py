"""A project's servers whoever built them, read from Nova, and marked there."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER
from warmpool.domain.adoption import Existing
from warmpool.domain.errors import CloudUnavailable
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.effects.nova import NovaCloud
from warmpool.effects.nova_calls import Call, Effect
from warmpool.effects.nova_reading import as_objects, next_marker, read_server

PAGE: Final = "500"
MAX_PAGES: Final = 400

FLAVOR_ID_VERSION: Final = (2, 46)
"""From 2.47 on the flavor of a server comes without its id."""


class NovaEstate:
    """The contract is `ports.estate.Estate`."""

    def __init__(self, cloud: NovaCloud, installation: InstallationId) -> None:
        self._cloud = cloud
        self._installation = installation

    async def existing(self) -> tuple[Existing, ...]:
        """All servers of the project."""
        found: dict[ServerId, Existing] = {}
        query = {"limit": PAGE}
        for _ in range(MAX_PAGES):
            call = Call("list servers", "/servers/detail", query=query, version=FLAVOR_ID_VERSION)
            body = await self._cloud.body(call) or b"{}"
            for record in as_objects(body, "servers"):
                existing = self._read(record)
                found[existing.server.id] = existing
            marker = next_marker(body, "servers")
            if marker is None:
                return tuple(found.values())
            query = {"limit": PAGE, "marker": marker}
        raise CloudUnavailable("list servers: the pages do not end")

    async def mark(self, server: ServerId, owner: VmUid) -> None:
        """Tag a server as ours, the owner first: with our mark and no owner it would be leaked."""
        for tag in (f"{TAG_OWNER}{owner}", f"{TAG_INSTALLATION}{self._installation}"):
            path = f"/servers/{quote(server, safe='')}/tags/{quote(tag, safe='')}"
            await self._cloud.send(Call("tag server", path, "PUT", effect=Effect.CHANGE))

    def _read(self, record: Mapping[str, object]) -> Existing:
        tags, addresses = record.get("tags"), record.get("addresses")
        key_pair = record.get("key_name")
        return Existing(
            server=read_server(record, self._installation),
            flavor_id=_id_of(record.get("flavor")),
            image_id=_id_of(record.get("image")),
            key_pair=key_pair if isinstance(key_pair, str) else "",
            networks=frozenset(addresses) if isinstance(addresses, dict) else frozenset(),
            tags=frozenset(map(str, tags)) if isinstance(tags, list) else frozenset(),
        )


def _id_of(value: object) -> str:
    ident = value.get("id") if isinstance(value, dict) else None
    return ident if isinstance(ident, str) else ""
