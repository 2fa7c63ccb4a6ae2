"""What one cloud has room for, as one set of credentials sees it: its quota and its hypervisors.

Read while some pool is short of VMs, now and then while one only wants to know how it lies, else
not at all. What is promised to builds on their way, and Nova does not count yet, is taken off.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from warmpool.domain.cloud import BuildSpec, FlavorSize, HostRoom, Inventory, Place, Quota
from warmpool.domain.errors import CloudError
from warmpool.domain.facts import Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import Headroom, Site
from warmpool.planning import pace
from warmpool.planning.quota import headroom
from warmpool.ports.clock import Clock
from warmpool.ports.cloud import Cloud
from warmpool.reconcile.vitals import TURN_EVERY, Beat

log = logging.getLogger(__name__)

SHORT_EVERY: Final = 10.0
"""Seconds between readings while a pool is short of VMs: within these a raised quota is seen."""

CALM_EVERY: Final = 60.0
"""Seconds between readings while all that want to know are full."""

STALE: Final = 3
"""A reading counts for so many times these, for whoever was not just told to wait for one."""

WORTH: Final = 20
"""A reading is made at most every so many times as long as it took."""

ANSWER_WITHIN: Final = 10.0
"""Seconds that a reading may take: without it Nova's own checks must do."""

COUNTED_WITHIN: Final = 5.0
"""Seconds from a POST until Nova counts it for sure: it does so once the server is scheduled."""

PROMISED_FOR: Final = 3600.0
"""Seconds after which a build is forgotten that nobody has told the end of."""

MISSES: Final = 3
"""Aimed builds that fail in a row before Nova is left to choose for a while."""

FORGOTTEN_AFTER: Final = 90.0
"""Seconds after which a pool that has not asked again does not want to know any more."""

TICK: Final = 0.001
"""Seconds: what is due within these is due."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Reading(Generic[T]):
    """What was read, or why it could not be."""

    value: T | None
    why_not: str
    began: float
    took: float


@dataclass(frozen=True, slots=True)
class _Want:
    spec: BuildSpec
    every: float
    asked_at: float


@dataclass(frozen=True, slots=True)
class _Promise:
    """A build on its way."""

    size: FlavorSize
    hypervisor: str
    since: float
    posted_at: float = float("inf")


@dataclass(frozen=True, slots=True)
class _Avoided:
    until: float
    count: int


def _pause(took: float, want: _Want) -> float:
    """Seconds from a reading that took so many to the next."""
    return max(want.every, WORTH * took)


class Capacity:
    """Quota and hypervisors of one cloud."""

    def __init__(
        self, cloud: Cloud, clock: Clock, rng: random.Random, wake: Callable[[Ref], None]
    ) -> None:
        """`wake` tells a pool that there is something new."""
        self._cloud = cloud
        self._clock = clock
        self._rng = rng
        self._wake = wake
        self._wants: dict[Ref, _Want] = {}
        self._quota: _Reading[Quota] | None = None
        self._inventories: dict[str, _Reading[Inventory]] = {}
        self._promises: dict[Ref, _Promise] = {}
        self._avoided: dict[tuple[str, str], _Avoided] = {}
        """By flavor and hypervisor; without a hypervisor, nothing is aimed."""
        self._misses: Counter[str] = Counter()
        """Aimed builds that have failed since the last one that did not, by flavor."""
        self._may_not_aim = ""
        self._resting = False
        self._kicked = asyncio.Event()

    # -- asked by pools -----------------------------------------------------------------------

    def want(self, pool: Ref, spec: BuildSpec, *, short: bool) -> None:
        """A pool builds from this, or only wants to know where it could."""
        every = SHORT_EVERY if short else CALM_EVERY
        self._wants[pool] = _Want(spec, every, self._clock.monotonic())
        if not self.surveyed(pool):
            self._kicked.set()

    def surveyed(self, pool: Ref) -> bool:
        """Whether what it wants to know has been looked at lately, whatever came of it."""
        want, now = self._wants.get(pool), self._clock.monotonic()
        if want is None:
            return False
        readings = (self._quota, self._inventories.get(want.spec.flavor_id))
        return all(r is not None and now < r.began + STALE * _pause(r.took, want) for r in readings)

    def headroom(self, size: FlavorSize, *, ours: int) -> Headroom:
        """What the quota leaves; `ours`: servers of this installation."""
        reading = self._quota
        if reading is None or reading.value is None:
            return Headroom(None)
        promised = [promise.size for promise in self._uncounted(reading.began)]
        return headroom(reading.value, size, promised, ours=ours)

    def group_members(self) -> int | None:
        """Servers that one server group may have. None: any number, or not known."""
        quota = self._quota.value if self._quota is not None else None
        return None if quota is None else quota.group_members

    def sites(self, spec: BuildSpec, rack_of: Callable[[str], str]) -> tuple[Site, ...] | None:
        """What builds can be aimed at. None: nothing, and `unaimed` says why.

        Args:
            spec: what is built.
            rack_of: the rack of a compute host.
        """
        reading = self._inventories.get(spec.flavor_id)
        if self._may_not_aim or reading is None or reading.value is None:
            return None
        if not reading.value.visible or self.is_cautious(spec):
            return None
        taken = Counter(promise.hypervisor for promise in self._uncounted(reading.began))
        return tuple(
            Site(
                Place(self._cloud.region, host.zone, rack_of(host.host), host.hypervisor),
                self._room(spec, host, taken[host.hypervisor]),
            )
            for host in reading.value.hosts
        )

    def unaimed(self, spec: BuildSpec) -> str:
        """Why Nova chooses where this is built."""
        reading = self._inventories.get(spec.flavor_id)
        if self._may_not_aim or reading is None:
            return self._may_not_aim
        if self.is_cautious(spec):
            return "builds have failed where they were aimed"
        return reading.value.why_not if reading.value is not None else reading.why_not

    def is_cautious(self, spec: BuildSpec) -> bool:
        """Whether nothing is aimed for a while, since what was aimed has failed."""
        return self._is_avoided(spec, "")

    def takes(self, spec: BuildSpec, hypervisor: str) -> bool:
        """Whether a build may be aimed there now."""
        known = self._inventories.get(spec.flavor_id)
        hosts = known.value.hosts if known is not None and known.value is not None else ()
        there = any(host.hypervisor == hypervisor for host in hosts)
        avoided = self._is_avoided(spec, hypervisor) or self.is_cautious(spec)
        return there and not self._may_not_aim and not avoided

    def _room(self, spec: BuildSpec, host: HostRoom, taken: int) -> int | None:
        if self._is_avoided(spec, host.hypervisor):
            return 0
        return None if host.room is None else max(host.room - taken, 0)

    def _is_avoided(self, spec: BuildSpec, hypervisor: str) -> bool:
        avoided = self._avoided.get((spec.flavor_id, hypervisor))
        return avoided is not None and avoided.until > self._clock.monotonic()

    def _uncounted(self, began: float) -> Iterator[_Promise]:
        """Builds that a reading cannot have counted for sure."""
        for promise in self._promises.values():
            if promise.posted_at >= began - COUNTED_WITHIN:
                yield promise

    # -- told by pools ------------------------------------------------------------------------

    def promise(self, vm: Ref, spec: BuildSpec, hypervisor: str) -> None:
        """A build is about to be asked for."""
        self._promises[vm] = _Promise(spec.size, hypervisor, self._clock.monotonic())

    def posted(self, vm: Ref) -> None:
        """Nova has taken it."""
        promise = self._promises.get(vm)
        if promise is not None:
            self._promises[vm] = replace(promise, posted_at=self._clock.monotonic())

    def broken(self, vm: Ref) -> None:
        """It has come to nothing."""
        self._promises.pop(vm, None)

    def failed(self, spec: BuildSpec, vm: Vm) -> bool:
        """A build has failed; False: Nova had chosen where.

        If not, aim elsewhere for a while, longer each time. Several that fail in a row are more
        likely to have a reason in common than a bad hypervisor each: then Nova chooses for a
        while, tries several of them for each build, and tells what is wrong.
        """
        promise = self._promises.pop(vm.ref, None)
        hypervisor = vm.aim if promise is None else promise.hypervisor
        if not hypervisor:
            return False
        self._avoid((spec.flavor_id, hypervisor))
        self._inventories.pop(spec.flavor_id, None)  # it was wrong about this one, at least
        self._kicked.set()
        self._misses[spec.flavor_id] += 1
        if self._misses[spec.flavor_id] % MISSES == 0:
            self._avoid((spec.flavor_id, ""))
        return True

    def _avoid(self, key: tuple[str, str]) -> None:
        count = self._avoided[key].count + 1 if key in self._avoided else 1
        pause = pace.backoff(count + 1, self._rng.random()).total_seconds()
        self._avoided[key] = _Avoided(self._clock.monotonic() + pause, count)

    def worked(self, spec: BuildSpec, vm: Vm) -> None:
        """A build came to its end."""
        promise = self._promises.get(vm.ref)
        hypervisor = vm.aim if promise is None else promise.hypervisor
        if hypervisor:
            self._avoided.pop((spec.flavor_id, hypervisor), None)
            self._avoided.pop((spec.flavor_id, ""), None)
            self._misses[spec.flavor_id] = 0

    def may_not_aim(self, why: str) -> None:
        """These credentials may not say where to build."""
        log.info("builds are not aimed any more: %s", why)
        self._may_not_aim = why

    def rest(self, *, resting: bool) -> None:
        """Read nothing: the credentials are refused, and a further try may lock them."""
        if self._resting and not resting:
            self._kicked.set()
        self._resting = resting

    # -- reading ------------------------------------------------------------------------------

    async def run(self, beat: Beat) -> None:
        """Read what is wanted until cancelled."""
        while True:
            beat()
            self._kicked.clear()
            await self._read_due()
            await self._sleep()

    async def _sleep(self) -> None:
        due = min((due for due, _ in self._plan()), default=float("inf"))
        left = max(due - self._clock.monotonic(), 0.0)
        try:
            async with asyncio.timeout(min(left, TURN_EVERY)):
                await self._kicked.wait()
        except TimeoutError:
            pass

    async def _read_due(self) -> None:
        now = self._clock.monotonic()
        self._forget(now)
        due = [read for moment, read in self._plan() if moment <= now + TICK]
        if due:
            await asyncio.gather(*(read() for read in due))
            for pool in self._wants:
                self._wake(pool)

    def _plan(self) -> Iterator[tuple[float, Callable[[], Awaitable[None]]]]:
        """What is to be read, and when."""
        if self._resting:
            return
        wants: dict[str, list[_Want]] = {}
        for want in self._wants.values():
            wants.setdefault(want.spec.flavor_id, []).append(want)
        if wants:
            everybody = [want for several in wants.values() for want in several]
            yield self._due(self._quota, everybody), self._read_quota
        for flavor, several in wants.items():
            spec = several[0].spec
            due = self._due(self._inventories.get(flavor), several)
            yield due, lambda spec=spec: self._read_inventory(spec)  # type: ignore[misc]

    def _due(self, reading: "_Reading[T] | None", wants: list[_Want]) -> float:
        if reading is None:
            return float("-inf")
        return reading.began + min(_pause(reading.took, want) for want in wants)

    async def _read_quota(self) -> None:
        self._quota = await self._read(self._cloud.quota())

    async def _read_inventory(self, spec: BuildSpec) -> None:
        self._inventories[spec.flavor_id] = await self._read(self._cloud.inventory(spec))

    async def _read(self, call: Awaitable[T]) -> _Reading[T]:
        began = self._clock.monotonic()
        value, why_not = None, ""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                value = await call
        except CloudError as error:
            why_not = str(error)
        except TimeoutError:
            why_not = f"no answer within {ANSWER_WITHIN:g} s"
        return _Reading(value, why_not, began, self._clock.monotonic() - began)

    def _forget(self, now: float) -> None:
        """Let go of what does not matter any more."""
        self._wants = {
            pool: want
            for pool, want in self._wants.items()
            if want.asked_at > now - FORGOTTEN_AFTER
        }
        self._promises = {
            vm: promise
            for vm, promise in self._promises.items()
            if promise.since > now - PROMISED_FOR
        }
        self._avoided = {
            key: avoided
            for key, avoided in self._avoided.items()
            if avoided.until > now - PROMISED_FOR
        }
