"""The elector on a real API server, over connections that are cut, hang, or lose their answers.

What hundreds of stories in virtual time show (`scenario/test_election.py`), seen here with real
conflicts, real watches, real time. Each candidate has its own connection. Every few milliseconds
all are asked whether they lead: never do two.
"""

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness.proxy import Proxy

from warmpool.api.names import LEASE_NAME
from warmpool.domain.errors import NotFound
from warmpool.effects.clock import SystemClock
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.reconcile.election import Elector, LeaseTimes
from warmpool.tools.controlplane import ControlPlane

pytestmark = pytest.mark.integration

TIMES = LeaseTimes(timedelta(seconds=4), timedelta(seconds=3), timedelta(seconds=0.4))
LEASE, DEADLINE, RETRY = (t.total_seconds() for t in (TIMES.lease, TIMES.deadline, TIMES.retry))

PATIENCE = 60.0
"""Seconds for what must come, on however busy a machine."""

LOOK = 0.005


class Clock(SystemClock):
    """A machine whose wall clock may be wrong."""

    wrong = timedelta()

    def now(self) -> datetime:
        return super().now() + self.wrong


@dataclass
class Candidate:
    name: str
    line: Proxy
    elector: Elector
    clock: Clock
    terms: int = 0
    task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self.task = asyncio.ensure_future(self.elector.run(self._lead, lambda: None))

    async def stop(self) -> None:
        """As on SIGTERM: returns when the Lease is released, as far as it can be."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    async def _lead(self) -> None:
        self.terms += 1
        await asyncio.Event().wait()


@dataclass
class Election:
    plane: ControlPlane
    namespace: str
    admin: KubeCluster
    candidates: list[Candidate] = field(default_factory=list)

    def leader(self) -> Candidate | None:
        leading = [c for c in self.candidates if c.elector.leads()]
        assert len(leading) <= 1, f"two lead at once: {[c.name for c in leading]}"
        return leading[0] if leading else None

    async def watch(self) -> None:
        while True:
            self.leader()
            await asyncio.sleep(LOOK)

    async def until(self, holds: Callable[[], object], what: str) -> float:
        """Wait for something; the seconds that took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not holds():
            assert loop.time() < began + PATIENCE, what
            await asyncio.sleep(LOOK)
        return loop.time() - began

    async def wins(self, other_than: Candidate | None = None) -> Candidate:
        await self.until(lambda: self.leader() not in (None, other_than), "somebody leads")
        leader = self.leader()
        assert leader is not None
        return leader

    async def renewed(self, times: int = 1) -> None:
        """One of the candidates has written the Lease, so many times more."""
        names = {c.name for c in self.candidates}
        before = await self.lease()
        async with asyncio.timeout(PATIENCE):
            while times:
                await asyncio.sleep(RETRY / 4)
                now = await self.lease()
                if now != before and now.get("holderIdentity") in names:
                    before, times = now, times - 1

    async def lease(self) -> dict[str, Any]:
        """Its spec; empty if it is not there."""
        with contextlib.suppress(NotFound):
            return dict((await self.admin.get_lease(LEASE_NAME))["spec"])
        return {}

    async def edit(self, **spec: Any) -> None:
        """By hand, as with `kubectl edit`."""
        patch = json.dumps({"spec": spec})
        await self.kubectl("patch", "--type=merge", f"--patch={patch}")

    async def kubectl(self, verb: str, *args: str) -> None:
        words = (verb, "lease", LEASE_NAME, "-n", self.namespace, *args)
        await asyncio.to_thread(self.plane.kubectl, *words)


@contextlib.asynccontextmanager
async def an_election(
    plane: ControlPlane, folder: Path, number: int = 3, *, started: bool = True
) -> AsyncIterator[Election]:
    namespace = f"election-{secrets.token_hex(3)}"
    plane.kubectl("create", "namespace", namespace)
    async with contextlib.AsyncExitStack() as stack:

        async def connected(kubeconfig: Path) -> KubeCluster:
            credentials = await Credentials.load(str(kubeconfig))
            return await stack.enter_async_context(KubeCluster(credentials, namespace))

        election = Election(plane, namespace, await connected(plane.kubeconfig))
        for n in range(number):
            line = stack.enter_context(Proxy(plane.apiserver.url))
            api = await connected(line.kubeconfig(plane.kubeconfig, folder / f"r{n}"))
            clock, rng = Clock(), random.Random(n)  # noqa: S311 - jitter
            elector = Elector(api, clock, identity=f"r{n}", times=TIMES, rng=rng)
            election.candidates.append(Candidate(f"r{n}", line, elector, clock))
        watching = asyncio.ensure_future(election.watch())
        for candidate in election.candidates if started else ():
            candidate.start()
        try:
            yield election
            assert not watching.done(), watching.result()
        finally:
            watching.cancel()
            for candidate in election.candidates:
                candidate.line.heal()
                await candidate.stop()
    plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
async def election(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Election]:
    """Three candidates on an API server that nobody breaks; their lines may be."""
    async with an_election(control_plane, tmp_path) as opened:
        yield opened


@pytest.fixture
async def shaken(fragile: ControlPlane, tmp_path: Path) -> AsyncIterator[Election]:
    """Three on an API server that may be broken. It is whole again afterwards."""
    async with an_election(fragile, tmp_path) as opened:
        yield opened
        fragile.resume_apiserver()


async def test_of_many_that_race_one_wins(control_plane: ControlPlane, tmp_path: Path) -> None:
    async with an_election(control_plane, tmp_path, 6, started=False) as election:
        for terms in (1, 2, 3):
            for candidate in election.candidates:
                candidate.start()
            await election.wins()
            await election.renewed(2)
            assert sum(c.terms for c in election.candidates) == terms
            for candidate in election.candidates:
                await candidate.stop()
            assert election.leader() is None


@pytest.mark.parametrize("jump", [-3600, 3600], ids=str)
@pytest.mark.parametrize("whose", ["the leader's", "the others'"])
async def test_wall_clocks_do_not_matter(election: Election, whose: str, jump: int) -> None:
    leader = await election.wins()
    for candidate in election.candidates:
        if (candidate is leader) == (whose == "the leader's"):
            candidate.clock.wrong = timedelta(seconds=jump)
    await election.renewed(5)
    assert election.leader() is leader
    assert sum(c.terms for c in election.candidates) == 1


async def test_what_is_released_is_taken_at_once(election: Election) -> None:
    first = await election.wins()
    await first.stop()
    took = await election.until(election.leader, "another leads")
    assert took < LEASE / 2
    assert (await election.lease())["leaseTransitions"] >= 1


async def test_a_leader_whose_line_hangs_is_replaced_and_stands_by(election: Election) -> None:
    """Its renewal, on its way all the time, arrives when another leads, and is refused."""
    first = await election.wins()
    first.line.hang()
    took = await election.until(lambda: not first.elector.leads(), "it stops")
    assert took < DEADLINE + 1
    second = await election.wins()
    first.line.heal()
    await election.renewed(5)
    assert election.leader() is second
    assert (await election.lease())["holderIdentity"] == second.name
    assert (first.terms, second.terms) == (1, 1)


async def test_a_leader_that_hears_no_answers_stops(election: Election) -> None:
    first = await election.wins()
    first.line.deafen()
    await election.until(lambda: not first.elector.leads(), "it stops")
    await election.wins()
    first.line.heal()
    await election.renewed(3)
    assert election.leader() is not None


async def test_connections_that_are_reset_again_and_again_end_no_term(election: Election) -> None:
    leader = await election.wins()
    for _ in range(10):
        for candidate in election.candidates:
            candidate.line.cut()
        await asyncio.sleep(RETRY * 0.7)
    await election.renewed(2)
    assert election.leader() is leader
    assert leader.terms == 1


async def test_a_leader_that_is_refused_for_long_is_replaced(election: Election) -> None:
    first = await election.wins()
    first.line.refuse()
    second = await election.wins(other_than=first)
    first.line.heal()
    await election.renewed(3)
    assert election.leader() is second


async def test_a_conflict_with_a_hand_ends_no_term(election: Election) -> None:
    leader = await election.wins()
    for _ in range(4):
        await election.edit(renewTime="1999-01-01T00:00:00.000000Z")
        await election.renewed()
    assert election.leader() is leader
    assert leader.terms == 1


async def test_a_lease_deleted_by_hand_is_written_again(election: Election) -> None:
    leader = await election.wins()
    for _ in range(3):
        await election.kubectl("delete")
        await election.renewed()
    assert election.leader() is leader
    assert leader.terms == 1


@pytest.mark.parametrize(
    "edit",
    [
        {"holderIdentity": ""},
        {"holderIdentity": "nobody-we-know"},
        {"holderIdentity": "r0"},
        {"holderIdentity": "r1"},
        {"leaseDurationSeconds": 1},
        {"leaseDurationSeconds": 100_000},
    ],
    ids=lambda edit: "-".join(str(part) for item in edit.items() for part in item),
)
async def test_a_lease_edited_by_hand_makes_no_two_leaders(
    election: Election, edit: dict[str, Any]
) -> None:
    await election.wins()
    await election.renewed(2)
    await election.edit(**edit)
    await election.until(election.leader, "somebody leads")
    await election.renewed(3)
    await election.wins()
    spec = await election.lease()
    assert spec["leaseDurationSeconds"] == LEASE


async def test_nobody_leads_on_when_the_api_server_hangs(shaken: Election) -> None:
    leader = await shaken.wins()
    shaken.plane.pause_apiserver()
    took = await shaken.until(lambda: not leader.elector.leads(), "it stops")
    assert took < DEADLINE + 1
    await asyncio.sleep(LEASE)
    assert shaken.leader() is None
    shaken.plane.resume_apiserver()
    await shaken.wins()


@pytest.mark.parametrize("how", ["updated", "killed"])
async def test_one_leads_again_after_the_api_server_was_restarted(
    shaken: Election, how: str
) -> None:
    """While it starts it answers 403, 500 and 503, as it likes."""
    await shaken.wins()
    if how == "killed":
        await asyncio.to_thread(shaken.plane.kill_apiserver)
    await asyncio.to_thread(shaken.plane.restart_apiserver)
    await shaken.wins()
    await shaken.renewed(3)


async def test_never_two_whatever_happens_to_the_lines(election: Election) -> None:
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")  # noqa: T201 - to be repeated
    rng = random.Random(seed)  # noqa: S311 - a story
    for _ in range(25):
        line = rng.choice(election.candidates).line
        rng.choice([line.cut, line.hang, line.deafen, line.refuse, line.heal, line.heal])()
        await asyncio.sleep(rng.random() * RETRY * 2)
    for candidate in election.candidates:
        candidate.line.heal()
    await election.wins()
