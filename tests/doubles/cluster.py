"""A small honest API server in memory: `ports.cluster.Cluster` and `Leases`.

It keeps every state that a reader could have seen. The contract suite holds it against the real
one. Calls take time before and after they take effect, as over a network.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from doubles import rules
from doubles.json_patch import copied, patched
from warmpool.api.names import API_VERSION, Kind
from warmpool.api.v1alpha1.base import timestamp
from warmpool.domain.errors import Conflict, Forbidden, Invalid, NotFound
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body, PatchOp, Snapshot
from warmpool.reconcile.store import Store

ONE_WAY = 0.001
"""Seconds that a request, or its answer, is under way."""

WITH_STATUS = (Kind.WARM_POOL, Kind.VM_CLAIM, Kind.WARM_VM, Kind.VM_FLAVOR)
WITH_PHASE = (Kind.VM_CLAIM, Kind.WARM_VM)


@dataclass(frozen=True, slots=True)
class Change:
    """One write that took effect."""

    version: int
    kind: Kind
    ref: Ref
    body: Body
    deleted: bool


@dataclass(slots=True)
class Feed:
    """A watch of all kinds into a store, some time behind."""

    store: Store
    lag: float
    paused: bool = False
    _coming: deque[Change] = field(default_factory=deque)

    def hear(self, change: Change) -> None:
        self._coming.append(change)
        asyncio.get_running_loop().call_later(self.lag, self._arrive)

    def resume(self) -> None:
        self.paused = False
        while self._coming:
            self._arrive()

    def _arrive(self) -> None:
        if not self.paused and self._coming:
            change = self._coming.popleft()
            if change.kind is not Kind.BINDING_LEDGER:
                self.store.apply(change.kind, change.body, deleted=change.deleted)


@dataclass(frozen=True, slots=True)
class Backup:
    """What an API server held at one moment."""

    version: int
    objects: dict[Kind, dict[Ref, dict[str, Any]]]
    leases: dict[str, dict[str, Any]]


class FakeCluster:
    """See the module."""

    def __init__(self, now: Callable[[], datetime], namespaces: Sequence[str] = ("ns",)) -> None:
        self._now = now
        self._version = 100
        self._uids = count(1)
        self._objects: dict[Kind, dict[Ref, dict[str, Any]]] = {kind: {} for kind in Kind}
        self._leases: dict[str, dict[str, Any]] = {}
        self._lease_watchers: dict[str, list[asyncio.Queue[dict[str, Any] | None]]] = {}
        self._lease_log: list[tuple[int, str, dict[str, Any] | None]] = []
        self._feeds: list[Feed] = []
        self.labels: dict[str, dict[str, str]] = {name: {} for name in namespaces}
        self.secrets: dict[Ref, Mapping[str, bytes]] = {}
        self.closed: set[Ref] = set()
        """Secrets that may not be read."""
        self.config_maps: dict[Ref, Mapping[str, str]] = {}
        self.events: list[tuple[str, Body]] = []
        self.paces: set[float] = set()
        """At which it was listed."""
        self.history: list[Change] = []
        """Every state since the beginning."""

    def feed(self, store: Store, lag: float = 0.0) -> Feed:
        """Show a store all changes from now on."""
        feed = Feed(store, lag)
        self._feeds.append(feed)
        return feed

    # -- Cluster ------------------------------------------------------------------------------

    async def list(self, kind: Kind, *, pace: float = 0.0) -> Snapshot:
        """In one page, so that there is nothing to pace."""
        self.paces.add(pace)
        await asyncio.sleep(ONE_WAY)
        items = [copied(body) for _, body in sorted(self._objects[kind].items())]
        snapshot = Snapshot(tuple(items), self._version)
        await asyncio.sleep(ONE_WAY)
        return snapshot

    async def get(self, kind: Kind, ref: Ref) -> Body:
        await asyncio.sleep(ONE_WAY)
        body = copied(self._find(kind, ref))
        await asyncio.sleep(ONE_WAY)
        return body

    async def create(self, kind: Kind, body: Body) -> Body:
        await asyncio.sleep(ONE_WAY)
        made = self.put(kind, body)
        await asyncio.sleep(ONE_WAY)
        return made

    async def patch(
        self,
        kind: Kind,
        ref: Ref,
        ops: Sequence[PatchOp],
        *,
        status: bool = False,
        brief: bool = False,
    ) -> Body:
        await asyncio.sleep(ONE_WAY)
        old = self._find(kind, ref)
        new = patched(old, ops)
        answer = self._write(kind, ref, old, _only(kind, old, new, status=status))
        await asyncio.sleep(ONE_WAY)
        return {"metadata": answer["metadata"]} if brief else answer

    async def replace(self, kind: Kind, body: Body) -> Body:
        await asyncio.sleep(ONE_WAY)
        ref = _ref(body)
        old = self._find(kind, ref)
        if body["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            raise Conflict(f"409: {ref} has been modified")
        new = copied(body)
        new["metadata"] = old["metadata"] | {
            k: v for k, v in new["metadata"].items() if k in ("labels", "annotations", "finalizers")
        }
        answer = self._write(kind, ref, old, _only(kind, old, new, status=False))
        await asyncio.sleep(ONE_WAY)
        return {"metadata": answer["metadata"]}

    async def delete(self, kind: Kind, ref: Ref, *, uid: str, version: int) -> None:
        await asyncio.sleep(ONE_WAY)
        if ref in self._objects[kind]:
            meta = self._objects[kind][ref]["metadata"]
            if meta["uid"] != uid or int(meta["resourceVersion"]) != version:
                raise Conflict(f"409: {ref} has another uid or has been modified")
            self.remove(kind, ref)
        await asyncio.sleep(ONE_WAY)

    async def namespaces(self) -> Snapshot:
        await asyncio.sleep(ONE_WAY)
        version = str(self._version)
        metas = [
            {"name": name, "uid": f"uid-{name}", "resourceVersion": version, "labels": dict(labels)}
            for name, labels in self.labels.items()
        ]
        return Snapshot(tuple({"metadata": meta} for meta in metas), self._version)

    async def event(self, namespace: str, body: Body) -> None:
        await asyncio.sleep(ONE_WAY)
        self.events.append((namespace, body))

    async def secret(self, ref: Ref) -> Mapping[str, bytes]:
        await asyncio.sleep(ONE_WAY)
        if ref in self.closed:
            raise Forbidden(f"403: secret {ref}")
        if ref not in self.secrets:
            raise NotFound(f"404: secret {ref}")
        return self.secrets[ref]

    async def config_map(self, ref: Ref) -> Mapping[str, str]:
        await asyncio.sleep(ONE_WAY)
        if ref not in self.config_maps:
            raise NotFound(f"404: configmap {ref}")
        return self.config_maps[ref]

    # -- what a user does, at once ------------------------------------------------------------

    def peek(self, kind: Kind) -> dict[Ref, Body]:
        """All objects of a kind, as they are at this moment. Not to be changed."""
        return dict(self._objects[kind])

    def put(self, kind: Kind, body: Body, status: Mapping[str, Any] | None = None) -> Body:
        """Create an object, with a status that somebody gave it meanwhile."""
        new = {"apiVersion": API_VERSION, "kind": kind.value, **copied(body)}
        ref = _ref(new)
        if kind.namespaced and ref.namespace not in self.labels:
            raise NotFound(f'404: namespaces "{ref.namespace}" not found')
        if ref in self._objects[kind]:
            raise Conflict(f"409: {ref} already exists")
        new["metadata"] = new["metadata"] | {
            "uid": f"{kind.value.lower()}-{next(self._uids)}",
            "generation": 1,
            "creationTimestamp": timestamp(self._now()),
        }
        new.pop("status", None)
        if kind in WITH_STATUS:
            new["status"] = _defaulted(kind, status or {})
        return self._store(kind, ref, new)

    def edit(self, kind: Kind, ref: Ref, spec: Mapping[str, Any]) -> Body:
        """Replace the spec of an object."""
        old = self._find(kind, ref)
        return self._write(kind, ref, old, copied(old) | {"spec": copied(spec)})

    def remove(self, kind: Kind, ref: Ref) -> None:
        """Delete an object: at once, or when its last finalizer goes."""
        old = self._find(kind, ref)
        if not old["metadata"].get("finalizers"):
            self._drop(kind, ref, old)
        elif "deletionTimestamp" not in old["metadata"]:
            new = copied(old)
            new["metadata"]["deletionTimestamp"] = timestamp(self._now())
            new["metadata"]["deletionGracePeriodSeconds"] = 0
            new["metadata"]["generation"] += 1
            self._store(kind, ref, new)

    def backup(self) -> "Backup":
        """All that there is at this moment."""
        return Backup(self._version, copied(self._objects), copied(self._leases))

    def restore(self, backup: "Backup", *, ahead: int = 0) -> None:
        """Begin anew from a backup. No watch goes on: whoever watched must be started anew.

        The revisions go on where they ended then, or later by `ahead`. Uids never come again.
        """
        self._version = backup.version + ahead
        self._objects, self._leases = copied(backup.objects), copied(backup.leases)
        self._lease_log.clear()
        self._feeds.clear()

    # -- Leases -------------------------------------------------------------------------------

    async def get_lease(self, name: str) -> Body:
        await asyncio.sleep(ONE_WAY)
        if name not in self._leases:
            raise NotFound(f"404: lease {name}")
        body = copied(self._leases[name])
        await asyncio.sleep(ONE_WAY)
        return body

    async def put_lease(self, name: str, body: Body) -> Body:
        await asyncio.sleep(ONE_WAY)
        new = copied(body)
        version = new["metadata"].get("resourceVersion")
        held = self._leases.get(name)
        if version is None and held is not None:
            raise Conflict(f"409: lease {name} already exists")
        if "uid" in new["metadata"] and (
            held is None or held["metadata"]["uid"] != new["metadata"]["uid"]
        ):
            raise Conflict(f"409: lease {name}: Precondition failed: UID in precondition")
        if held is None:
            new["metadata"]["uid"] = f"lease-{next(self._uids)}"
        elif held["metadata"]["resourceVersion"] != version:
            raise Conflict(f"409: lease {name} has been modified")
        self._tell_lease(name, new)
        await asyncio.sleep(ONE_WAY)
        return copied(new)

    async def watch_lease(self, name: str, version: str) -> AsyncGenerator[Body | None, None]:
        coming: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        for at, changed, body in self._lease_log:
            if changed == name and at > int(version):
                coming.put_nowait(copied(body))
        watchers = self._lease_watchers.setdefault(name, [])
        watchers.append(coming)
        try:
            while True:
                yield await coming.get()
        finally:
            watchers.remove(coming)

    async def list_leases(self, label: str) -> Sequence[Body]:
        await asyncio.sleep(ONE_WAY)
        leases = [copied(body) for _, body in sorted(self._leases.items())]
        return [body for body in leases if label in body["metadata"].get("labels", {})]

    async def delete_lease(self, name: str, *, version: str) -> None:
        await asyncio.sleep(ONE_WAY)
        held = self._leases.get(name)
        if held is None:
            return
        if held["metadata"]["resourceVersion"] != version:
            raise Conflict(f"409: lease {name} has been modified")
        self._tell_lease(name, None)

    def edit_lease(self, name: str, spec: Mapping[str, Any] | None) -> None:
        """Change fields of a Lease by hand, or with None delete it."""
        if spec is None:
            self._tell_lease(name, None)
        else:
            body = copied(self._leases[name])
            body["spec"].update(spec)
            self._tell_lease(name, body)

    def lease(self, name: str) -> Body | None:
        return self._leases.get(name)

    # -- inside -------------------------------------------------------------------------------

    def _find(self, kind: Kind, ref: Ref) -> dict[str, Any]:
        if ref not in self._objects[kind]:
            raise NotFound(f"404: {kind.plural} {ref} not found")
        return self._objects[kind][ref]

    def _write(
        self, kind: Kind, ref: Ref, old: dict[str, Any], new: dict[str, Any]
    ) -> dict[str, Any]:
        """Take in a new state of an object that exists."""
        if kind in WITH_STATUS:
            new["status"] = _defaulted(kind, new["status"])
        rules.check(kind, old, new)
        going = "deletionTimestamp" in old["metadata"]
        had, has = (set(b["metadata"].get("finalizers", [])) for b in (old, new))
        if going and has - had:
            raise Invalid("422: no new finalizers can be added if the object is being deleted")
        if going and not has:
            return self._drop(kind, ref, new)
        if new == old:
            return copied(old)
        if new["spec"] != old["spec"]:
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return self._store(kind, ref, new)

    def _store(self, kind: Kind, ref: Ref, new: dict[str, Any]) -> dict[str, Any]:
        self._objects[kind][ref] = new
        return self._record(kind, ref, new, deleted=False)

    def _drop(self, kind: Kind, ref: Ref, last: dict[str, Any]) -> dict[str, Any]:
        del self._objects[kind][ref]
        return self._record(kind, ref, copied(last), deleted=True)

    def _record(
        self, kind: Kind, ref: Ref, body: dict[str, Any], *, deleted: bool
    ) -> dict[str, Any]:
        body["metadata"]["resourceVersion"] = self._next()
        change = Change(self._version, kind, ref, body, deleted)
        self.history.append(change)
        for feed in self._feeds:
            feed.hear(change)
        return copied(body)

    def _tell_lease(self, name: str, body: dict[str, Any] | None) -> None:
        version = self._next()
        if body is None:
            del self._leases[name]
        else:
            uid = body["metadata"].get("uid") or self._leases[name]["metadata"]["uid"]
            body["metadata"] |= {"name": name, "uid": uid, "resourceVersion": version}
            self._leases[name] = copied(body)
        self._lease_log.append((self._version, name, copied(body)))
        for watcher in self._lease_watchers.get(name, []):
            watcher.put_nowait(copied(body))

    def _next(self) -> str:
        self._version += 1
        return str(self._version)


def _ref(body: Body) -> Ref:
    return Ref(body["metadata"].get("namespace", ""), body["metadata"]["name"])


def _defaulted(kind: Kind, status: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the schema, which let a patch test the phase of an untouched object."""
    phase = {"phase": "Pending"} if kind in WITH_PHASE else {}
    return {"observedGeneration": 0, **phase, **copied(status)}


def _only(kind: Kind, old: dict[str, Any], new: dict[str, Any], *, status: bool) -> dict[str, Any]:
    """What of a new state counts: its status alone, or all but that."""
    if status and kind not in WITH_STATUS:
        raise NotFound(f"404: {kind.plural} have no status")
    if status:
        return copied(old) | {"status": new.get("status", {})}
    kept = copied({k: old["metadata"][k] for k in _FIXED if k in old["metadata"]})
    new["metadata"] = {k: v for k, v in new["metadata"].items() if k not in _FIXED} | kept
    return new | ({"status": copied(old["status"])} if kind in WITH_STATUS else {})


_FIXED = ("uid", "generation", "creationTimestamp", "deletionTimestamp", "resourceVersion",
          "deletionGracePeriodSeconds", "name", "namespace")  # fmt: skip
"""Fields of the metadata that no user writes."""
