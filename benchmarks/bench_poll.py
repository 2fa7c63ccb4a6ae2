"""What it costs to know of 10,000 servers: bytes and CPU per minute of polling, by what happens.

The cloud is the simulator, a process of its own with 10,000 servers of ours on 500 hypervisors. The
poller is the operator's own session with its real adapter, over HTTP. CPU is that of the poller's
process with its threads, bytes are those of the bodies of the answers. Each minute carries its
share of the complete listing that comes every quarter of an hour.

While something is under way the pace is a share of what builds take in that cloud: half a minute
here, as in many.

Writes a table to stdout and the figures to `benchmarks/results/poll.json`.
"""

import argparse
import asyncio
import contextlib
import json
import platform
import random
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn

from stand import Json, simulated_cloud

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER
from warmpool.domain.ids import InstallationId, Ref
from warmpool.effects.clock import SystemClock
from warmpool.effects.nova import NovaCloud, open_cloud
from warmpool.effects.racks.opening import open_racks
from warmpool.reconcile.rhythm import FULL_EVERY
from warmpool.reconcile.session import CloudSession
from warmpool.tools.processes import Process, temporary_directory

RESULTS: Final = Path(__file__).parent / "results" / "poll.json"
SERVERS: Final = 10_000
CHANGES: Final = 100
"""Changes a minute."""
BUILD: Final = 30.0
"""Seconds that a build takes in this cloud."""
US: Final = InstallationId("bench")
POOL: Final = Ref("bench", "data")


@dataclass
class Meter:
    """Counts what comes over the wire."""

    answers: int = 0
    received: int = 0
    names: Counter[str] = field(default_factory=Counter)

    def attach(self, cloud: NovaCloud) -> None:
        wire: Any = cloud._wire  # noqa: SLF001 - nobody else sees the bytes
        exchange = wire.exchange

        def counted(call: Any, gate: Any) -> Any:
            answer = exchange(call, gate)
            self.answers += 1
            self.received += len(answer.body)
            self.names[call.name] += 1
            return answer

        wire.exchange = counted


@dataclass(frozen=True)
class Cost:
    """Of a span of time."""

    seconds: float
    received: int
    cpu: float
    calls: Counter[str]

    def per_minute(self, share_of: Json) -> Json:
        """With the share of a complete listing that falls on a minute."""
        part = 60 / FULL_EVERY
        received = self.received * 60 / self.seconds + share_of["bytes"] * part
        cpu = self.cpu * 60 / self.seconds + share_of["cpu_s"] * part
        return {
            "bytes": round(received),
            "cpu_s": round(cpu, 4),
            "calls": {name: round(n * 60 / self.seconds, 1) for name, n in self.calls.items()},
            "bytes_of_a_full_listing": round(received / share_of["bytes"], 4),
            "cpu_of_a_full_listing": round(cpu / share_of["cpu_s"], 4),
        }


@contextlib.contextmanager
def simulator(servers: int) -> Iterator[tuple[str, str]]:
    """A cloud with so many servers of ours; its URL and its clouds.yaml."""
    with (
        temporary_directory("warmpool-bench-poll-") as directory,
        simulated_cloud(directory, "--no-guests", "--scenario", "big") as (url, clouds_yaml),
    ):
        tags = [f"{TAG_INSTALLATION}{US}", f"{TAG_OWNER}vm-{{n}}"]
        call(f"{url}/_sim/preload", {"count": servers, "tags": tags, "network": True})
        call(f"{url}/_sim/advance", {"seconds": 3600})  # they have been there for long
        yield url, clouds_yaml


def call(url: str, body: Json | None = None) -> Any:
    """Ask the simulator's control API; with a body, tell it something."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data)  # noqa: S310 - a server of ours on loopback
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - as above
        return json.loads(response.read() or b"null")


def churn(url: str, per_minute: int) -> NoReturn:
    """Change servers at an even pace until killed: a process of its own."""
    servers = [server["id"] for server in call(f"{url}/_sim/state")["servers"]]
    for n in count():
        server = servers[n * 7919 % len(servers)]
        command = {"do": "server", "server": server, "change": "rename", "to": f"name-{n}"}
        call(f"{url}/_sim/do", command)
        time.sleep(60 / per_minute)
    raise AssertionError


@contextlib.contextmanager
def changing(url: str, per_minute: int) -> Iterator[None]:
    if not per_minute:
        yield
        return
    with temporary_directory("warmpool-bench-churn-") as directory:
        command: list[str | Path] = [sys.executable, __file__, "--churn", url]
        command += ["--changes", str(per_minute)]
        process = Process.start(command, log=directory / "log", name="churn")
        try:
            yield
        finally:
            process.terminate()


@contextlib.asynccontextmanager
async def polling(
    clouds_yaml: str, *, building: float | None
) -> AsyncIterator[tuple[CloudSession, Meter]]:
    """A session that polls, and has had its first complete listing.

    `building`: something is under way, and builds take so many seconds.
    """
    cloud = open_cloud(clouds_yaml, "sim", installation=US)
    meter = Meter()
    meter.attach(cloud)
    session = CloudSession(
        cloud,
        SystemClock(),
        random.Random(1),  # noqa: S311 - jitter
        open_racks=open_racks,
        wake_vms=lambda _owners: None,
        wake_pool=lambda _pool: None,
        nudge=lambda _pool: None,
    )
    if building is not None:
        session._rhythm.built(building)  # noqa: SLF001 - as if it had seen one
    session.use(POOL, busy=building is not None)
    task = asyncio.ensure_future(session.run(lambda: None))
    try:
        while not session.listed:  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.05)
        yield session, meter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cloud.close()


async def full_listing(clouds_yaml: str, rounds: int) -> Json:
    """Bytes and CPU of one complete listing, taken in."""
    received, cpu, seconds = [], [], []
    for _ in range(rounds):
        async with polling(clouds_yaml, building=None) as (session, meter):
            before, at, wall = meter.received, time.process_time(), time.perf_counter()
            listing = await session.cloud.list(None)
            session._seen.take_in(listing, time.monotonic())  # noqa: SLF001 - what a poll does
            cpu.append(time.process_time() - at)
            seconds.append(time.perf_counter() - wall)
            received.append(meter.received - before)
            assert len(listing.servers) == len(session.servers())
    return {
        "bytes": round(median(received)),
        "cpu_s": round(median(cpu), 4),
        "seconds": round(median(seconds), 3),
    }


async def span(
    url: str, clouds_yaml: str, seconds: float, *, changes: int, building: float | None
) -> Cost:
    """The cost of so much polling, beside the first complete listing."""
    with changing(url, changes):
        async with polling(clouds_yaml, building=building) as (session, meter):
            await asyncio.sleep(5)
            names, received = meter.names.copy(), meter.received
            seen, at = dict(session.servers()), time.process_time()
            await asyncio.sleep(seconds)
            cost = Cost(
                seconds, meter.received - received, time.process_time() - at, meter.names - names
            )
            heard = sum(session.servers()[owner] != server for owner, server in seen.items())
            assert bool(heard) == bool(changes), f"{heard} changes were heard of"
            return cost


async def measure(args: argparse.Namespace) -> Json:
    with simulator(args.servers) as (url, clouds_yaml):
        full = await full_listing(clouds_yaml, 3)
        results: Json = {"full_listing": full}
        for name, changes, building in (
            ("nothing_changes", 0, None),
            (f"{args.changes}_changes_a_minute", args.changes, None),
            (f"{args.changes}_changes_a_minute_while_building", args.changes, BUILD),
        ):
            cost = await span(url, clouds_yaml, args.seconds, changes=changes, building=building)
            results[name] = cost.per_minute(full)
            print(line(name, results[name]), flush=True)
        return results


def line(name: str, figures: Json) -> str:
    kib, share = figures["bytes"] / 1024, figures["bytes_of_a_full_listing"]
    cpu, part = figures["cpu_s"], figures["cpu_of_a_full_listing"]
    return f"{name:44} {kib:8.0f} KiB/min ({share:6.1%})  {cpu:7.3f} s CPU/min ({part:6.1%})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=SERVERS)
    parser.add_argument("--changes", type=int, default=CHANGES, help="a minute")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--churn", metavar="URL", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.churn:
        churn(args.churn, args.changes)
    print(f"polling {args.servers} servers; in brackets the share of one complete listing")
    results = asyncio.run(measure(args))
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    figures = {"servers": args.servers, **machine, **results}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    full = results["full_listing"]
    print(f"a complete listing: {full['bytes'] / 1024:.0f} KiB, {full['cpu_s']:.3f} s CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
