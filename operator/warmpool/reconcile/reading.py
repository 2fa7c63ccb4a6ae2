"""Objects of the API server, as JSON, read into our facts."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from pydantic import ValidationError

from warmpool.api.names import (
    ANNOTATION_PRESERVE,
    LABEL_CLAIM_UID,
    LABEL_HELD,
    POOL_FINALIZER,
    VM_FINALIZER,
    VmCondition,
)
from warmpool.api.v1alpha1 import VMClaim, WarmPool, WarmVM
from warmpool.api.v1alpha1.base import Model, seconds
from warmpool.domain.cloud import Place
from warmpool.domain.errors import Unreadable
from warmpool.domain.facts import Claim, Pool, Vm
from warmpool.domain.ids import ClaimUid, PoolUid, Ref, ServerId, VmUid
from warmpool.planning.revision import revision_of
from warmpool.ports.cluster import Body

M = TypeVar("M", bound=Model)

PRESERVE_MAX: Final = timedelta(days=14)
"""What is forgotten is gone after that."""

PROVIDER_SCHEME: Final = "openstack:///"
EPOCH: Final = datetime.fromtimestamp(0, UTC)
"""Stands for a creation time that is missing: only objects that never were stored lack it."""


def provider_id(region: str, server: ServerId) -> str:
    """`openstack:///<region>/<server id>`."""
    return f"{PROVIDER_SCHEME}{region}/{server}"


def server_of(vm: WarmVM) -> tuple[str, ServerId | None]:
    """Region and server id, from spec.providerID or else from the status."""
    if vm.spec.provider_id and vm.spec.provider_id.startswith(PROVIDER_SCHEME):
        region, _, server = vm.spec.provider_id.removeprefix(PROVIDER_SCHEME).rpartition("/")
        return region, ServerId(server)
    return "", ServerId(vm.status.server_id) if vm.status.server_id else None


def read_preserve(annotations: Mapping[str, str]) -> timedelta | None:
    """How long a VM is to be kept that fails. What is no duration says nothing."""
    try:
        return min(seconds(annotations.get(ANNOTATION_PRESERVE, "")), PRESERVE_MAX)
    except ValueError:
        return None


def _read(kind: type[M], body: Body) -> M:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Unreadable(f"{where}: {first['msg']}") from error


def is_another(body: Body, uid: str) -> bool:
    """Whether this is an object of the same name that came later. Told without reading it."""
    return bool(body["metadata"]["uid"] != uid)


def read_vm(body: Body) -> Vm:
    """A WarmVM.

    Raises:
        Unreadable: it is none.
    """
    vm = _read(WarmVM, body)
    meta, status = vm.metadata, vm.status
    user = meta.labels.get(LABEL_CLAIM_UID)
    region, server = server_of(vm)
    return Vm(
        uid=VmUid(meta.uid),
        ref=Ref(meta.namespace, meta.name),
        version=int(meta.resource_version),
        generation=meta.generation,
        pool=Ref(meta.namespace, vm.spec.pool_ref.name),
        revision=vm.spec.revision,
        zone=vm.spec.zone,
        aim=vm.spec.hypervisor,
        phase=status.phase,
        claim=vm.spec.claim_ref,
        reclaim=vm.spec.reclaim_policy,
        retained=vm.spec.retained,
        keep_until=vm.spec.keep_until,
        preserve=read_preserve(meta.annotations),
        dirty=vm.spec.dirty,
        last_claim=ClaimUid(user) if user else None,
        deleting=meta.deletion_timestamp is not None,
        finalized=VM_FINALIZER in meta.finalizers,
        created=meta.creation_timestamp or EPOCH,
        server=server,
        place=Place(region, status.zone, status.rack, status.hypervisor),
        hostname=status.hostname,
        addresses=tuple(status.addresses),
        created_at=status.created_at,
        ready_at=status.ready_at,
        fault=status.fault,
        held=LABEL_HELD in meta.labels,
        held_told=any(c.type == VmCondition.HELD for c in status.conditions),
    )


def read_claim(body: Body) -> Claim:
    """A VMClaim.

    Raises:
        Unreadable: it is none.
    """
    claim = _read(VMClaim, body)
    meta = claim.metadata
    return Claim(
        uid=ClaimUid(meta.uid),
        ref=Ref(meta.namespace, meta.name),
        version=int(meta.resource_version),
        generation=meta.generation,
        created=meta.creation_timestamp or EPOCH,
        deleting=meta.deletion_timestamp is not None,
        spec=claim.spec,
        status=claim.status,
    )


def read_pool(body: Body) -> Pool:
    """A WarmPool.

    Raises:
        Unreadable: it is none.
    """
    pool = _read(WarmPool, body)
    meta = pool.metadata
    return Pool(
        uid=PoolUid(meta.uid),
        ref=Ref(meta.namespace, meta.name),
        version=int(meta.resource_version),
        generation=meta.generation,
        deleting=meta.deletion_timestamp is not None,
        finalized=POOL_FINALIZER in meta.finalizers,
        spec=pool.spec,
        status=pool.status,
        revision=revision_of(pool.spec.template),
        preserve=read_preserve(meta.annotations),
    )
