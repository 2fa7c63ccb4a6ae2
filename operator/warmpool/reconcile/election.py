"""Who leads: one holder of a Lease.

The library's elector is not fit for use (it leads on after its deadline, never releases, and
compares wall clocks), so this is ours. What it promises:

- Leadership is a local "valid until": the *start* of the last good renewal plus the deadline, on
  the monotonic clock. The deadline is shorter than the lease: we stop before another may begin.
- Whether another's lease has run out is judged by how long *we* have seen it unchanged, never by
  its timestamps: clocks of two machines need not agree.
- A standby watches the Lease and tries the moment it is released or runs out.
- A slow answer is waited for, as long as there is time left for another attempt. A renewal whose
  answer was lost counts from its start, once the Lease is seen to say what we asked.
- It is released on the way out, so that a takeover need not wait for expiry.
- Hands that delete or edit the Lease make no two leaders: whoever it names after that waits as long
  as the former holder may lead on, whatever duration they gave it, and the holder takes a deleted
  or emptied Lease again. Who finds it gone writes one that nobody holds, so that all count from a
  version of something that is there.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any, Final

from warmpool.api.names import LEASE_NAME
from warmpool.api.v1alpha1.base import micro_timestamp
from warmpool.domain.errors import ClusterError, Conflict, NotFound, NotLeading
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Body, Leases
from warmpool.reconcile.vitals import TURN_EVERY, Beat

log = logging.getLogger(__name__)

RELEASE_AGAIN: Final = 0.1
"""Seconds between two attempts to hand the Lease back: who waits for it waits as long."""

RELEASED: Final = 1
"""Seconds that a released Lease claims to last, by which it is told from one emptied by hand."""

LONGEST: Final = 120
"""Seconds that a lease may be set to last: no holder leads on for longer without renewing it."""

HURRY: Final = 0.25
"""Part of the retry after which a renewal that failed is tried again."""


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """How long leadership lasts. lease > deadline > retry, each in seconds."""

    lease: timedelta = timedelta(seconds=10)
    """A lease not renewed for so long is free for others."""
    deadline: timedelta = timedelta(seconds=7)
    """We stop leading so long after the start of our last good renewal."""
    retry: timedelta = timedelta(seconds=2)
    """Between renewals."""


class Elector:
    """Takes part in one election, for as long as `run` runs."""

    def __init__(
        self, leases: Leases, clock: Clock, *, identity: str, times: LeaseTimes, rng: random.Random
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._identity = identity
        self._times = times
        self._rng = rng
        self._valid_until = float("-inf")
        self._seen_version = ""
        self._seen_at = float("-inf")
        self._held: Body | None = None
        self._asked: dict[str, float] = {}
        """The renewTimes that we asked for since we last heard, and when each attempt began: so we
        know our own, though the answer was lost."""

    def leads(self) -> bool:
        """Whether this replica may write now. To be asked right before each write."""
        return self._clock.monotonic() < self._valid_until

    async def run(self, lead: Callable[[], Awaitable[None]], beat: Beat) -> None:
        """Contend for ever; while leading, `lead` runs. It is cancelled when leadership ends.

        `lead` may return or raise `NotLeading`: then the Lease is released and contended for anew.
        Any other exception of it releases the Lease and is raised.
        """
        while True:
            await self._acquire(beat)
            log.info("leading", extra={"identity": self._identity})
            try:
                await self._term(lead, beat)
            finally:
                self._valid_until = float("-inf")
                await self._release()
            log.info("not leading any more", extra={"identity": self._identity})
            await asyncio.sleep(self._jittered(self._times.retry))

    async def _term(self, lead: Callable[[], Awaitable[None]], beat: Beat) -> None:
        """Renew and lead until either ends.

        No TaskGroup: one in which something fails forgets that it was cancelled from outside, and
        a replica that is told to stop must not contend anew.
        """
        both = [
            asyncio.ensure_future(self._renew_until_lost(beat)),
            asyncio.ensure_future(lead()),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            ends = await asyncio.gather(*both, return_exceptions=True)
        for end in ends:
            self._tell(end)

    @staticmethod
    def _tell(end: BaseException | None) -> None:
        """Raise what a term has ended of, unless it is that we do not lead."""
        if not isinstance(end, BaseException) or isinstance(end, asyncio.CancelledError):
            return
        lost, rest = (
            end.split(NotLeading)
            if isinstance(end, BaseExceptionGroup)
            else ((end, None) if isinstance(end, NotLeading) else (None, end))
        )
        if rest is not None:
            raise rest
        log.warning("leadership ended: %s", _first(lost))

    # -- acquiring ----------------------------------------------------------------------------

    async def _acquire(self, beat: Beat) -> None:
        while True:
            beat()
            wait = self._times.retry.total_seconds()
            try:
                async with asyncio.timeout(self._patience(self._times.deadline.total_seconds())):
                    free_in = await self._try()
                if free_in is None:
                    return
                wait = free_in
            except Conflict:
                self._held, wait = None, wait / 10  # somebody was faster: look who
            except (ClusterError, TimeoutError) as error:
                log.info("cannot read or take the lease: %r", error)
                self._held = None
            await self._until_changed(wait, beat)

    async def _try(self) -> float | None:
        """One attempt: None if we lead now, else seconds until the other's lease runs out."""
        started = self._clock.monotonic()
        current = await self._look()
        free_in = self._free_in(current, started)
        if free_in > 0:
            self._held = current
            return free_in
        taken = await self._leases.put_lease(LEASE_NAME, self._lease(current))
        self._hold(taken, started)
        self._seen_version = taken["metadata"]["resourceVersion"]
        return None

    async def _look(self) -> Body | None:
        """The Lease. None: there has never been one. One that is gone was deleted by hand."""
        try:
            return await self._leases.get_lease(LEASE_NAME)
        except NotFound:
            if not self._seen_version:
                return None
            return await self._leases.put_lease(LEASE_NAME, self._nobodys())

    def _free_in(self, lease: Body | None, now: float) -> float:
        """Seconds until a lease may be taken, counted from when we first saw this version."""
        if lease is None:
            return 0
        version, spec = lease["metadata"]["resourceVersion"], lease["spec"]
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, now
        if _is_released(spec) or self._is_our_own(spec):
            return 0
        ours = self._times.lease.total_seconds()
        duration = spec.get("leaseDurationSeconds") or ours
        # A hand may have made it shorter than its holder leads on, or longer than anybody's.
        return self._seen_at + min(max(duration, ours), max(LONGEST, ours)) - now

    def _is_our_own(self, spec: Mapping[str, Any]) -> bool:
        """Whether it is as we wrote it: our name alone may have been put there by hand."""
        return spec.get("holderIdentity") == self._identity and spec.get("renewTime") in self._asked

    async def _until_changed(self, wait: float, beat: Beat) -> None:
        """Sleep, but no longer than until the Lease may be ours, or cannot be watched."""
        if self._held is None:
            await asyncio.sleep(self._jittered(min(timedelta(seconds=wait), self._times.retry)))
            return
        try:
            async with asyncio.timeout(min(wait, TURN_EVERY)) as patience:
                await self._see_changes(self._held, patience, beat)
        except TimeoutError:
            pass
        except ClusterError as error:
            log.info("cannot watch the lease: %r", error)
            await asyncio.sleep(self._jittered(self._times.retry * HURRY))

    async def _see_changes(self, lease: Body, patience: asyncio.Timeout, beat: Beat) -> None:
        """Follow a Lease until it is free or gone. Once renewed, its time counts from then."""
        clock, version = asyncio.get_running_loop(), lease["metadata"]["resourceVersion"]
        async with contextlib.aclosing(self._leases.watch_lease(LEASE_NAME, version)) as stream:
            async for seen in stream:
                free_in = 0.0 if seen is None else self._free_in(seen, self._clock.monotonic())
                if free_in <= 0:
                    return
                beat()
                patience.reschedule(clock.time() + min(free_in, TURN_EVERY))

    # -- keeping and giving up ----------------------------------------------------------------

    async def _renew_until_lost(self, beat: Beat) -> None:
        pause = self._jittered(self._times.retry)
        while True:
            beat()
            await asyncio.sleep(pause)
            started = self._clock.monotonic()
            left = self._valid_until - started
            if left <= 0:
                raise NotLeading("the lease was not renewed in time")
            renewed = await self._try_to_renew(self._patience(left))
            took = self._clock.monotonic() - started
            span = self._times.retry * (1 if renewed else HURRY)
            pause = max(0.0, self._jittered(span) - took)

    def _patience(self, left: float) -> float:
        """Seconds for one attempt: half of what is left, so that another one is possible.

        Under load answers take long, and to give each up after a short while would be to get none.
        """
        return min(left, max(self._times.retry.total_seconds(), left / 2))

    async def _try_to_renew(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._renew()
        except Conflict:
            return await self._look_again(patience)
        except (ClusterError, TimeoutError) as error:
            log.warning("the lease was not renewed: %r", error)
            return False
        return True

    async def _renew(self) -> None:
        started = self._clock.monotonic()
        written = await self._leases.put_lease(LEASE_NAME, self._lease(self._held))
        self._hold(written, started)

    def _hold(self, lease: Body, since: float) -> None:
        """The Lease is ours, by an attempt that began then."""
        self._held = lease
        self._valid_until = since + self._times.deadline.total_seconds()
        self._asked = {lease["spec"]["renewTime"]: since}

    async def _look_again(self, patience: float) -> bool:
        """The Lease is not as we know it. True: that was us, by an attempt whose answer was lost.

        Somebody may have edited it: if it names us or nobody, we go on from that version. If
        somebody deleted it, we write it anew.
        """
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(patience):
                try:
                    current = await self._leases.get_lease(LEASE_NAME)
                except NotFound:
                    self._held = None
                    await self._renew()
                    return True
            return self._recognise(current)
        return False

    def _recognise(self, lease: Body) -> bool:
        spec = lease["spec"]
        if spec.get("holderIdentity") not in ("", None, self._identity) or _is_released(spec):
            raise NotLeading("another replica holds the lease")
        since = self._asked.get(spec.get("renewTime", "")) if self._is_our_own(spec) else None
        if since is None:
            self._held = lease
            return False
        self._hold(lease, since)
        return True

    async def _release(self) -> None:
        """Hand the Lease back, as far as the API server can be reached."""
        held, self._held = self._held, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._times.retry.total_seconds()):
                while held is not None:
                    held = await self._hand_back(held)

    async def _hand_back(self, held: Body) -> Body | None:
        """One attempt; the Lease for the next, if it is to be tried again.

        The renewal that was under way when we were told to stop may have arrived all the same: the
        Lease is newer then than the one we know, and still ours.
        """
        body = self._lease(held)
        body["spec"]["holderIdentity"] = ""
        body["spec"]["leaseDurationSeconds"] = RELEASED
        try:
            await self._leases.put_lease(LEASE_NAME, body)
        except Conflict:
            with contextlib.suppress(ClusterError):
                held = await self._leases.get_lease(LEASE_NAME)
                return held if self._is_our_own(held["spec"]) else None
        except ClusterError as error:
            log.info("the lease is not handed back yet: %r", error)
        else:
            return None
        await asyncio.sleep(RELEASE_AGAIN)
        return held

    def _lease(self, current: Body | None) -> dict[str, dict[str, object]]:
        """The Lease as we hold it."""
        now = micro_timestamp(self._clock.now())
        old = {} if current is None else dict(current["spec"])
        ours = old.get("holderIdentity") == self._identity
        spec: dict[str, object] = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.lease.total_seconds()),
            "acquireTime": old["acquireTime"] if ours and "acquireTime" in old else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if ours or not old else 1),
        }
        self._asked[now] = self._clock.monotonic()
        meta: dict[str, object] = {"name": LEASE_NAME}
        if current is not None:
            meta = {k: v for k, v in current["metadata"].items() if k != "managedFields"}
        return {"metadata": meta, "spec": spec}

    def _nobodys(self) -> dict[str, dict[str, object]]:
        """A Lease that nobody holds, and nobody may take before it has run out."""
        duration = int(self._times.lease.total_seconds())
        spec: dict[str, object] = {"holderIdentity": "", "leaseDurationSeconds": duration}
        return {"metadata": {"name": LEASE_NAME}, "spec": spec}

    def _jittered(self, span: timedelta) -> float:
        """Up to a fifth shorter, so that replicas do not march in step."""
        return span.total_seconds() * (1 - 0.2 * self._rng.random())


def _is_released(spec: Mapping[str, Any]) -> bool:
    """Whether its holder has handed it back. One that was emptied by hand may still be held."""
    return not spec.get("holderIdentity") and (spec.get("leaseDurationSeconds") or inf) <= RELEASED


def _first(error: BaseException | None) -> BaseException | None:
    """The first error in a tree of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
