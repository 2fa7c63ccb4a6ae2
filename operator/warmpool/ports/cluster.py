"""What the operator needs of the Kubernetes API server."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from warmpool.api.names import Kind
from warmpool.domain.ids import Ref

Body = Mapping[str, Any]
"""One object as JSON."""

PatchOp = Mapping[str, Any]
"""One operation of an RFC 6902 JSON patch."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent list: all objects of a kind as they were at one moment."""

    items: tuple[Body, ...]
    version: int
    """The resourceVersion of that moment. Comparable within one API server's etcd."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API server is and how to speak to it."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    private_key_path: str | None
    insecure: bool
    namespace: str
    """The namespace that the credentials themselves name, else `default`."""


class Login(Protocol):
    """Credentials for the API server, kept fresh."""

    @property
    def endpoint(self) -> Endpoint:
        """Where to."""
        ...

    async def token(self) -> str | None:
        """The bearer token of now, without its scheme; None if there is a certificate instead."""
        ...


class Cluster(Protocol):
    """The API server.

    Every method may raise `ClusterUnavailable` (no connection, 429, 5xx of a call that changes
    nothing), `Forbidden` (403) and, where it changes something, `ClusterOutcomeUnknown` (the answer
    was lost or the call timed out: read before trying again).
    """

    async def list(self, kind: Kind, *, pace: float = 0.0) -> Snapshot:
        """All objects of a kind in all namespaces, read through to etcd, page by page.

        `pace`: seconds between two pages, for who has time. A page keeps the API server busy for
        some 50 ms.
        """
        ...

    async def get(self, kind: Kind, ref: Ref) -> Body:
        """One object, read through to etcd.

        Raises:
            NotFound: there is none.
        """
        ...

    async def create(self, kind: Kind, body: Body) -> Body:
        """Create an object; its new state.

        Raises:
            Conflict: one of that name exists.
            Invalid: the schema or a rule refuses it.
            NotFound: its namespace is gone or going.
        """
        ...

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        """Apply a JSON patch, to the status subresource if asked; the new state.

        `brief`: of which the metadata alone is wanted, by who knows what it has written.

        Raises:
            NotFound: there is no such object.
            TestFailed: a `test` operation found something else.
            Invalid: the schema or a rule refuses the result.
            Conflict: somebody else wrote meanwhile.
        """
        ...

    async def replace(self, kind: Kind, body: Body) -> Body:
        """Replace an object if it still has the body's resourceVersion; its new metadata.

        Raises:
            Conflict: it has another one.
            NotFound: it is gone.
            Invalid: the schema or a rule refuses it.
        """
        ...

    async def delete(self, kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        """Delete the object with this uid, in this version. Quiet if it is gone.

        Raises:
            Conflict: it has another uid or was changed since: look again, decide again.
        """
        ...

    async def namespaces(self) -> Snapshot:
        """All namespaces, read through to etcd."""
        ...

    async def event(self, namespace: str, body: Body) -> None:
        """Write one Event (events.k8s.io/v1)."""
        ...

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        """The decoded data of a Secret.

        Raises:
            NotFound: there is none.
        """
        ...

    async def config_map(self, ref: Ref) -> Mapping[str, str]:
        """The data of a ConfigMap, without what is binary.

        Raises:
            NotFound: there is none.
        """
        ...


class Leases(Protocol):
    """Leases in the operator's own namespace. Errors as for `Cluster`."""

    async def get_lease(self, name: str) -> Body:
        """The Lease, read through to etcd.

        Raises:
            NotFound: there is none.
        """
        ...

    async def put_lease(self, name: str, body: Body) -> Body:
        """Create the Lease (no resourceVersion in the body) or replace it; the new state.

        A body that replaces has all the metadata of the Lease that was read: without its uid the
        API server would write one anew that was deleted meanwhile.

        Raises:
            Conflict: somebody else wrote meanwhile, or deleted it.
        """
        ...

    def watch_lease(self, name: str, version: str) -> AsyncGenerator[Body | None, None]:
        """Its changes since that resourceVersion, None when it is deleted.

        Ends, or raises, when the stream does: look again and begin anew.
        """
        ...

    async def list_leases(self, label: str) -> Sequence[Body]:
        """All Leases that have this label, whatever its value."""
        ...

    async def delete_lease(self, name: str, *, version: str) -> None:
        """Delete the Lease in this version. Quiet if it is gone.

        Raises:
            Conflict: it was changed since.
        """
        ...
