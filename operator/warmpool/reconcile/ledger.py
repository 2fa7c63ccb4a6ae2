"""The BindingLedger: the commit point of every binding, and the fence between leaders.

One conditional replace commits all decisions that wait. A leader that finds the object changed by
somebody else has been superseded and must stop: `NotLeading`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from warmpool.api.names import LEDGER_NAME, Kind
from warmpool.api.v1alpha1 import BindingLedger
from warmpool.api.v1alpha1.ledger import BindingLedgerSpec, LedgerEntry, LedgerRemoval
from warmpool.domain.errors import (
    ClusterOutcomeUnknown,
    ClusterUnavailable,
    Conflict,
    Forbidden,
    NotFound,
    NotLeading,
)
from warmpool.domain.ids import ClaimUid, InstallationId, Ref, VmUid
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Cluster
from warmpool.reconcile.retries import pause_after
from warmpool.reconcile.writing import dump

log = logging.getLogger(__name__)

HEARTBEAT: Final = 20.0
"""Seconds after which the ledger is written although nothing is to be committed. That tells the
next leader how long nobody has led; and a leader whose API server has gone back to a backup learns
of it, for it no more knows the version that it would replace."""

GAP: Final = timedelta(seconds=60)
"""Without a leader for longer, an API server may have been stopped and restored from a backup: a
takeover takes a lease and a heartbeat. Clocks of machines may differ by what is left. One that is
taken for a gap costs a look at Nova before the first binding and before the former leader's are
gone on with, and one that is missed is found by the first listing all the same, if only after that.
"""

MAX_VMS: Final = 4000
"""VMs in the ledger at once: at some 200 bytes each, well below etcd's 1.5 MB per object."""


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is to stand in the ledger."""

    entries: list[LedgerEntry]
    removals: list[LedgerRemoval]


class Ledger:
    """The ledger as this leader wrote it last. One writer: calls must not overlap."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        *,
        namespace: str,
        holder: str,
        new_installation: Callable[[], InstallationId],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._ref = Ref(namespace, LEDGER_NAME)
        self._holder = holder
        self._new_installation = new_installation
        self._entries: dict[ClaimUid, LedgerEntry] = {}
        self._removals: dict[VmUid, LedgerRemoval] = {}
        self._texts: dict[int, tuple[LedgerEntry, str]] = {}
        """Entries as they are written, by identity: each stands in several writes."""
        self._version = ""
        self._epoch = 0
        self._installation = InstallationId("")
        self._look_back = False
        self._written = float("-inf")
        self._asked: Mapping[str, Any] = {}
        """What the last write was to say."""

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def installation(self) -> InstallationId:
        """Id of this installation, known after `take_over`."""
        return self._installation

    @property
    def look_back(self) -> bool:
        """Whether VMs are to be held against Nova before anything is done with them."""
        return self._look_back

    def looked_back(self) -> None:
        """They have been. To be written at once."""
        self._look_back = False

    def due_in(self) -> float:
        """Seconds until it is to be written although nothing is to be committed."""
        if self._asked.get("lookBack", False) != self._look_back:
            return 0.0
        return max(0.0, self._written + HEARTBEAT - self._clock.monotonic())

    @property
    def entries(self) -> list[LedgerEntry]:
        """Bindings that are committed and not yet dropped."""
        return list(self._entries.values())

    @property
    def removals(self) -> list[LedgerRemoval]:
        """VMs that are given up and not yet seen to go."""
        return list(self._removals.values())

    @property
    def room(self) -> int:
        """How many more VMs may be committed before the ledger is full."""
        return MAX_VMS - len(self._removals) - sum(len(e.vms) for e in self._entries.values())

    async def take_over(self) -> None:
        """Make it ours: from here on the former leader's commits fail.

        Raises:
            Conflict: somebody else wrote meanwhile: look at the Lease again.
            ClusterError: the API server did not answer.
        """
        try:
            current = BindingLedger.model_validate(
                await self._cluster.get(Kind.BINDING_LEDGER, self._ref)
            )
        except NotFound:
            await self._create()
            return
        spec = current.spec
        self._version = current.metadata.resource_version
        self._epoch = spec.epoch + 1
        self._installation = InstallationId(spec.installation)
        self._look_back = spec.look_back or self._is_gap(spec.written_at)
        entries = [LedgerEntry.model_validate_json(text) for text in spec.entries]
        await self._replace(_Contents(entries, spec.removals))

    def _is_gap(self, written_at: datetime | None) -> bool:
        return written_at is None or abs(self._clock.now() - written_at) > GAP

    async def commit(
        self,
        add: Iterable[LedgerEntry],
        drop: Iterable[ClaimUid] = (),
        *,
        remove: Iterable[LedgerRemoval] = (),
        removed: Iterable[VmUid] = (),
    ) -> None:
        """Write entries and removals down and forget finished ones, in one write.

        On return it is done.

        Raises:
            NotLeading: another leader has taken over. Nothing of this call is committed.
        """
        gone, away = set(drop), set(removed)
        kept = [entry for uid, entry in self._entries.items() if uid not in gone]
        going = [removal for uid, removal in self._removals.items() if uid not in away]
        await self._write(_Contents([*kept, *add], [*going, *remove]))

    async def confirm(self) -> None:
        """Ask whether we still lead, whatever our clock says: whether the epoch is still ours.

        Raises:
            NotLeading: another leader has taken over.
            ClusterError: the API server did not answer.
        """
        try:
            current = await self._cluster.get(Kind.BINDING_LEDGER, self._ref)
        except NotFound as error:
            raise NotLeading("the ledger was deleted") from error
        there = current["spec"]
        if (there["epoch"], there["holder"]) != (self._epoch, self._holder):  # a backup's repeats
            raise NotLeading("another replica has written the ledger")

    async def _write(self, wanted: _Contents) -> None:
        while True:
            try:
                await self._replace(wanted)
            except Conflict as error:
                raise NotLeading("another replica has written the ledger") from error
            except NotFound as error:
                raise NotLeading("the ledger was deleted") from error
            except (ClusterUnavailable, Forbidden) as error:
                log.info("the ledger is not written yet: %s", error)
                await asyncio.sleep(pause_after(error))
            except ClusterOutcomeUnknown as error:
                if await self._is_written(wanted):
                    return
                log.info("the ledger is not written yet: %s", error)
                await asyncio.sleep(pause_after(error))
            else:
                return

    async def _is_written(self, wanted: _Contents) -> bool:
        """Look whether a write whose answer was lost has happened."""
        while True:
            try:
                current = await self._cluster.get(Kind.BINDING_LEDGER, self._ref)
            except NotFound as error:
                raise NotLeading("the ledger was deleted") from error
            except (ClusterUnavailable, Forbidden) as error:
                await asyncio.sleep(pause_after(error))
                continue
            if current["metadata"]["resourceVersion"] == self._version:
                return False
            if not _is_same(current["spec"], self._asked):
                raise NotLeading("another replica has written the ledger")
            self._adopt(current, wanted)
            return True

    async def _create(self) -> None:
        self._epoch = 1
        self._installation = self._new_installation()
        meta = {"namespace": self._ref.namespace, "name": self._ref.name}
        empty = _Contents([], [])
        body = {"metadata": meta, "spec": self._spec(empty)}
        self._adopt(await self._cluster.create(Kind.BINDING_LEDGER, body), empty)

    async def _replace(self, wanted: _Contents) -> None:
        meta = {
            "namespace": self._ref.namespace,
            "name": self._ref.name,
            "resourceVersion": self._version,
        }
        self._asked = self._spec(wanted)
        body = {"metadata": meta, "spec": self._asked}
        self._adopt(await self._cluster.replace(Kind.BINDING_LEDGER, body), wanted)

    def _spec(self, wanted: _Contents) -> dict[str, Any]:
        bare = BindingLedgerSpec(
            epoch=self._epoch,
            holder=self._holder,
            installation=self._installation,
            written_at=self._clock.now(),
            look_back=self._look_back,
            removals=wanted.removals,
        )
        return {**dump(bare), "entries": [self._text(entry) for entry in wanted.entries]}

    def _text(self, entry: LedgerEntry) -> str:
        known = self._texts.get(id(entry))
        if known is None:
            known = self._texts[id(entry)] = (entry, entry.model_dump_json(by_alias=True))
        return known[1]

    def _adopt(self, written: Body, contents: _Contents) -> None:
        self._version = written["metadata"]["resourceVersion"]
        self._written = self._clock.monotonic()
        self._entries = {ClaimUid(e.claim.uid): e for e in contents.entries}
        self._removals = {VmUid(r.uid): r for r in contents.removals}
        self._texts = {key: self._texts[key] for key in map(id, contents.entries)}


def _is_same(there: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether what stands there is what this write was to say: no other has its epoch and time.

    The epoch alone does not tell: an API server that was restored from a backup may have it, too.
    """
    return all(there.get(key) == asked.get(key) for key in ("epoch", "writtenAt"))
