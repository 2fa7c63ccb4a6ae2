"""Kubernetes Events: what a person would want to know of, and no more than can be read.

They are a courtesy, never a fact that anything relies on: when there are too many they are
dropped, and one that cannot be written is forgotten.
"""

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from warmpool.api.names import API_VERSION, Kind, Reason
from warmpool.api.v1alpha1.base import micro_timestamp
from warmpool.domain.errors import ClusterError
from warmpool.domain.ids import Ref
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.traffic import Traffic
from warmpool.reconcile.vitals import TURN_EVERY, Beat

log = logging.getLogger(__name__)

EVERY: Final = 0.2
"""Seconds between two Events: they share the API server with the claims."""

CALM_WITHIN: Final = 1.0
"""Seconds that the next Event waits for the end of a burst of claims at most."""

BURST: Final = 50
"""Events that may wait; beyond that the oldest are dropped."""

MAX_NOTE: Final = 1000
"""Characters of a note: the API server refuses more than 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object."""

    kind: Kind
    ref: Ref
    uid: str
    reason: Reason
    note: str
    warning: bool = False


class Announcer:
    """Writes Events, a few a second."""

    def __init__(self, cluster: Cluster, clock: Clock, identity: str, traffic: Traffic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._identity = identity
        self._traffic = traffic
        self._waiting: deque[tuple[Event, datetime]] = deque(maxlen=BURST)
        self._some = asyncio.Event()

    def say(self, event: Event) -> None:
        """Have an Event, of now, written when there is time."""
        self._waiting.append((event, self._clock.now()))
        self._some.set()

    async def run(self, beat: Beat) -> None:
        """Write until cancelled."""
        while True:
            beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_EVERY):
                    await self._some.wait()
            while self._waiting:
                beat()
                await self._traffic.calm(self._clock.monotonic() + CALM_WITHIN)
                await self._write(*self._waiting.popleft())
                await asyncio.sleep(EVERY)
            self._some.clear()

    async def _write(self, event: Event, at: datetime) -> None:
        try:
            await self._cluster.event(event.ref.namespace, self._body(event, at))
        except ClusterError as error:
            log.debug("an Event was not written: %s", error)

    def _body(self, event: Event, at: datetime) -> dict[str, object]:
        return {
            "metadata": {"generateName": f"{event.ref.name[:200]}-"},
            "eventTime": micro_timestamp(at),
            "reportingController": "warmpool.dev/operator",
            "reportingInstance": self._identity[:128],
            "action": event.reason.value,
            "reason": event.reason.value,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": event.kind.value,
                "namespace": event.ref.namespace,
                "name": event.ref.name,
                "uid": event.uid,
            },
            "note": event.note[:MAX_NOTE],
            "type": "Warning" if event.warning else "Normal",
        }
