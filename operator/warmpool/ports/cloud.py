"""What the operator needs of one cloud, with one project's credentials."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.catalogue import Entry
from warmpool.domain.cloud import (
    BuildSpec,
    Identity,
    Inventory,
    Listing,
    Quota,
    Server,
    ServerGroup,
    ServerRequest,
    Topology,
)
from warmpool.domain.ids import ServerId, VmUid
from warmpool.domain.racks import Hosts


class Cloud(Protocol):
    """Nova with what it needs of Keystone, Glance and Neutron.

    Every method may raise `CredentialsRefused` (401, 403 of the token itself) and
    `CloudUnavailable` (5xx, 429, no connection, time-out of a call that changes nothing). Where a
    call that changes something times out or loses its answer, it raises `OutcomeUnknown`: look by
    owner before trying again. Texts are bounded and never repeat user data.
    """

    @property
    def region(self) -> str:
        """Name of the region, for provider ids and domains."""
        ...

    async def resolve(
        self, template: Template, zones: tuple[str, ...], entry: Entry | None = None
    ) -> BuildSpec:
        """Turn the names of a template into ids. `user_data` is left out: the caller adds it.

        With an entry of the catalogue, flavor and image are the entry's, and its metadata comes
        below the template's own.

        Raises:
            DependencyMissing: a name means nothing, or more than one thing. `field` is its path
                in the pool's spec: `spec.template.flavor`, `.image`, `.networks[0].network`,
                `.keyPair`, or `spec.availabilityZones[0]`; for what an entry names,
                `spec.template.flavorRef.name`.
        """
        ...

    async def create(self, request: ServerRequest) -> ServerId:
        """POST one server, marked with our installation and its owner.

        Raises:
            CapacityRefused: quota, of servers or of members of the group (QUOTA_EXCEEDED), rate
                limit (RATE_LIMITED), no valid host, or no hypervisor of the name that was asked
                for (NO_VALID_HOST).
            AimForbidden: a hypervisor was asked for, and these credentials may not.
            RequestRejected: Nova calls the request wrong (400, 404 of a thing it names, such as its
                server group).
            OutcomeUnknown: the answer was lost; the server may come to be, even much later.
        """
        ...

    async def delete(self, server: ServerId) -> None:
        """Ask for the end of a server. Quiet if it is gone or going. Done only when `get` is None.

        Raises:
            CapacityRefused: never. A locked server (409) is `RequestRejected`.
        """
        ...

    async def get(self, server: ServerId) -> Server | None:
        """One server with its fault; None if Nova says 404."""
        ...

    async def find(self, owner: VmUid) -> tuple[Server, ...]:
        """The servers that carry this owner's tag and our installation's. Normally none or one.

        One that another WarmVM has adopted is its, and not found by the tag of its first one.
        """
        ...

    async def list(self, since: datetime | None) -> Listing:
        """All servers of our installation, or with `since` what changed since then.

        The incremental answer also names deleted servers, and is cheap. Servers without our
        installation's tag are in neither.
        """
        ...

    async def rebuild(self, server: ServerId, image_id: str) -> None:
        """Build a server anew from an image, in its place.

        Its id, tags, metadata, addresses and user data stay, its disk does not. Returns
        when Nova has accepted it. It is over when `get` tells ACTIVE and not busy, and has failed
        when it tells ERROR.

        Raises:
            RequestRejected: it is gone (404), locked or in a state that forbids it (409), or the
                image does not do (400).
            OutcomeUnknown: the answer was lost. It may happen long afterwards, whatever the server
                is used for by then.
        """
        ...

    async def set_metadata(self, server: ServerId, items: Mapping[str, str]) -> None:
        """Write these items on a server. Items that are not named stay as they are.

        Raises:
            RequestRejected: the server is gone (404) or locked or busy (409), or there are too many
                items or too long ones (400, 403).
            OutcomeUnknown: the answer was lost; writing the same again does no harm.
        """
        ...

    async def identity(self) -> Identity:
        """Project and roles of the token of now."""
        ...

    async def topology(self, key: str = "rack") -> Topology:
        """Racks of the hosts, from the metadata `key` of host aggregates.

        A host that aggregates put into two racks is left out.
        """
        ...

    async def traits(self, prefix: str) -> Topology:
        """Racks of the hypervisors, by Nova's names of them, from Placement's traits.

        What follows `prefix` in the name of a trait is the rack. A hypervisor with two such traits
        is left out.
        """
        ...

    async def hosts(self) -> Hosts:
        """All compute hosts, whatever their state."""
        ...

    async def inventory(self, spec: BuildSpec) -> Inventory:
        """The hypervisors that take builds, and how many servers of `spec.size` fit on each.

        A server takes room once it is scheduled: some seconds after `create`.
        """
        ...

    async def quota(self) -> Quota:
        """What the project may have and what it uses, servers that are not ours included.

        Nova counts a server once it is scheduled: some seconds after `create`.
        """
        ...

    async def groups(self) -> tuple[ServerGroup, ...]:
        """The project's server groups with the policy anti-affinity, whoever made them."""
        ...

    async def create_group(self, name: str) -> str:
        """A new server group with the policy anti-affinity; its id.

        Raises:
            CapacityRefused: the project may have no more groups (QUOTA_EXCEEDED).
            RequestRejected: Nova calls it wrong.
            OutcomeUnknown: the answer was lost: `groups` tells whether it is there.
        """
        ...

    async def delete_group(self, group: str) -> None:
        """Delete a server group. Quiet if it is gone. Its servers stay, and mind it no more."""
        ...

    async def down_hosts(self) -> frozenset[str]:
        """Compute hosts that Nova holds for dead. Empty where the credentials may not ask.

        Nova does so after a minute of silence. What runs there may go on running.
        """
        ...

    async def console(self, server: ServerId, lines: int) -> str:
        """The last lines that a server wrote on its console; empty: there is none, or no server.

        The text is the guest's own: not bounded in width, nor clean. A host that is dead keeps one
        waiting for as long as Nova itself waits for it.
        """
        ...

    async def close(self) -> None:
        """Free threads and connections."""
        ...
