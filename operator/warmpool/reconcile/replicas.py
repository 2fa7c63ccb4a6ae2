"""Who is there: a Lease for each replica, so that the fleet and its leader can be listed.

A replica writes its own Lease, and takes it away when it ends. The leader deletes those of replicas
that died. As in the election, death is judged by how long *we* have seen a Lease unchanged: the
clocks of two machines need not agree.

Nothing is decided by these Leases. Who leads, the Lease of the election alone says: what stands
here about it is as old as the replica's last word.
"""

import asyncio
import contextlib
import logging
import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from warmpool.api.names import (
    ANNOTATION_HOST,
    LABEL_ROLE,
    LABEL_VERSION,
    REPLICA_LEASE_PREFIX,
    Role,
)
from warmpool.api.v1alpha1.base import micro_timestamp
from warmpool.domain.errors import ClusterError, Conflict, NotFound
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Leases
from warmpool.reconcile.vitals import Beat

log = logging.getLogger(__name__)

LASTS: Final = 3
"""A replica's Lease lasts as long as so many renewals: one that fails is no death."""

DEAD_AFTER: Final = 3
"""So many times its duration a Lease must have been unchanged before the leader deletes it."""

CLEAR_EVERY: Final = 60.0
"""Seconds between looks for the Leases of the dead."""

PATIENCE: Final = 10.0
"""Seconds for one write: nobody waits for it."""

GOODBYE: Final = 3.0
"""Seconds for the last one: whoever stops this replica waits for it."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a replica says about itself."""

    identity: str
    version: str
    host: str


class Registration:
    """This replica's own Lease."""

    def __init__(
        self, leases: Leases, clock: Clock, rng: random.Random, card: Card, every: timedelta
    ) -> None:
        """`every`: between two renewals."""
        self._leases = leases
        self._clock = clock
        self._rng = rng
        self._card = card
        self._every = every
        self._name = REPLICA_LEASE_PREFIX + card.identity
        self._since = micro_timestamp(clock.now())
        self._role = Role.STANDBY
        self._changed = asyncio.Event()
        self._held: Body | None = None

    def say(self, role: Role) -> None:
        """Have it written what this replica is now."""
        self._role = role
        self._changed.set()

    async def run(self, beat: Beat) -> None:
        """Keep the Lease fresh until cancelled."""
        while True:
            beat()
            self._changed.clear()
            try:
                await self._write()
            except (ClusterError, TimeoutError) as error:
                log.info("the lease of this replica was not written: %r", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._changed.wait()

    async def withdraw(self) -> None:
        """Take the Lease away, as far as the API server can be reached."""
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(GOODBYE):
                lease = await self._leases.get_lease(self._name)
                if lease["spec"].get("acquireTime") == self._since:
                    version = lease["metadata"]["resourceVersion"]
                    await self._leases.delete_lease(self._name, version=version)

    async def _write(self) -> None:
        async with asyncio.timeout(PATIENCE):
            try:
                self._held = await self._leases.put_lease(self._name, self._lease())
            except NotFound:  # somebody took us for dead, or deleted it by hand
                self._held = None
                self._held = await self._leases.put_lease(self._name, self._lease())
            except Conflict:  # edited by hand, or left by one of our name
                self._held = await self._leases.get_lease(self._name)
                self._held = await self._leases.put_lease(self._name, self._lease())

    def _lease(self) -> dict[str, dict[str, object]]:
        meta: dict[str, object] = {"name": self._name}
        if self._held is not None:
            meta["resourceVersion"] = self._held["metadata"]["resourceVersion"]
        meta["labels"] = {
            LABEL_ROLE: self._role.value,
            LABEL_VERSION: as_label(self._card.version),
        }
        meta["annotations"] = {ANNOTATION_HOST: self._card.host}
        spec: dict[str, object] = {
            "holderIdentity": self._card.identity,
            "leaseDurationSeconds": math.ceil(LASTS * self._every.total_seconds()),
            "acquireTime": self._since,
            "renewTime": micro_timestamp(self._clock.now()),
        }
        return {"metadata": meta, "spec": spec}

    def _pause(self) -> float:
        return self._every.total_seconds() * (1 - 0.2 * self._rng.random())


class Clearing:
    """Deletes the Leases of dead replicas while this one leads."""

    def __init__(self, leases: Leases, clock: Clock, check: Callable[[], None]) -> None:
        """`check` raises NotLeading when this replica does not lead."""
        self._leases = leases
        self._clock = clock
        self._check = check
        self._seen: dict[tuple[str, str], float] = {}
        """When each Lease was first seen in each version."""

    async def run(self, beat: Beat) -> None:
        """Clear now and then, until cancelled."""
        while True:
            beat()
            try:
                await self.clear()
            except ClusterError as error:
                log.info("the leases of replicas were not looked at: %s", error)
            await asyncio.sleep(CLEAR_EVERY)

    async def clear(self) -> None:
        """Delete what has been unchanged for long.

        Raises:
            ClusterError: the API server did not answer.
        """
        now, seen = self._clock.monotonic(), self._seen
        self._seen = {}
        for lease in await self._leases.list_leases(LABEL_ROLE):
            name, version = lease["metadata"]["name"], lease["metadata"]["resourceVersion"]
            since = self._seen[name, version] = seen.get((name, version), now)
            if now - since > DEAD_AFTER * (lease["spec"].get("leaseDurationSeconds") or 0):
                self._check()
                log.warning("replica %s is gone", lease["spec"].get("holderIdentity"))
                with contextlib.suppress(Conflict):
                    await self._leases.delete_lease(name, version=version)


@dataclass(frozen=True, slots=True)
class Member:
    """A replica, as its Lease tells of it. Times are its own clock's."""

    identity: str
    role: str
    version: str
    host: str
    since: datetime | None
    seen: datetime | None
    lasts: timedelta
    """It is taken for gone when it has not been seen for so long."""


@dataclass(frozen=True, slots=True)
class Leader:
    """Who holds the Lease of the election."""

    identity: str
    since: datetime | None
    seen: datetime | None
    lasts: timedelta
    """It may be followed by another when it has not renewed for so long."""
    changes: int
    """How often leadership has passed from one replica to another."""


def read_member(lease: Body) -> Member:
    """The replica of a Lease that has `LABEL_ROLE`."""
    meta, spec = lease["metadata"], lease["spec"]
    labels = meta.get("labels") or {}
    return Member(
        identity=spec.get("holderIdentity") or meta["name"].removeprefix(REPLICA_LEASE_PREFIX),
        role=labels.get(LABEL_ROLE, ""),
        version=labels.get(LABEL_VERSION, ""),
        host=(meta.get("annotations") or {}).get(ANNOTATION_HOST, ""),
        since=_moment(spec, "acquireTime"),
        seen=_moment(spec, "renewTime"),
        lasts=_lasts(spec),
    )


def read_leader(lease: Body) -> Leader | None:
    """Who holds the Lease of the election; None: nobody."""
    spec = lease["spec"]
    if not spec.get("holderIdentity"):
        return None
    return Leader(
        identity=spec["holderIdentity"],
        since=_moment(spec, "acquireTime"),
        seen=_moment(spec, "renewTime"),
        lasts=_lasts(spec),
        changes=spec.get("leaseTransitions") or 0,
    )


def as_label(text: str) -> str:
    """A text as a label may hold it."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:63].strip("._-")


def as_identity(text: str) -> str:
    """A text as it may stand in the name of an object."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-") or "replica"


def _moment(spec: Mapping[str, Any], key: str) -> datetime | None:
    text = spec.get(key)
    return None if text is None else datetime.fromisoformat(text)


def _lasts(spec: Mapping[str, Any]) -> timedelta:
    return timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
