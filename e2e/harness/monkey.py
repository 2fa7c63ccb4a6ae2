"""Does to replicas, their networks, the API server and the cloud what the world does to them.

What is done, to whom and when comes from a seed alone; what it hits depends on the moment.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.clouds import Simulator
from harness.crew import Crew, Replica, now
from harness.leading import Trouble
from harness.proxy import Mode
from warmpool.tools.controlplane import ControlPlane

Body = dict[str, Any]

EVERY: Final = 2.5
"""Seconds between two deeds, on the average."""

LEADER: Final = 0.65
"""How often a deed is for the one that leads."""

SENDING: Final = 1.0
"""Seconds that one goes on while what it sends is held, before it stands still."""

MODES: Final = {
    "hold": Mode.HANG,
    "deaf": Mode.DEAF,
    "swallow": Mode.SWALLOW,
    "refuse": Mode.REFUSE,
    "lag": Mode.LAG,
    "slow": Mode.SLOW,
}
"""What each deed does to connections. A deed of another name does something else."""

DEEDS: Final[Mapping[str, tuple[int, tuple[float, float]]]] = {
    # how often, and for how many seconds: the lease of the run is 4
    "kill": (5, (0.2, 3.0)),
    "term": (2, (0.0, 2.0)),
    "stop": (2, (0.3, 2.5)),
    "stop-long": (4, (4.5, 8.0)),
    "break": (2, (0.0, 0.0)),
    "hold": (4, (1.0, 7.0)),
    "hold-and-kill": (2, (2.0, 7.0)),
    "deaf": (2, (1.0, 7.0)),
    "swallow": (2, (1.0, 7.0)),
    "refuse": (2, (1.0, 6.0)),
    "lag": (4, (2.0, 8.0)),
    "blind": (3, (6.0, 9.0)),
    "freeze": (3, (5.5, 9.0)),
    "slow": (2, (2.0, 6.0)),
    "api-restart": (1, (0.0, 0.0)),
    "api-kill": (1, (0.0, 1.0)),
    "api-hang": (1, (0.5, 4.0)),
    "cloud": (6, (2.0, 6.0)),
}

NAMES: Final = tuple(DEEDS)

CLOUD_FAULTS: Final[Sequence[Body]] = (
    {"kind": "api", "effect": "status", "status": 503, "path": "^/compute"},
    {"kind": "api", "effect": "status", "status": 429, "retry_after": 1, "method": "POST"},
    {"kind": "api", "effect": "slow", "path": "^/compute", "delay": [0.3, 2.0]},
    {"kind": "api", "effect": "drop", "path": "^/compute", "method": "POST|DELETE"},
    {"kind": "api", "effect": "lost", "path": "^/compute", "method": "POST|DELETE", "count": 6},
    {"kind": "spawn", "effect": "fail", "count": 4},
    {"kind": "spawn", "effect": "abort", "count": 2},
    {"kind": "spawn", "effect": "vanish", "count": 2},
    {"kind": "delete", "effect": "ignored", "count": 4},
    {"kind": "action", "effect": "fail", "action": "rebuild", "count": 2},
    {"kind": "list", "effect": "cut"},
    {"kind": "list", "effect": "half"},
    {"kind": "list", "effect": "duplicates"},
    {"kind": "list", "effect": "empty"},
    {"kind": "outage", "effect": "scheduler"},
    {"kind": "outage", "effect": "credentials"},
)


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing to do. Times are seconds, counted from the beginning."""

    at: float
    what: str
    to_leader: bool
    index: int
    """Of the replica, if it is not for the leader; of the cloud's fault."""
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {self.what} for {self.seconds:.1f} s"


def schedule(rng: random.Random, seconds: float, names: Sequence[str] = NAMES) -> list[Deed]:
    """What to do in so many seconds."""
    weights = [DEEDS[name][0] for name in names]
    deeds: list[Deed] = []
    at = rng.expovariate(1 / EVERY)
    while at < seconds:
        what = rng.choices(names, weights)[0]
        span = rng.uniform(*DEEDS[what][1])
        deeds.append(Deed(at, what, rng.random() < LEADER, rng.randrange(1000), span))
        at += rng.expovariate(1 / EVERY)
    return deeds


@contextlib.contextmanager
def spell(replica: Replica, mode: Mode) -> Iterator[None]:
    """Treat its connections like that for a while."""
    replica.proxy.turn(mode)
    try:
        yield
    finally:
        replica.proxy.heal()


@dataclass(slots=True)
class Monkey:
    """Carries a schedule out."""

    crew: Crew
    control_plane: ControlPlane
    cloud: Simulator
    troubles: list[Trouble] = field(default_factory=list)
    """What was done, and when."""
    _api: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def rage(self, deeds: Sequence[Deed]) -> None:
        """Do all of them, each at its time, and see to it that all is well again."""
        began = now()
        async with asyncio.TaskGroup() as tasks:
            for deed in deeds:
                await asyncio.sleep(max(0.0, began + deed.at - now()))
                tasks.create_task(self._do(deed))
        await self.heal()

    async def heal(self) -> None:
        """Everything works, and everybody is there."""
        await asyncio.to_thread(self.cloud.mend)
        for replica in self.crew.replicas:
            replica.proxy.heal()
        await self.crew.heal()

    async def _do(self, deed: Deed) -> None:
        begin = now()
        if deed.what == "cloud":
            whom = await self._disturb_cloud(deed)
        elif deed.what.startswith("api-"):
            whom = await self._disturb_api(deed)
        else:
            whom = await self._disturb_replica(deed, self._target(deed))
        delays = deed.what not in ("kill", "term", "break")
        self.troubles.append(Trouble(begin, now(), deed.what, whom, delays=delays))

    def _target(self, deed: Deed) -> Replica:
        leader = self.crew.leader() if deed.to_leader else None
        return leader or self.crew.replicas[deed.index % len(self.crew.replicas)]

    async def _disturb_replica(self, deed: Deed, replica: Replica) -> str:
        """Do it to a replica; the prefix of its processes' names."""
        match deed.what:
            case "kill":
                await self.crew.kill(replica)
                await asyncio.sleep(deed.seconds)
                await self.crew.start(replica)
            case "term":
                await self.crew.terminate(replica)
                await asyncio.sleep(deed.seconds)
                await self.crew.start(replica)
            case "stop" | "stop-long":
                await self._stop(replica, deed.seconds)
            case "break":
                replica.proxy.cut()
            case "blind":
                await self._blind(replica, deed.seconds)
                return ""
            case "freeze":
                await self._freeze(replica, deed.seconds)
            case "hold-and-kill":
                with spell(replica, Mode.HANG):
                    await asyncio.sleep(deed.seconds / 2)
                    await self.crew.kill(replica)
                    await asyncio.sleep(deed.seconds / 2)
                await self.crew.start(replica)
            case _:
                with spell(replica, MODES[deed.what]):
                    await asyncio.sleep(deed.seconds)
        return f"{replica.name}-"

    async def _blind(self, replica: Replica, seconds: float) -> None:
        """It goes while the watches of the others stand still: who follows missed its last."""
        others = [other for other in self.crew.replicas if other is not replica]
        with contextlib.ExitStack() as spells:
            for other in others:
                spells.enter_context(spell(other, Mode.LAG))
            await asyncio.sleep(seconds / 3)
            await self.crew.terminate(replica)
            await asyncio.sleep(seconds * 2 / 3)
        await self.crew.start(replica)

    async def _freeze(self, replica: Replica, seconds: float) -> None:
        """It stands still, with what it has sent, and that arrives when another leads.

        As when its machine is moved: no connection is closed, so the API server carries it out.
        """
        with spell(replica, Mode.DUMB):
            await asyncio.sleep(SENDING)
            stopped = asyncio.ensure_future(self._stop(replica, seconds))
            await asyncio.sleep(seconds - 1)
        await stopped

    async def _stop(self, replica: Replica, seconds: float) -> None:
        process = replica.process
        if process is None or not process.alive:
            return
        process.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            process.resume()

    async def _disturb_api(self, deed: Deed) -> str:
        async with self._api:
            match deed.what:
                case "api-restart":
                    await asyncio.to_thread(self.control_plane.restart_apiserver)
                case "api-kill":
                    await asyncio.to_thread(self.control_plane.kill_apiserver)
                    await asyncio.sleep(deed.seconds)
                    await asyncio.to_thread(self.control_plane.restart_apiserver)
                case _:
                    self.control_plane.pause_apiserver()
                    await asyncio.sleep(deed.seconds)
                    self.control_plane.resume_apiserver()
        return ""

    async def _disturb_cloud(self, deed: Deed) -> str:
        fault = CLOUD_FAULTS[deed.index % len(CLOUD_FAULTS)]
        seconds = {} if "count" in fault else {"seconds": deed.seconds}
        number = await asyncio.to_thread(self.cloud.break_with, **fault, **seconds)
        await asyncio.sleep(deed.seconds)
        with contextlib.suppress(OSError):  # it is over by itself
            await asyncio.to_thread(self.cloud.disarm, number)
        return ""
