"""Which rack the hosts of one cloud stand in, by its chain of sources.

Every source is asked in a task of its own, in the background, and what it said stands until it says
something else: one that is slow, gone or talks nonsense keeps nobody from building or binding.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from warmpool.domain.cloud import Place, Server
from warmpool.domain.errors import CloudError, RackConfigInvalid, RackSourceFailed
from warmpool.domain.racks import Host, RackReport, Settled, Telling, Told
from warmpool.planning.racks import host_id, is_doubtful, settle
from warmpool.ports.clock import Clock
from warmpool.ports.cloud import Cloud
from warmpool.ports.racks import Chain, OpenRacks, RackSource, Surroundings
from warmpool.reconcile.vitals import TURN_EVERY, Beat

log = logging.getLogger(__name__)

FIRST_LOOK: Final = 10.0
"""Seconds that the first VMs of a term wait for racks, so that they need not be written twice."""

ASK_WITHIN: Final = 120.0
"""Seconds after which a source is given up that does not end by itself, as it should."""

ASK_AT_MOST: Final = 5.0
"""Seconds between two questions to one source, however many new hosts there are."""

UNKNOWN_AGAIN: Final = 60.0
"""Seconds after which a source is asked again at the latest for a host that it did not know."""

RETRY: Final = 2.0
"""Seconds after a source has failed for the first time; doubled up to `RETRY_MAX`."""

RETRY_MAX: Final = 60.0

DOUBTED_FOR: Final = 600.0
"""Seconds for which a source must say that it has forgotten most of what it knew to be believed: an
inventory that is restored is empty for a while."""

HOSTS_EVERY: Final = 60.0
"""Seconds between looks at which hosts there are."""

TOLD_AFTER: Final = 2
"""Failures in a row to list the hosts before anybody is told: one is followed by another attempt in
seconds."""

FORGET_AFTER: Final = 180.0
"""Seconds after which a host is forgotten that Nova has no more and that has no server of ours."""

_NOBODY: Final = Telling("racks.yaml", {})
"""Stands for a chain that could not be read: whatever was known before counts."""


@dataclass(slots=True, eq=False)
class _Asked:
    """One source, and what it has said so far."""

    source: RackSource
    racks: dict[str, str] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    answered_at: float | None = None
    """When it told something for the first time."""
    doubted_since: float | None = None
    why: str = ""
    """Why it was silent when it was asked last. Empty: it was not."""
    done: bool = False
    """It was asked at least once."""
    kicked: asyncio.Event = field(default_factory=asyncio.Event)

    def due(self, hosts: Iterable[Host], now: float) -> tuple[Host, ...]:
        """Hosts that it is to be asked about now. It may not get to the last: they come in turn."""
        some = [host for host in hosts if self._is_due(host.name, now)]
        return tuple(sorted(some, key=lambda host: self.at.get(host.name, float("-inf"))))

    def _is_due(self, host: str, now: float) -> bool:
        good = self.source.refresh
        if not self.racks.get(host):
            good = min(good, UNKNOWN_AGAIN)
        return now - self.at.get(host, float("-inf")) >= good


class Racks:
    """The racks of one cloud, as well as they are known now."""

    def __init__(
        self,
        cloud: Cloud,
        open_racks: OpenRacks,
        clock: Clock,
        rng: random.Random,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is told when a rack has, or what there is to report."""
        self._cloud = cloud
        self._open = open_racks
        self._clock = clock
        self._rng = rng
        self._changed = changed
        self._surroundings: Surroundings | None = None
        self._inventory = cloud
        self._asked: list[_Asked] = []
        self._hosts: dict[str, Host] = {}
        self._met_at: dict[str, float] = {}
        self._by_id: dict[str, Host] = {}
        self._project = ""
        self._listed = False
        self._hidden = ""
        self._unlisted = ""
        self._wrong = ""
        self._strange: set[str] = set()
        """`hostId`s that the next look at the hosts is to explain."""
        self._baffling: frozenset[str] = frozenset()
        """`hostId`s that the last one did not."""
        self._recalled: dict[str, str] = {}
        self._settled = Settled()
        self._report = RackReport()
        self._anew = asyncio.Event()
        self._first = asyncio.Event()
        self._look_again = asyncio.Event()

    # -- asked by others ----------------------------------------------------------------------

    @property
    def report(self) -> RackReport:
        """How well racks are known."""
        return self._report

    @property
    def inventory(self) -> Cloud:
        """The credentials that may see hosts, if any may."""
        return self._inventory

    @property
    def visible(self) -> bool:
        """Whether these credentials see hosts."""
        return self._listed and not self._hidden

    def of_host(self, host: str) -> str:
        """The rack of a compute host; empty where it is not known."""
        known = self._settled.racks.get(host, "")
        return self._recalled.get(host, known) if self._waits(host) else known

    def host_name(self, server: Server) -> str | None:
        """The compute host of a server, seen by these credentials or by the inventory."""
        host = self._host_of(server)
        return host.name if host is not None else None

    def place(self, server: Server, before: Place) -> Place:
        """Where a server stands.

        Where hosts are not seen, `hostId` still tells hypervisors apart; together with an inventory
        it even names them. What is not known yet is as it was before, if the server has not moved.
        """
        host = self._host_of(server)
        if host is None and before.hypervisor and self._may_learn(server):
            return Place(before.region, server.zone, before.rack, before.hypervisor)
        hypervisor = server.host_id[:16] if host is None else host.hypervisor or host.name
        rack = "" if host is None else self._rack_of(host, hypervisor, before)
        return Place(self._cloud.region, server.zone, rack, hypervisor)

    def heed(self, servers: Iterable[Server]) -> None:
        """These servers are there: what is unknown of their hosts is to be found out."""
        now = self._clock.monotonic()
        for server in servers:
            if server.host is not None:
                self._met_at[server.host] = now
                self._meet(Host(server.host, server.hypervisor or ""))
            elif server.host_id not in self._by_id and self._may_learn(server):
                self._strange.add(server.host_id)
                self._look_again.set()

    def configure(self, surroundings: Surroundings) -> None:
        """Ask these sources from now on. What racks.yaml says wrongly changes nothing."""
        if surroundings.secret == (self._surroundings and self._surroundings.secret):
            return None
        self._surroundings = surroundings
        try:
            chain = self._open(surroundings)
        except (RackConfigInvalid, CloudError) as error:
            log.warning("racks of cloud %s: %s", surroundings.cloud, error)
            return self._misconfigured(str(error))
        except Exception as error:  # noqa: BLE001 - its words may be the Secret's
            kind = type(error).__name__
            log.error("racks of cloud %s: %s", surroundings.cloud, kind)  # noqa: TRY400
            return self._misconfigured(f"racks.yaml cannot be read ({kind})")
        self._wrong = ""
        self._take_over(chain)
        return None

    def _misconfigured(self, why: str) -> None:
        self._wrong = why
        self._settle()

    async def first_look(self) -> None:
        """Wait until every source was asked once, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await self._first.wait()

    # -- the loops ----------------------------------------------------------------------------

    async def run(self, beat: Beat) -> None:
        """Ask until cancelled."""
        try:
            while True:
                self._anew.clear()
                asked, inventory = self._asked, self._inventory
                async with asyncio.TaskGroup() as tasks:
                    running = [tasks.create_task(self._serve(one)) for one in asked]
                    running.append(tasks.create_task(self._serve_hosts()))
                    await self._until_anew(beat)
                    for task in running:
                        task.cancel()
                await self._close(asked, inventory)
        finally:
            await self._close(self._asked, self._inventory)

    async def _until_anew(self, beat: Beat) -> None:
        while not self._anew.is_set():
            beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_EVERY):
                    await self._anew.wait()

    async def _close(self, asked: list[_Asked], inventory: Cloud) -> None:
        for one in asked:
            await one.source.close()
        if inventory is not self._cloud:
            await inventory.close()

    async def _serve(self, asked: _Asked) -> None:
        while True:
            asked.kicked.clear()
            if await self._ask(asked):
                await asyncio.sleep(self._pause(asked))
            if not asked.failures:
                await self._idle(asked)

    def _pause(self, asked: _Asked) -> float:
        """Seconds in which it is not asked again, whatever happens."""
        if not asked.failures:
            return ASK_AT_MOST
        longest = max(min(asked.source.refresh, RETRY_MAX), RETRY)
        pause = min(RETRY * 2.0 ** min(asked.failures - 1, 10), longest)
        return pause * (0.5 + self._rng.random())

    async def _idle(self, asked: _Asked) -> None:
        """Until it is to be asked again for some host, or there is a new one."""
        pause = min(asked.source.refresh, UNKNOWN_AGAIN) if self._hosts else HOSTS_EVERY
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, pause - ASK_AT_MOST)):
                await asked.kicked.wait()

    async def _ask(self, asked: _Asked) -> bool:
        """Whether it was asked: there was something to ask."""
        now = self._clock.monotonic()
        due = asked.due(self._hosts.values(), now)
        if due:
            await self._hear(asked, due, now)
            asked.done = True
            self._settle()
        elif asked.failures:
            self._excuse(asked)
        return bool(due)

    def _excuse(self, asked: _Asked) -> None:
        """The hosts are gone that it did not answer for: there is nothing to ask again."""
        asked.failures, asked.why = 0, ""
        self._settle()

    async def _hear(self, asked: _Asked, due: tuple[Host, ...], now: float) -> None:
        name = asked.source.name
        try:
            async with asyncio.timeout(ASK_WITHIN):
                told = await asked.source.ask(due)
        except (RackSourceFailed, CloudError) as error:
            return self._failed(asked, f"{name}: {error}")
        except TimeoutError:
            return self._failed(asked, f"{name}: no answer within {ASK_WITHIN:g} s")
        except Exception as error:  # whatever a source does, building and binding go on
            log.exception("racks: %s", name)
            return self._failed(asked, f"{name}: {type(error).__name__}")
        if self._is_doubted(asked, told, now):
            return self._failed(asked, f"{name}: it has forgotten most hosts that it knew")
        if asked.answered_at is None:
            asked.answered_at = now
        asked.racks.update(told.racks)
        asked.at.update(dict.fromkeys(told.racks, now))
        if any(host.name not in told.racks for host in due):
            return self._failed(asked, f"{name}: {told.why}")
        if asked.failures:
            log.info("racks: %s answers again", name)
        asked.failures, asked.why = 0, ""
        return None

    def _is_doubted(self, asked: _Asked, told: Told, now: float) -> bool:
        if not is_doubtful(asked.racks, told.racks):
            asked.doubted_since = None
            return False
        if asked.doubted_since is None:
            asked.doubted_since = now
        return now - asked.doubted_since < DOUBTED_FOR

    def _failed(self, asked: _Asked, why: str) -> None:
        asked.failures += 1
        if asked.why != why:
            log.warning("racks: %s", why)
        asked.why = why

    async def _serve_hosts(self) -> None:
        failures = 0
        while True:
            self._look_again.clear()
            try:
                await self._list_hosts()
                failures = 0
            except CloudError as error:
                failures += 1
                log.info("racks: the hosts cannot be listed: %s", error)
                self._unlisted = str(error) if failures >= TOLD_AFTER else self._unlisted
                self._settle()
            pause = min(RETRY * 2.0**failures, HOSTS_EVERY) if failures else HOSTS_EVERY
            await asyncio.sleep(ASK_AT_MOST)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause - ASK_AT_MOST)):
                    await self._look_again.wait()

    async def _list_hosts(self) -> None:
        strange = frozenset(self._strange)
        found = await self._inventory.hosts()
        if self._inventory is not self._cloud and not self._project:
            self._project = (await self._cloud.identity()).project_id
        before = self._listed, self._by_id, self._baffling
        self._hidden = "" if found.visible else found.why_not
        self._unlisted = self._hidden if self._inventory is not self._cloud else ""
        self._listed = True
        for host in found.hosts:
            self._meet(host)
        self._forget({host.name for host in found.hosts})
        if self._project:
            self._by_id = {host_id(self._project, h.name): h for h in self._hosts.values()}
        self._strange -= strange
        self._baffling = strange - self._by_id.keys()
        self._settle()
        if before != (self._listed, self._by_id, self._baffling):
            self._changed()

    def _forget(self, there: set[str]) -> None:
        """Let go of hosts that Nova has no more, and no server either."""
        lately = self._clock.monotonic() - FORGET_AFTER
        for name in self._hosts.keys() - there if there else ():
            if self._met_at.get(name, float("-inf")) < lately:
                del self._hosts[name]

    # -- inside -------------------------------------------------------------------------------

    def _take_over(self, chain: Chain) -> None:
        """What the former sources have found out is recalled until the new ones have answered."""
        known = self._recalled | dict(self._settled.racks)
        self._recalled = {host: rack for host, rack in known.items() if rack}
        self._inventory, self._listed, self._unlisted = chain.inventory, False, ""
        self._asked = [_Asked(source) for source in chain.sources]
        self._anew.set()
        self._settle()

    def _meet(self, host: Host) -> None:
        known = self._hosts.get(host.name)
        if known is None or (host.hypervisor and known != host):
            self._hosts[host.name] = host
            for asked in self._asked:
                asked.kicked.set()

    def _host_of(self, server: Server) -> Host | None:
        if server.host is not None:
            return Host(server.host, server.hypervisor or "")
        return self._by_id.get(server.host_id)

    def _may_learn(self, server: Server) -> bool:
        """Whether an inventory will tell the host of a server that these credentials do not see."""
        apart = self._inventory is not self._cloud and not self._hidden
        return apart and bool(server.host_id) and server.host_id not in self._baffling

    def _rack_of(self, host: Host, hypervisor: str, before: Place) -> str:
        stayed = bool(before.rack) and before.hypervisor == hypervisor
        if stayed and self._waits(host.name):
            self._recalled.setdefault(host.name, before.rack)
        return self.of_host(host.name)

    def _waits(self, host: str) -> bool:
        """Whether who might know better of a host has not answered yet, or not for long."""
        return host not in self._settled.racks or host in self._settled.pending

    def _settle(self) -> None:
        """Bring together what is known, and tell if that is new."""
        told = [Telling(asked.source.name, asked.racks) for asked in self._asked]
        doubted = self._is_new()
        settled = settle(told or [_NOBODY], self._hosts, self._recalled, doubted=doubted)
        if (self._hosts or self._listed) and self._everybody_was_asked():
            self._first.set()
        report = self._reported(settled)
        if settled.contradictions != self._settled.contradictions:
            for contradiction in settled.contradictions:
                log.warning("racks contradict: %s", contradiction)
        if (settled, report) != (self._settled, self._report):
            self._settled, self._report = settled, report
            self._changed()

    def _is_new(self) -> bool:
        """Whether a source has begun to answer lately: what it has forgotten before, nobody saw."""
        since = self._clock.monotonic() - DOUBTED_FOR
        times = (asked.answered_at for asked in self._asked)
        return any(at is not None and at > since for at in times)

    def _reported(self, settled: Settled) -> RackReport:
        return RackReport(
            hosts=len(self._hosts),
            unknown=tuple(sorted(h for h in self._hosts if not settled.racks.get(h))),
            contradictions=settled.contradictions,
            silent=tuple(asked.why for asked in self._asked if asked.why),
            hidden=self._hidden if not self._hosts else "",
            unlisted=self._unlisted,
            wrong=self._wrong,
            looked=self._first.is_set(),
        )

    def _everybody_was_asked(self) -> bool:
        return not self._hosts or all(asked.done for asked in self._asked)
