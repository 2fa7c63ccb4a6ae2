"""What we write on a server in Nova about its use: it outlives what the API server knows.

Metadata, since it can be added to at any time. Whoever may write it may delete the server, too; so
it is believed, but never more than that a server is in use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from warmpool.api.names import (
    META_CLAIM,
    META_CLAIM_NAMESPACE,
    META_CLAIM_UID,
    META_OWNER,
    META_POOL,
    META_REQUEST,
)
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.ids import Ref, VmUid

MAX_VALUE: Final = 255
"""Characters of a value of metadata: Nova's bound."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands on one server."""

    pool: Ref | None = None
    """The pool that its claim got it from."""
    claim: ClaimRef | None = None
    """Whose it is."""
    owner: VmUid | None = None
    """The WarmVM that has adopted it. It goes before the tag, which names the first one."""


UNMARKED: Final = Marks()


def owned_by(vm: VmUid) -> dict[str, str]:
    """Metadata of a server that another WarmVM than its first one has now."""
    return {META_OWNER: vm}


def claimed_by(claim: ClaimRef, pool: Ref) -> dict[str, str]:
    """Metadata of a server that this claim has got from a pool."""
    return {
        META_POOL: str(pool),
        META_CLAIM_UID: claim.uid,
        META_CLAIM_NAMESPACE: claim.namespace,
        META_CLAIM: claim.name,
        META_REQUEST: claim.request,
    }


FREE: Final[Mapping[str, str]] = dict.fromkeys(
    (META_POOL, META_CLAIM_UID, META_CLAIM_NAMESPACE, META_CLAIM, META_REQUEST), ""
)
"""Metadata of a server that is nobody's any more."""


def read_marks(metadata: object) -> Marks:
    """The marks in a server's metadata. What is malformed counts as not there."""
    if not isinstance(metadata, Mapping):
        return UNMARKED
    namespace, _, name = _text(metadata, META_POOL).partition("/")
    owner = _text(metadata, META_OWNER)
    claim = _claim(metadata)
    if not name and not owner and claim is None:
        return UNMARKED
    return Marks(
        pool=Ref(namespace, name) if namespace and name else None,
        claim=claim,
        owner=VmUid(owner) if owner else None,
    )


def _claim(metadata: Mapping[object, object]) -> ClaimRef | None:
    uid = _text(metadata, META_CLAIM_UID)
    if not uid:
        return None
    return ClaimRef(
        uid=uid[:63],
        namespace=_text(metadata, META_CLAIM_NAMESPACE)[:63],
        name=_text(metadata, META_CLAIM)[:253],
        request=_text(metadata, META_REQUEST)[:63],
    )


def _text(metadata: Mapping[object, object], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) and len(value) <= MAX_VALUE else ""
