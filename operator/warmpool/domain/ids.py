"""Identities, each a type of its own, so that one cannot stand for another."""

from dataclasses import dataclass
from typing import NewType

ServerId = NewType("ServerId", str)
"""Nova's id of a server."""
VmUid = NewType("VmUid", str)
"""UID of a WarmVM."""
ClaimUid = NewType("ClaimUid", str)
"""UID of a VMClaim."""
PoolUid = NewType("PoolUid", str)
"""UID of a WarmPool."""
InstallationId = NewType("InstallationId", str)
"""Which installation of warmpool a server belongs to."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """Namespace and name of an object of a kind that the context tells."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
