"""The API server, spoken to as `ports.cluster` asks.

The `kubernetes` package reads the configuration and keeps the credentials fresh. Requests go over a
plain aiohttp session of ours with orjson: measured, the package's own client costs four times the
CPU per write, and claims are bound no faster than statuses are written.
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import orjson
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from warmpool.api.names import API_VERSION, GROUP, VERSION, Kind
from warmpool.domain.errors import (
    ClusterError,
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TestFailed,
)
from warmpool.domain.ids import Ref
from warmpool.effects.sockets import Sockets
from warmpool.ports.cluster import Body, Endpoint, PatchOp, Snapshot

REQUEST_TIMEOUT: Final = 30.0
"""Seconds for one request. Longer than any healthy answer, shorter than a person's patience."""

PAGE_SIZE: Final = 500
"""Objects per page of a LIST: the API server's own default for large lists."""

CONNECTIONS: Final = 100
"""Connections kept to the API server; HTTP/1.1 carries one request each."""

WARM: Final = 40
"""Connections that are kept open: as many as claims and VMs are written over at once. Measured, 64
TLS handshakes take the two of us 300 ms, and 64 requests over connections that are open 30."""

WARM_EVERY: Final = 30.0
"""Seconds between two looks at them: well within what either side keeps an idle one for."""

LEASE_CONNECTIONS: Final = 4
"""Connections for Leases alone: a renewal must not queue behind a burst of claims."""

MAX_MESSAGE: Final = 500
"""Characters of the API server's texts that we repeat."""

UNTRACKED: Final[tuple[Mapping[str, Any], ...]] = ({},)
"""As `managedFields`: the API server forgets who wrote which field of an object, and keeps no
account of it until somebody applies. Only we write VMs and the ledger, so that account tells
nobody anything; keeping it, measured, is a third of what a write of a VM costs the API server, and
half of what each watch is sent. It has no effect on a create."""

JSON: Final = "application/json"

JSON_PATCH: Final = {"Content-Type": "application/json-patch+json"}

BRIEFLY: Final = {"Accept": f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
"""Has an answer hold metadata alone: the rest of a ledger, or of a claim's status, is what was just
sent."""

Observer = Callable[[str, str, int, float], None]
"""Called after each request: method, resource, HTTP status (0: no answer), seconds."""


def _nobody(_method: str, _resource: str, _status: int, _seconds: float) -> None:
    """Observe nothing."""


class KubeConfigInvalid(ClusterError):
    """No usable configuration for the API server was found."""


class Credentials:
    """The loaded configuration. Tokens are read anew when they change on disk."""

    def __init__(self, configuration: kubernetes_client.Configuration, namespace: str) -> None:
        self._configuration = configuration
        self.endpoint = Endpoint(
            server=configuration.host.rstrip("/"),
            ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            insecure=not configuration.verify_ssl,
            namespace=namespace,
        )

    @classmethod
    async def load(cls, kubeconfig: str | None, context: str | None = None) -> Self:
        """Read a kubeconfig file, or without one the pod's service account.

        Raises:
            KubeConfigInvalid: neither is there, or it cannot be read.
        """
        configuration = kubernetes_client.Configuration()
        try:
            if kubeconfig is None:
                kubernetes_config.load_incluster_config(configuration)
                namespace = _service_account_namespace()
            else:
                loader = await kubernetes_config.load_kube_config(
                    kubeconfig,
                    context=context,
                    client_configuration=configuration,
                    persist_config=False,
                )
                namespace = loader.current_context["context"].get("namespace", "default")
        except (kubernetes_config.ConfigException, OSError, ValueError) as error:
            where = f"kubeconfig {kubeconfig!r}" if kubeconfig else "the pod's service account"
            raise KubeConfigInvalid(
                f"cannot use {where}: {error}. Set KUBECONFIG to a readable file,"
                " or run in a pod with a service account"
            ) from error
        return cls(configuration, namespace)

    async def token(self) -> str | None:
        """The bearer token of now, without its scheme."""
        value = await self._configuration.get_api_key_with_prefix("BearerToken")
        return None if value is None else value.split(" ", 1)[-1].strip()

    def session(self, connections: int, sockets: Sockets) -> aiohttp.ClientSession:
        """A session of so many connections, with the configuration's TLS. The caller closes it."""
        context = kubernetes_client.ApiClient(self._configuration).rest_client.ssl_context
        connector = aiohttp.TCPConnector(
            limit=connections, ssl=context, keepalive_timeout=60, socket_factory=sockets
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def _service_account_namespace() -> str:
    path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return path.read_text(encoding="utf-8").strip() if path.exists() else "default"


class KubeCluster:
    """`ports.cluster.Cluster` and `Leases` over a real API server. An async context manager."""

    def __init__(
        self, credentials: Credentials, namespace: str, *, observe: Observer = _nobody
    ) -> None:
        self._credentials = credentials
        self._namespace = namespace
        self._observe = observe
        self._sockets = Sockets()
        self._session: aiohttp.ClientSession | None = None
        self._lease_session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = self._credentials.session(CONNECTIONS, self._sockets)
        self._lease_session = self._credentials.session(LEASE_CONNECTIONS, self._sockets)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for session in (self._session, self._lease_session):
            if session is not None:
                await session.close()
        await self._sockets.hang_up()

    async def keep_warm(self) -> None:
        """Keep connections open until cancelled: no burst of claims shall wait for handshakes."""
        while True:
            await self.warm()
            await asyncio.sleep(WARM_EVERY)

    async def warm(self) -> None:
        """Use as many connections at once as are to be open."""
        await asyncio.gather(*(self._touch() for _ in range(WARM)))

    async def _touch(self) -> None:
        """The cheapest request that there is."""
        with contextlib.suppress(ClusterError):
            await self._request("GET", "/version")

    async def list(self, kind: Kind, *, pace: float = 0.0) -> Snapshot:
        items, version = await self._pages(_collection(kind), pace=pace)
        return Snapshot(tuple(items), version)

    async def _pages(
        self, path: str, label: str = "", *, pace: float = 0.0
    ) -> "tuple[Sequence[Body], int]":
        """All objects of a collection (that have a label), and their resourceVersion."""
        items: list[Body] = []
        first = {"limit": str(PAGE_SIZE)} | ({"labelSelector": label} if label else {})
        query = first
        while True:
            page = await self._request("GET", path, query=query)
            for item in page["items"]:
                item["metadata"].pop("managedFields", None)  # half of it, and nobody reads it
            items.extend(page["items"])
            meta = page["metadata"]
            if not meta.get("continue"):
                return items, int(meta["resourceVersion"])
            query = first | {"continue": meta["continue"]}
            await asyncio.sleep(pace)

    async def get(self, kind: Kind, ref: Ref) -> Body:
        return await self._request("GET", _path(kind, ref))

    async def create(self, kind: Kind, body: Body) -> Body:
        whole = {"apiVersion": API_VERSION, "kind": kind.value, **body}
        namespace = body["metadata"]["namespace"] if kind.namespaced else None
        return await self._request("POST", _collection(kind, namespace), body=whole)

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        path = _path(kind, ref) + ("/status" if status else "")
        body = list(ops)
        if kind is Kind.WARM_VM and not status:
            body.append({"op": "add", "path": "/metadata/managedFields", "value": UNTRACKED})
        headers = JSON_PATCH | BRIEFLY if brief else JSON_PATCH
        return await self._request("PATCH", path, body=body, headers=headers)

    async def replace(self, kind: Kind, body: Body) -> Body:
        meta = body["metadata"]
        whole = {"apiVersion": API_VERSION, "kind": kind.value, **body}
        if kind is Kind.BINDING_LEDGER:
            whole["metadata"] = {**meta, "managedFields": UNTRACKED}
        path = _path(kind, Ref(meta.get("namespace", ""), meta["name"]))
        return await self._request("PUT", path, body=whole, headers=BRIEFLY)

    async def delete(self, kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        options = {"preconditions": {"uid": uid, "resourceVersion": str(version)}}
        with contextlib.suppress(NotFound):
            await self._request("DELETE", _path(kind, ref), body=options)

    async def namespaces(self) -> Snapshot:
        items, version = await self._pages("/api/v1/namespaces")
        return Snapshot(tuple(items), version)

    async def event(self, namespace: str, body: Body) -> None:
        whole = {"apiVersion": "events.k8s.io/v1", "kind": "Event", **body}
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        await self._request("POST", path, body=whole)

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        path = f"/api/v1/namespaces/{ref.namespace}/secrets/{ref.name}"
        answer = await self._request("GET", path)
        return {k: base64.b64decode(v) for k, v in (answer.get("data") or {}).items()}

    async def config_map(self, ref: Ref) -> Mapping[str, str]:
        path = f"/api/v1/namespaces/{ref.namespace}/configmaps/{ref.name}"
        data: Mapping[str, str] = (await self._request("GET", path)).get("data") or {}
        return data

    async def review(self, group: str, kind: str, spec: Body) -> Body:
        whole = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        path = f"/apis/{group}/v1/{kind.lower()}s"
        status: Body = (await self._request("POST", path, body=whole)).get("status", {})
        return status

    async def get_lease(self, name: str) -> Body:
        return await self._request("GET", f"{self._leases}/{name}")

    async def put_lease(self, name: str, body: Body) -> Body:
        whole = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **body}
        if "resourceVersion" in body["metadata"]:
            return await self._request("PUT", f"{self._leases}/{name}", body=whole)
        return await self._request("POST", self._leases, body=whole)

    async def watch_lease(self, name: str, version: str) -> AsyncGenerator[Body | None, None]:
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": "240",
        }
        stream = self._watch(self._leases, query)
        async with contextlib.aclosing(stream):
            async for event in stream:
                match event["type"]:
                    case "DELETED":
                        yield None
                    case "ERROR":
                        return
                    case _:
                        yield event["object"]

    async def list_leases(self, label: str) -> Sequence[Body]:
        return (await self._pages(self._leases, label))[0]

    async def delete_lease(self, name: str, *, version: str) -> None:
        options = {"preconditions": {"resourceVersion": version}}
        with contextlib.suppress(NotFound):
            await self._request("DELETE", f"{self._leases}/{name}", body=options)

    @property
    def _leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    async def _watch(
        self, path: str, query: Mapping[str, str]
    ) -> AsyncGenerator[dict[str, Any], None]:
        forever = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=300)
        try:
            async with self._session_for(path).get(
                self._credentials.endpoint.server + path,
                params=query,
                headers=await self._headers(),
                timeout=forever,
            ) as response:
                if response.status >= HTTPStatus.BAD_REQUEST:
                    raise _error(response.status, await response.read(), changes=False)
                async for line in response.content:
                    yield orjson.loads(line)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClusterUnavailable(f"watch of {path} ended: {error!r}") from error

    def _session_for(self, path: str) -> aiohttp.ClientSession:
        session = self._lease_session if path.startswith(self._leases) else self._session
        assert session is not None, "enter the context first"  # noqa: S101
        return session

    async def _headers(self) -> dict[str, str]:
        token = await self._credentials.token()
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Ask; the answer. With a body, which is JSON unless the headers say otherwise."""
        data = None if body is None else orjson.dumps(body)
        sent = {"Accept": JSON, "Content-Type": JSON, **await self._headers(), **(headers or {})}
        started = time.monotonic()
        status = 0
        try:
            async with self._session_for(path).request(
                method,
                self._credentials.endpoint.server + path,
                params=query,
                data=data,
                headers=sent,
            ) as response:
                payload = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _no_answer(method, path, error) from error
        finally:
            self._observe(method, _resource(path), status, time.monotonic() - started)
        if status >= HTTPStatus.BAD_REQUEST:
            raise _error(status, payload, changes=method != "GET")
        answer: dict[str, Any] = orjson.loads(payload)
        return answer


def _collection(kind: Kind, namespace: str | None = None) -> str:
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{GROUP}/{VERSION}{scope}/{kind.plural}"


def _path(kind: Kind, ref: Ref) -> str:
    return f"{_collection(kind, ref.namespace if kind.namespaced else None)}/{ref.name}"


_RESOURCE_AT: Final = 4
"""Where the resource stands in `/apis/<group>/<version>/<resource>/...`, cut at slashes."""


def _resource(path: str) -> str:
    """The resource that a path is about, without names: a label of a closed set."""
    parts = path.split("/")
    start = parts.index("namespaces") + 2 if "namespaces" in parts else _RESOURCE_AT
    subresource = "/status" if parts[-1] == "status" else ""
    return parts[start] + subresource if start < len(parts) else "namespaces"


def _no_answer(method: str, path: str, error: Exception) -> ClusterError:
    """An error for a request that got no answer: was it sent, and does it change anything?"""
    text = f"{method} {path}: {type(error).__name__} {error}"[:MAX_MESSAGE]
    if method == "GET" or isinstance(error, aiohttp.ClientConnectorError):
        return ClusterUnavailable(text)
    return ClusterOutcomeUnknown(text)


_ERRORS: Final[Mapping[int, type[ClusterError]]] = {
    HTTPStatus.BAD_REQUEST: Invalid,
    HTTPStatus.UNAUTHORIZED: Forbidden,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: NotFound,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: ClusterUnavailable,
}


NOT_TAKEN: Final = (
    "our token or certificate has expired, or is another API server's: see KUBECONFIG,"
    " or the ServiceAccount of the pod"
)


def _error(status: int, payload: bytes, *, changes: bool) -> ClusterError:
    """Our error for an HTTP status of the API server."""
    answer = _answer(payload)
    text = f"{status}: {answer.get('message') or payload.decode(errors='replace')}"[:MAX_MESSAGE]
    if status == HTTPStatus.UNPROCESSABLE_ENTITY and _does_not_apply(answer):
        return TestFailed(f"{text} (the patch does not apply to the object as it is)")
    if status == HTTPStatus.UNAUTHORIZED:
        text = f"{text} ({NOT_TAKEN})"
    unlisted = ClusterOutcomeUnknown if changes else ClusterUnavailable
    return _ERRORS.get(status, unlisted)(text)


def _does_not_apply(answer: Mapping[str, Any]) -> bool:
    """Whether a 422 is about the patch itself: a `test` that failed, or a path that is not there.

    It has the status and the reason of a refused object, and the text says nothing; but only of a
    refused object do the details tell the kind.
    """
    return "kind" not in (answer.get("details") or {})


def _answer(payload: bytes) -> Mapping[str, Any]:
    """The Status object of an error; empty if it is none."""
    try:
        answer = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}
