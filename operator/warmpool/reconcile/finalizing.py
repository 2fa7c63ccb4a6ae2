"""Our finalizers: a pool stays while it has VMs, and a WarmVM while it has a server."""

from warmpool.api.names import POOL_FINALIZER, Kind
from warmpool.domain.errors import NotFound, TestFailed
from warmpool.domain.facts import Pool
from warmpool.domain.ids import Ref
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


async def let_go(cluster: Cluster, kind: Kind, ref: Ref, uid: str, finalizer: str) -> Body | None:
    """Take a finalizer of ours off an object; the object as it is then.

    None: it is not on it, or the object is another one, or went meanwhile.

    Raises:
        NotFound: there is no such object.
        ClusterError: the API server did not take it off.
    """
    body = await cluster.get(kind, ref)
    finalizers = body["metadata"].get("finalizers", [])
    if body["metadata"]["uid"] != uid or finalizer not in finalizers:
        return None
    path = pointer("metadata", "finalizers", str(finalizers.index(finalizer)))
    patch = [
        same_uid(uid),
        {"op": "test", "path": path, "value": finalizer},
        {"op": "remove", "path": path},
    ]
    try:
        return await cluster.patch(kind, ref, patch)
    except (NotFound, TestFailed):
        return None
