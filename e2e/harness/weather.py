"""What a cloud and its operators do to pools in the course of months, in minutes.

What is done and when comes from a seed alone; whom it hits depends on the moment.
"""

import asyncio
import contextlib
import http
import random
import urllib.error
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from harness.clouds import Simulator
from harness.history import Record
from harness.monkey import CLOUD_FAULTS
from harness.sandbox import Sandbox
from warmpool.api.names import Kind

Body = dict[str, Any]

EVERY: Final = 6.0
"""Seconds between two troubles, on the average."""

FAULTS: Final[Sequence[Body]] = (
    *CLOUD_FAULTS,
    {"kind": "spawn", "effect": "hang", "count": 2},
    {"kind": "delete", "effect": "hang", "count": 2},
    {"kind": "api", "effect": "slow", "path": "^/compute", "delay": [20.0, 20.0]},
    {"kind": "api", "effect": "status", "status": 500, "path": "^/identity"},
)

TROUBLES: Final[Mapping[str, tuple[int, tuple[float, float]]]] = {
    # how often, and for how many seconds
    "fault": (10, (3.0, 40.0)),
    "kill": (2, (15.0, 45.0)),
    "crash": (1, (15.0, 45.0)),
    "disable": (1, (10.0, 40.0)),
    "silence": (3, (5.0, 40.0)),
    "wipe": (3, (0.0, 0.0)),
    "move": (2, (0.0, 0.0)),
    "rename": (1, (0.0, 0.0)),
    "untag": (1, (0.0, 0.0)),
    "quota": (2, (10.0, 40.0)),
    "image": (1, (10.0, 40.0)),
    "flavor": (1, (10.0, 40.0)),
    "template": (1, (0.0, 0.0)),
    "restart": (1, (0.0, 0.0)),
}

BACK: Final = {"kill": "revive", "crash": "revive", "disable": "enable"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing to do, at so many seconds from the beginning, for so many."""

    at: float
    what: str
    seconds: float
    seed: int
    """Of what is left to chance when it is done."""


def forecast(rng: random.Random, seconds: float) -> list[Trouble]:
    """What to do in so many seconds."""
    weights = [weight for weight, _ in TROUBLES.values()]
    troubles: list[Trouble] = []
    at = rng.expovariate(1 / EVERY)
    while at < seconds:
        what = rng.choices(list(TROUBLES), weights)[0]
        span = rng.uniform(*TROUBLES[what][1])
        troubles.append(Trouble(at, what, min(span, seconds - at), rng.randrange(2**32)))
        at += rng.expovariate(1 / EVERY)
    return troubles


@dataclass(slots=True)
class Weather:
    """Carries a forecast out."""

    sandbox: Sandbox
    cloud: Simulator
    record: Record
    restart: Callable[[], None]
    """Kills the operator that leads, and starts another."""
    done: Counter[str] = field(default_factory=Counter)
    """How often each trouble has hit something."""
    _leader: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def blow(self, troubles: Sequence[Trouble]) -> None:
        """Do all of it, each at its time; in the end the cloud is whole."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for trouble in troubles:
                await asyncio.sleep(max(0.0, began + trouble.at - loop.time()))
                tasks.create_task(self._do(trouble))
        await self._command(do="restore")
        await asyncio.to_thread(self.cloud.mend)

    async def _do(self, trouble: Trouble) -> None:
        rng = random.Random(trouble.seed)  # noqa: S311 - a test's choices
        match trouble.what:
            case "fault":
                await self._fault(rng.choice(FAULTS), trouble.seconds)
            case "kill" | "crash" | "disable" as change:
                await self._host(rng, change, trouble.seconds)
            case "silence" | "wipe" | "move" | "rename" | "untag" as change:
                await self._server(rng, change, trouble.seconds)
            case "quota":
                used = await asyncio.to_thread(self.cloud.used)
                await self._command(do="quota", instances=used + rng.randint(0, 3))
                await asyncio.sleep(trouble.seconds)
                await self._command(do="quota", instances=1000)
            case "image" | "flavor" as kind:
                template = self.cloud.template()
                await self._command(do="forget", kind=kind, name=template[kind])
                await asyncio.sleep(trouble.seconds)
                await self._command(do="restore")
            case "template":
                await self._new_template(rng)
            case "restart":
                async with self._leader:
                    await asyncio.to_thread(self.restart)
            case what:
                raise AssertionError(f"there is no trouble {what!r}")
        self.done[trouble.what] += 1

    async def _fault(self, fault: Body, seconds: float) -> None:
        lasts = {} if "count" in fault else {"seconds": seconds}
        number = await asyncio.to_thread(self.cloud.break_with, **fault, **lasts)
        await asyncio.sleep(seconds)
        with contextlib.suppress(OSError):  # it is over by itself
            await asyncio.to_thread(self.cloud.disarm, number)
        if (fault["kind"], fault["effect"]) == ("delete", "hang"):
            await self._finish_deletions()

    async def _finish_deletions(self) -> None:
        """What hung goes on, as when a nova-compute is back."""
        state = await asyncio.to_thread(self.cloud.state)
        for server in state["servers"]:
            if server["task"] == "deleting":
                await self._command(do="server", server=server["id"], change="wipe")

    async def _host(self, rng: random.Random, change: str, seconds: float) -> None:
        state = await asyncio.to_thread(self.cloud.state)
        host = rng.choice([host["name"] for host in state["hosts"]])
        await self._command(do="host", host=host, change=change)
        await asyncio.sleep(seconds)
        await self._command(do="host", host=host, change=BACK[change])

    async def _server(self, rng: random.Random, change: str, seconds: float) -> None:
        """Break a server that is ready, claimed or not."""
        vms = self.record.now[Kind.WARM_VM].values()
        ready = [vm for vm in vms if vm.get("status", {}).get("phase") == "Ready"]
        if not ready:
            return
        victim = rng.choice(ready)["status"]
        more = {"rename": {"to": "renamed"}, "move": {"to": await self._elsewhere(rng, victim)}}
        asked = {"do": "server", "server": victim["serverID"]} | more.get(change, {})
        await self._command(**asked, change=change)
        if change == "silence":
            await asyncio.sleep(seconds)
            await self._command(**asked, change="unsilence")

    async def _elsewhere(self, rng: random.Random, victim: Body) -> str:
        """Another hypervisor of the same zone."""
        hosts = (await asyncio.to_thread(self.cloud.state))["hosts"]
        names = [str(host["name"]) for host in hosts if host["zone"] == victim["zone"]]
        return rng.choice([name for name in names if name != victim["hypervisor"]])

    async def _new_template(self, rng: random.Random) -> None:
        pools = list(self.record.now[Kind.WARM_POOL].values())
        pool, mark = rng.choice(pools)["metadata"]["name"], f"{rng.randrange(2**16):x}"
        spec = {"template": {"metadata": {"release": mark}}}
        await asyncio.to_thread(self.sandbox.change, pool, spec)

    async def _command(self, **command: Any) -> None:
        """Have it done, if what it is done to is still there."""
        try:
            await asyncio.to_thread(self.cloud.do, **command)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.NOT_FOUND:
                raise
