"""What adoption needs of a cloud: servers whoever built them, and to mark one as ours."""

from typing import Protocol

from warmpool.domain.adoption import Existing
from warmpool.domain.ids import ServerId, VmUid


class Estate(Protocol):
    """A project's servers. Errors as for `ports.cloud.Cloud`."""

    async def existing(self) -> tuple[Existing, ...]:
        """All servers of the project."""
        ...

    async def mark(self, server: ServerId, owner: VmUid) -> None:
        """Tag a server with our installation and its owner. Doing it again does no harm."""
        ...
