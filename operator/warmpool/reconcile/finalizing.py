"""Our finalizer on pools: while a pool has VMs, it is not forgotten."""

import contextlib

from warmpool.api.names import POOL_FINALIZER, Kind
from warmpool.domain.errors import Conflict, NotFound, TestFailed
from warmpool.domain.facts import Pool
from warmpool.ports.cluster import Body, Cluster
from warmpool.reconcile.writing import pointer, same_uid, same_version


async def hold(cluster: Cluster, pool: Pool) -> Body:
    """Put our finalizer on a pool; the pool as it is then."""
    body = await cluster.get(Kind.WARM_POOL, pool.ref)
    finalizers = [*body["metadata"].get("finalizers", []), POOL_FINALIZER]
    patch = [
        same_uid(pool.uid),
        same_version(int(body["metadata"]["resourceVersion"])),
        {"op": "add", "path": pointer("metadata", "finalizers"), "value": finalizers},
    ]
    return await cluster.patch(Kind.WARM_POOL, pool.ref, patch)


async def let_go(cluster: Cluster, pool: Pool) -> None:
    """Take our finalizer off a pool that has no VM left."""
    with contextlib.suppress(NotFound, TestFailed, Conflict):
        body = await cluster.get(Kind.WARM_POOL, pool.ref)
        finalizers = body["metadata"].get("finalizers", [])
        if POOL_FINALIZER not in finalizers:
            return
        path = pointer("metadata", "finalizers", str(finalizers.index(POOL_FINALIZER)))
        patch = [
            same_uid(pool.uid),
            {"op": "test", "path": path, "value": POOL_FINALIZER},
            {"op": "remove", "path": path},
        ]
        await cluster.patch(Kind.WARM_POOL, pool.ref, patch)
