"""`warmpool novasim`: a simulated OpenStack on loopback, for tests and for trying things out."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from warmpool.sim.http import Running, running
from warmpool.sim.http_control import Preload, preload
from warmpool.sim.scenarios import SCENARIOS, WorldInvalid, load
from warmpool.sim.spec import WorldSpec


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("novasim", help="run a simulated OpenStack on loopback")
    add = parser.add_argument
    add("--port", type=int, default=0, help="port of the APIs; 0: one that is free")
    add("--scenario", default="demo", help=f"{', '.join(SCENARIOS)}, or a YAML file")
    add("--seed", type=int, default=1, help="the same seed gives the same chances")
    add("--clouds-out", type=Path, help="write a clouds.yaml here: clouds sim and sim-member")
    add("--build-seconds", help="how long builds take: 2, or 1..3")
    add("--guest-port", type=int, help="port that guests answer on; 0: one that is free")
    add("--no-guests", action="store_true", help="open no ports for guests")
    add("--preload", type=int, default=0, metavar="N", help="begin with N servers that are ACTIVE")
    add("--preload-tag", action="append", default=[], help="tag of these servers; may be repeated")
    add("--ready-file", type=Path, help="write the URL here when ready")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    try:
        spec = world(args)
        asyncio.run(_serve(spec, args))
    except (WorldInvalid, OSError, ValueError) as error:
        print(f"novasim: {error}", file=sys.stderr)
        return 1
    return 0


def world(args: argparse.Namespace) -> WorldSpec:
    """The world that the arguments ask for.

    Raises:
        WorldInvalid: it is none.
    """
    spec = load(args.scenario)
    timings = spec.timings.model_dump()
    guests = spec.guests.model_dump()
    if args.build_seconds is not None:
        timings["build"] = args.build_seconds
    if args.guest_port is not None:
        guests["port"] = args.guest_port
    guests["listen"] = guests["listen"] and not args.no_guests
    try:
        return WorldSpec.model_validate({**spec.model_dump(), "timings": timings, "guests": guests})
    except ValidationError as error:
        wrong = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
        raise WorldInvalid(f"the arguments make no world: {wrong}") from error


async def _serve(spec: WorldSpec, args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with running(spec, port=args.port, seed=args.seed) as cloud:
        if args.preload:
            preload(cloud.nova, Preload(count=args.preload, tags=tuple(args.preload_tag)))
        _announce(cloud, args)
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({stopping, cloud.ticking}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if cloud.ticking.done():
            cloud.ticking.result()


def _announce(cloud: Running, args: argparse.Namespace) -> None:
    """Say where it is, when everything else is there."""
    if args.clouds_out is not None:
        args.clouds_out.write_text(cloud.clouds_yaml(), encoding="utf-8")
    if args.ready_file is not None:
        args.ready_file.write_text(f"{cloud.url}\n", encoding="utf-8")
    print(f"novasim: ready at {cloud.url}", flush=True)
