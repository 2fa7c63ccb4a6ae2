"""Keeps servers that are in use by Nova's word where the API server knows less: a backup's doing.

What a restored API server has forgotten cannot be known for sure, so nothing of it is deleted or
handed out: it stands outside its pool's account, as a retained VM does, until a person decides.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final

from warmpool.api.names import (
    API_VERSION,
    LABEL_POOL,
    VM_FINALIZER,
    Kind,
    Phase,
    Reason,
    VmCondition,
)
from warmpool.api.v1alpha1.vm import ClaimRef, OwnerPool, WarmVMSpec
from warmpool.domain.cloud import Place, Server
from warmpool.domain.errors import (
    CloudError,
    ClusterError,
    ClusterOutcomeUnknown,
    Conflict,
    NotFound,
)
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import is_contradicted
from warmpool.planning.condition import condition
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Cluster
from warmpool.reconcile.events import Announcer, Event
from warmpool.reconcile.execute import standing
from warmpool.reconcile.reading import provider_id, read_vm
from warmpool.reconcile.retries import pause_after
from warmpool.reconcile.session import CloudSession
from warmpool.reconcile.store import Store
from warmpool.reconcile.writing import (
    HELD,
    add_condition,
    claim_labels,
    dump,
    keep_vm,
    label_value,
    place_labels,
    put_status,
)

log = logging.getLogger(__name__)

ASK_AGAIN: Final = 5.0
"""Seconds between attempts to hear from Nova whose a server is."""

Current = Callable[[], Awaitable[CloudSession]]
"""The session of the pool's credentials as they are now. Raises CloudError: there is none."""

Slots = AbstractAsyncContextManager[object]
"""Entered for each attempt."""

REMEDY: Final = (
    "It is kept until you decide: delete this WarmVM when nobody uses it any more, or set"
    " spec.retained to false to have its pool do with it what it does with a VM whose claim is over"
)


class Custody:
    """Marks servers, and keeps those whose marks say more than the API server."""

    def __init__(self, store: Store, cluster: Cluster, clock: Clock, announcer: Announcer) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._announcer = announcer

    async def keep(self, vm: Vm, server: Server, current: Current, slots: Slots) -> None:
        """Keep a VM whose server is another claim's than we know, if Nova still says so.

        Tried until it is done, and no claim gets the VM before: whoever gave up would hand it out.
        The pool's credentials may change meanwhile, so each attempt asks for the session; between
        two it takes nobody's place.
        """
        self._store.doubt(vm.uid)
        while True:
            try:
                async with slots:
                    await self._keep(vm, server, await current())
            except NotFound:
                break
            except CloudError as error:
                log.info("VM %s is not kept yet: %s", vm.ref, error)
                await asyncio.sleep(ASK_AGAIN)
            except ClusterError as error:
                log.info("VM %s is not kept yet: %s", vm.ref, error)
                await asyncio.sleep(pause_after(error))
            else:
                break
        self._store.trust(vm.uid)

    async def _keep(self, vm: Vm, server: Server, session: CloudSession) -> None:
        """One attempt, by what stands there now: a listing is not believed, nor is an answer."""
        seen = await session.cloud.get(server.id)
        body = await self._latest(vm)
        vm = read_vm(body)
        if seen is None:
            session.gone(vm.uid)
        elif is_contradicted(vm, seen) and not vm.retained:
            body = await self._retain(vm, seen, session)
        else:
            session.found(replace(seen, owner=vm.uid))
        if seen is not None and read_vm(body).retained:
            user = _user(seen.marks.claim)
            text = f"Nova says that claim {user} has it, and the API server does not"
            place = session.racks.place(seen, vm.place)
            await self._say(body, seen, place, (Reason.HELD_FOR_CLAIM, text))

    async def _latest(self, vm: Vm) -> Body:
        """A VM as the API server has it, which is known from then on.

        Raises:
            NotFound: it is not there.
        """
        body = await self._cluster.get(Kind.WARM_VM, vm.ref)
        if body["metadata"]["uid"] != vm.uid:
            raise NotFound(f"VM {vm.ref} is another one")
        self._store.apply(Kind.WARM_VM, body)
        return body

    async def _retain(self, vm: Vm, server: Server, session: CloudSession) -> Body:
        claim, place = server.marks.claim, session.racks.place(server, vm.place)
        assert claim is not None, "else nothing contradicts"  # noqa: S101
        patch = keep_vm(vm, claim, provider_id(place.region, server.id))
        body = await self._cluster.patch(Kind.WARM_VM, vm.ref, patch)
        self._store.apply(Kind.WARM_VM, body)
        return body

    async def adopt(
        self, pool: Pool, claim: ClaimRef, server: Server, session: CloudSession
    ) -> None:
        """Make a WarmVM for a server that a claim has and that none knows.

        Its name is the server's own, so that this can be begun again wherever it has ended.

        Raises:
            ClusterError: the API server did not do it.
            CloudError: Nova did not.
        """
        place = session.racks.place(server, Place())
        ref = Ref(pool.ref.namespace, f"found-{server.id.lower()}")
        body = _adopted(pool, ref, claim, provider_id(place.region, server.id), place)
        try:
            made = await self._cluster.create(Kind.WARM_VM, body)
        except (Conflict, ClusterOutcomeUnknown):
            made = await self._cluster.get(Kind.WARM_VM, ref)
        await session.adopt(server, read_vm(made).uid)
        text = (
            f"Nova has this server, which no WarmVM knew, and says that claim {_user(claim)} has it"
        )
        await self._say(made, server, place, (Reason.FOUND_IN_NOVA, text))

    async def _say(self, body: Body, server: Server, place: Place, why: tuple[Reason, str]) -> None:
        """Write on a VM that it is kept, and why. One that does not work does not for that."""
        vm, text = read_vm(body), f"{why[1]}: a backup was restored. {REMEDY}"
        log.warning("VM %s: %s", vm.ref, text)
        now = self._clock.now()
        held = condition(
            VmCondition.HELD,
            holds=True,
            reason=why[0],
            message=text,
            now=now,
            generation=vm.generation,
        )
        if vm.phase is Phase.FAILED:
            patch = add_condition(body, held)
        else:
            status = standing(server, place, ready_at=vm.ready_at or now, why=held)
            patch = put_status(vm.uid, status, version=vm.version)
        body = await self._cluster.patch(Kind.WARM_VM, vm.ref, patch, status=True)
        self._store.apply(Kind.WARM_VM, body)
        self._announcer.say(Event(Kind.WARM_VM, vm.ref, vm.uid, why[0], text, warning=True))


def _adopted(
    pool: Pool, ref: Ref, claim: ClaimRef, provider: str, place: Place
) -> dict[str, object]:
    spec = WarmVMSpec(
        pool_ref=OwnerPool(name=pool.ref.name, uid=pool.uid),
        claim_ref=claim,
        provider_id=provider,
        reclaim_policy=pool.spec.reclaim_policy,
        retained=True,
    )
    labels = {LABEL_POOL: pool.ref.name, **place_labels(place), **claim_labels(claim), **HELD}
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.WARM_VM.value,
        "metadata": {
            "namespace": ref.namespace,
            "name": ref.name,
            "labels": {key: label_value(value) for key, value in labels.items()},
            "finalizers": [VM_FINALIZER],
        },
        "spec": dump(spec),
    }


def _user(claim: ClaimRef | None) -> str:
    return f"{claim.namespace}/{claim.name} ({claim.uid})" if claim is not None else "-"
